import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate
from gpt2_interp.inside.gradients import gradient_pass
from gpt2_interp.inside.observation import measuring
from gpt2_interp.model.anatomy import find_gpt2, matrix_names, measured_modules
from tests.inside.test_ablation import slow_ablation
from tests.inside.test_losses import EXAMPLES, HALVES, N_HEAD, N_LAYER, tiny, tiny_lora

FEW = [
    Example("", "", (1, 2, 3), (4,), (5, 6, 1)),
    Example("", "", (3,), (4,), (2, 2)),
    Example("", "", (), (), (6, 5, 4, 3, 2)),
    Example("", "", (5, 1, 5, 1), (4,), (1, 5, 0)),
    Example("", "", (2, 0), (4,), (0,)),
]
FEW_HALVES = [0, 1, 1, 0, 1]


def smallest(**overrides) -> GPT2LMHeadModel:
    """Few enough weights to move each of them."""
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 4, "n_inner": 6, "vocab_size": 7, "n_positions": 9}
    config = GPT2Config(**{**sizes, **overrides}, initializer_range=0.5, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


def smallest_lora(**settings):
    settings = {"target_modules": ["c_attn", "c_proj", "c_fc"], **settings}
    config = LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True, init_lora_weights=False, **settings)
    return get_peft_model(smallest(), config).eval()


@torch.no_grad()
def losses(gpt2, batch) -> np.ndarray:
    """[example] in double precision."""
    logits = gpt2(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.mT, batch["labels"][:, 1:], reduction="none", ignore_index=-100)
    return (nll.sum(1) / (batch["labels"][:, 1:] != -100).sum(1)).numpy()


@torch.no_grad()
def differences(weight: torch.Tensor, gpt2, batch) -> np.ndarray:
    """[example, *weight.shape]: each loss's derivative by each weight, from moving it a little either way."""
    result = np.empty((len(batch["labels"]), *weight.shape))
    for index in np.ndindex(*weight.shape):
        value = weight[index].item()
        ends = []
        for step in (1e-4, -1e-4):
            weight[index] = value + step
            ends.append(losses(gpt2, batch))
        weight[index] = value
        result[:, *index] = (ends[0] - ends[1]) / 2e-4
    return result


@pytest.mark.parametrize(
    "make",
    [
        lambda: smallest(n_layer=2),
        lambda: smallest(tie_word_embeddings=False),
        smallest_lora,
        lambda: smallest_lora(target_modules=["wte", "c_attn"], modules_to_save=["wpe"], bias="all"),
    ],
)
def test_equals_finite_differences(make):
    model = make().requires_grad_(False)
    fast = gradient_pass(find_gpt2(model), FEW, FEW_HALVES, max_batch_tokens=14)
    gpt2, batch = find_gpt2(make().double()), collate(FEW, 0)
    slow = {}
    for name, module in measured_modules(gpt2).items():
        if hasattr(module, "modules_to_save"):
            weight = module.modules_to_save["default"].weight
        else:
            weight = module.base_layer.weight if hasattr(module, "base_layer") else module.weight
        each = differences(weight, gpt2, batch)
        if name.endswith("c_attn"):
            n = gpt2.config.n_embd
            slow |= {f"{name}.{part}": each[:, :, k * n : (k + 1) * n] for k, part in enumerate("qkv")}
        else:
            slow[name] = each
    assert list(slow) == matrix_names(gpt2)
    half = np.array(FEW_HALVES)
    for index, (name, each) in enumerate(slow.items()):
        first, second = (each[half == k].mean(axis=0).ravel() for k in (0, 1))
        cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
        np.testing.assert_allclose(
            fast["probe_grad"][index], np.linalg.norm(each.mean(axis=0)), rtol=2e-4, err_msg=name
        )
        np.testing.assert_allclose(fast["probe_grad_cosine"][index], cosine, atol=5e-4, err_msg=name)
    assert fast["probe_grad"].dtype == fast["probe_grad_cosine"].dtype == np.float32


@pytest.mark.parametrize("make", [tiny, tiny_lora])
def test_the_straight_line_touches_the_exact_curve(make):
    """ablation_approx is the slope of the loss as z sets out for its replacement."""
    step = 1e-4
    ahead, back = (slow_ablation(make().double(), EXAMPLES, HALVES, share) for share in (step, -step))
    fast = gradient_pass(find_gpt2(make()).eval(), EXAMPLES, HALVES, max_batch_tokens=150)["ablation_approx"]
    assert fast.shape == (len(EXAMPLES), N_LAYER, N_HEAD) and fast.dtype == np.float32
    np.testing.assert_allclose(fast, (ahead - back) / (2 * step), atol=2e-5, rtol=1e-4)


def test_batches_padding_and_attention_make_no_difference():
    gpt2 = tiny().eval()
    alone = gradient_pass(gpt2, EXAMPLES, HALVES, max_batch_tokens=1)
    with measuring(gpt2):
        observed = gradient_pass(gpt2, EXAMPLES, HALVES)
    for other in (gradient_pass(gpt2, EXAMPLES, HALVES, max_batch_tokens=200), observed):
        for name, values in alone.items():
            np.testing.assert_allclose(other[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_undefined_is_nan():
    gpt2 = tiny().eval()
    whole = gradient_pass(gpt2, EXAMPLES, HALVES)
    one_half = gradient_pass(gpt2, EXAMPLES, [1] * len(EXAMPLES))
    assert np.isnan(one_half["ablation_approx"]).all() and np.isnan(one_half["probe_grad_cosine"]).all()
    np.testing.assert_allclose(one_half["probe_grad"], whole["probe_grad"], rtol=1e-4)
    nothing = Example("", "", (1, 2, 3), (), ())
    assert all(np.isnan(values).all() for values in gradient_pass(gpt2, [nothing], [0]).values())
    more = gradient_pass(gpt2, [*EXAMPLES, nothing], [*HALVES, 0])
    assert np.isnan(more["ablation_approx"][-1]).all()
    np.testing.assert_allclose(more["ablation_approx"][:-1], whole["ablation_approx"], atol=1e-6)
    np.testing.assert_allclose(more["probe_grad"], whole["probe_grad"], rtol=1e-5)
    # A source that the other half has none of.
    halves = [0, 1, 1, 1, 1, 1]
    text = EXAMPLES[3]
    approx = gradient_pass(gpt2, [text, *EXAMPLES[:3], EXAMPLES[4], EXAMPLES[5]], halves)["ablation_approx"]
    assert np.isfinite(approx[0]).all() and np.isnan(approx[1:3]).all()


def test_two_halves_alike_ask_for_the_same():
    result = gradient_pass(tiny().eval(), [EXAMPLES[0], EXAMPLES[1]] * 2, [0, 0, 1, 1])
    np.testing.assert_allclose(result["probe_grad_cosine"], 1, atol=1e-6)


def test_gradients_never_fill_more_than_two_copies():
    """Of what autograd returns for the matrices nothing is kept: the sums are made as it goes."""
    gpt2, sizes = tiny().eval(), []
    real = torch.autograd.grad

    def spy(*args, **kwargs):
        grads = real(*args, **kwargs)
        sizes.extend(g.untyped_storage().nbytes() for g in grads[N_LAYER:])
        return grads

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", spy)
        gradient_pass(gpt2, EXAMPLES, HALVES)
    assert sizes and max(sizes) <= 8
