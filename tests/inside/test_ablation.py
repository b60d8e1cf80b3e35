import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.inside.ablation import ablation_exact
from gpt2_interp.inside.losses import mean_nll
from gpt2_interp.inside.observation import measuring
from gpt2_interp.model.anatomy import find_gpt2
from tests.inside.test_losses import EXAMPLES, HALVES, N_HEAD, N_LAYER, make_kinds, tiny, tiny_lora


@torch.no_grad()
def slow_ablation(model, examples, halves, share: float = 1.0, only=lambda t: True) -> np.ndarray:
    """[example, layer, head] in double precision: one whole forward pass for each example and head, no padding.

    share: how far z is moved towards its replacement. only: of which positions the tokens are asked for.
    """
    gpt2 = find_gpt2(model).eval()
    gpt2.set_attn_implementation("eager")
    projections = [block.attn.c_proj for block in gpt2.transformer.h]
    d_head = gpt2.config.n_embd // gpt2.config.n_head

    def loss(example, layer=None, change=None) -> float:
        handle = None if layer is None else projections[layer].register_forward_pre_hook(change)
        log_p = gpt2(torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
        if handle is not None:
            handle.remove()
        ids, n_prompt = example.input_ids, len(example.prompt_ids)
        return -np.mean([log_p[t - 1, ids[t]].item() for t in range(max(n_prompt, 1), len(ids)) if only(t)])

    parts = {}  # (half, layer, part): the mean of each of its examples
    for example, half in zip(examples, halves, strict=True):
        for layer, projection in enumerate(projections):
            seen = []
            handle = projection.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0][0]))
            loss(example)
            handle.remove()
            for part in ("source", "target"):
                n_prompt = len(example.prompt_ids)
                z = seen[0][:n_prompt] if part == "source" else seen[0][n_prompt:]
                if len(z):
                    parts.setdefault((half, layer, part), []).append(z.mean(0))

    result = np.full((len(examples), len(projections), gpt2.config.n_head), np.nan)
    for index, (example, half) in enumerate(zip(examples, halves, strict=True)):
        needed = ["target"] + ["source"] * bool(example.prompt_ids)
        for layer in range(len(projections)):
            if any((1 - half, layer, part) not in parts for part in needed):
                continue
            for head in range(gpt2.config.n_head):

                def change(module, args, layer=layer, head=head, half=half, example=example):
                    z = args[0].clone()
                    columns = slice(head * d_head, (head + 1) * d_head)
                    for t in range(z.shape[1]):
                        means = parts[1 - half, layer, "source" if t < len(example.prompt_ids) else "target"]
                        new = sum(means[1:], means[0]) / len(means)
                        z[0, t, columns] += share * (new - z[0, t])[columns]
                    return (z,)

                result[index, layer, head] = loss(example, layer, change) - loss(example)
    return result


def costs(gpt2, examples, halves, max_batch_tokens=2048) -> np.ndarray:
    """ablation_exact, [example, layer, head]."""
    return ablation_exact(gpt2, examples, halves, make_kinds(examples), max_batch_tokens)["ablation_exact"]


@pytest.fixture(scope="module")
def slow():
    return slow_ablation(tiny().double(), EXAMPLES, HALVES)


@pytest.mark.parametrize("max_batch_tokens", [1, 160, 1000])
def test_equals_one_head_at_a_time(slow, max_batch_tokens):
    fast = costs(tiny().eval(), EXAMPLES, HALVES, max_batch_tokens)
    assert fast.shape == (len(EXAMPLES), N_LAYER, N_HEAD) and fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert np.abs(slow).max() > 0.3  # there is something to see


@pytest.mark.parametrize("max_batch_tokens", [1, 1000])
def test_kinds_of_token_equal_one_head_at_a_time(slow, max_batch_tokens):
    found = ablation_exact(tiny().eval(), EXAMPLES, HALVES, make_kinds(EXAMPLES), max_batch_tokens)
    by_kind = found["ablation_exact_by_kind"]
    np.testing.assert_allclose(by_kind[..., 0], found["ablation_exact"], atol=1e-6)
    thirds = slow_ablation(tiny().double(), EXAMPLES, HALVES, only=lambda t: t % 3 == 0)
    np.testing.assert_allclose(by_kind[..., 1], thirds, atol=1e-5)
    assert np.isnan(by_kind[..., 2]).all() and np.abs(thirds - slow).max() > 0.1


def test_attention_implementations_agree(slow):
    model = tiny().eval()
    with measuring(model):
        np.testing.assert_allclose(costs(model, EXAMPLES, HALVES), slow, atol=1e-5)
    model.set_attn_implementation("eager")
    np.testing.assert_allclose(costs(model, EXAMPLES, HALVES), slow, atol=1e-5)


def test_lora():
    fast = costs(find_gpt2(tiny_lora()), EXAMPLES, HALVES, 300)
    np.testing.assert_allclose(fast, slow_ablation(tiny_lora().double(), EXAMPLES, HALVES), atol=1e-5)


def test_undefined_is_nan_and_stays_where_it_is():
    gpt2 = tiny().eval()
    assert np.isnan(costs(gpt2, EXAMPLES, [0] * len(EXAMPLES))).all()
    assert costs(gpt2, [], []).shape == (0, N_LAYER, N_HEAD)
    # The texts have no source, so the other half has no mean for one; a shorter text is padded beside a longer one.
    text = Example("", "", (), (), tuple(range(1, 30)))
    examples = [EXAMPLES[0], text, EXAMPLES[3], EXAMPLES[1]]
    fast = costs(gpt2, examples, [0, 1, 1, 0])
    np.testing.assert_allclose(fast, slow_ablation(tiny().double(), examples, [0, 1, 1, 0]), atol=1e-5)
    assert np.isnan(fast[[0, 3]]).all() and np.isfinite(fast[[1, 2]]).all()
    # An example without a loss is undefined, and no part of the means.
    empty = Example("", "", (1, 2, 3), (), ())
    more = costs(gpt2, [*EXAMPLES, empty], [*HALVES, 0])
    assert np.isnan(more[-1]).all()
    np.testing.assert_allclose(more[:-1], costs(gpt2, EXAMPLES, HALVES), atol=1e-6)


def test_a_head_that_writes_nothing_costs_nothing():
    model = tiny().eval()
    with torch.no_grad():
        model.transformer.h[1].attn.c_proj.weight[: model.config.n_embd // N_HEAD] = 0  # rows of head 0
    fast = costs(model, EXAMPLES, HALVES)
    np.testing.assert_allclose(fast[:, 1, 0], 0, atol=1e-5)
    assert np.abs(np.delete(fast.reshape(len(EXAMPLES), -1), N_HEAD, axis=1)).min(axis=1).max() > 1e-3


def test_heads_of_a_trained_model_are_needed(real_data):
    """sorting_gpt sorts six digits; which there are it must fetch, and its first layer does."""
    gpt2 = GPT2LMHeadModel.from_pretrained(real_data / "sorting_gpt").eval()
    rows = np.random.default_rng(0).integers(0, 3, size=(60, 6))
    examples = [Example("", "", tuple(row), (), tuple(sorted(row)[:5])) for row in rows.tolist()]
    cost = costs(gpt2, examples, [i % 2 for i in range(60)]).mean(axis=0)  # [layer, head]
    assert (cost > 0).all()
    assert cost[0].max() > 50 * mean_nll(gpt2, examples).mean()  # which makes nearly no mistake when whole
    assert cost[0].min() > cost[1:].max()
