import copy
import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate
from gpt2_interp.inside.ablation import ablation_exact, ablation_tokens
from gpt2_interp.inside.gradients import gradient_pass
from gpt2_interp.inside.grafts import block_names, block_of, graft, graft_tokens
from gpt2_interp.inside.losses import (
    kind_means,
    mean_nll,
    queries,
    query_members,
    target_nll,
    token_forwards,
    token_means,
    twin_log_odds,
)
from gpt2_interp.inside.observation import measuring
from gpt2_interp.inside.restoration import restorations, second_readings
from gpt2_interp.inside.restoration_batches import Texts
from gpt2_interp.inside.restoration_under_noise import restorations_under_noise
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import TwinPair
from gpt2_interp.snapshots.table import RESTORED
from tests.measures.test_weights import disturb

N_LAYER, N_HEAD, VOCAB = 3, 2, 50


def make_examples() -> list[Example]:
    """Of 6 lengths, one without a source."""
    rng = random.Random(0)
    sizes = [(20, 2, 5), (70, 2, 9), (3, 2, 2), (0, 0, 12), (1, 2, 4), (64, 3, 3)]
    return [Example("", "", *(tuple(rng.randrange(VOCAB) for _ in range(n)) for n in size)) for size in sizes]


EXAMPLES = make_examples()
HALVES = [0, 1, 0, 1, 1, 0]


def tiny(**overrides) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_layer": N_LAYER, "n_head": N_HEAD, "n_embd": 8, "vocab_size": VOCAB, "n_positions": 100}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, initializer_range=0.5, **overrides)
    return GPT2LMHeadModel(config)


def tiny_lora(**settings):
    settings = {"target_modules": ["c_attn", "c_proj", "c_fc"], "init_lora_weights": False, **settings}
    torch.manual_seed(1)
    return get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True, **settings)).eval()


@torch.no_grad()
def log_probabilities(model, ids) -> torch.Tensor:
    """[seq, vocab] of one sequence, as Hugging Face computes it."""
    return find_gpt2(model).eval()(torch.tensor([ids])).logits[0].log_softmax(-1)


def slow_nll(model, example: Example) -> list[float]:
    ids, n_prompt = example.input_ids, len(example.prompt_ids)
    log_p = log_probabilities(model, ids)
    return [-log_p[t - 1, ids[t]].item() if t else np.nan for t in range(n_prompt, len(ids))]


def make_twins() -> list[TwinPair]:
    rng = random.Random(3)
    twins = []
    for index, n in enumerate((9, 30, 4)):
        first, second = (tuple(rng.randrange(VOCAB) for _ in range(n + extra)) for extra in (0, index))
        twins.append(TwinPair(str(index), str(index), "who", (first, second), (rng.randrange(25), 25 + index)))
    return twins


# --- losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny, tiny_lora])
@pytest.mark.parametrize("max_batch_tokens", [1, 200])
def test_target_nll_equals_hugging_face_one_example_at_a_time(make, max_batch_tokens):
    model = make()
    fast = target_nll(find_gpt2(model).eval(), EXAMPLES, max_batch_tokens)
    means = mean_nll(find_gpt2(model), EXAMPLES, max_batch_tokens)
    for example, nll, mean in zip(EXAMPLES, fast, means, strict=True):
        assert nll.shape == (len(example.target_ids),) and nll.dtype == np.float32
        np.testing.assert_allclose(nll, slow_nll(model, example), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(mean, np.nanmean(slow_nll(model, example)), rtol=1e-5)
    assert [np.isnan(nll).sum() for nll in fast] == [int(not e.prompt_ids) for e in EXAMPLES]


def test_what_cannot_be_predicted_is_undefined():
    nothing = [Example("", "", (1, 2), (), ()), Example("", "", (), (), (4,))]
    gpt2 = tiny().eval()
    assert [nll.tolist() for nll in target_nll(gpt2, nothing)][0] == []
    assert np.isnan(mean_nll(gpt2, nothing)).all()
    assert target_nll(gpt2, []) == [] and mean_nll(gpt2, []).shape == (0,)


def make_kinds(examples) -> list[np.ndarray]:
    """All tokens, every third one of the text, and none at all."""
    return [np.array([[True, len(e.prompt_ids) + t in range(0, 99, 3), False] for t in range(len(e.target_ids))])
            for e in examples]  # fmt: skip


def test_means_by_kind_equal_a_loop_over_tokens():
    kinds, gpt2 = make_kinds(EXAMPLES), tiny().eval()
    nll = target_nll(gpt2, EXAMPLES)
    means = token_means(EXAMPLES, nll, kinds)
    assert means.shape == (len(EXAMPLES), 3) and means.dtype == np.float32 and np.isnan(means[:, 2]).all()
    np.testing.assert_allclose(means[:, 0], mean_nll(gpt2, EXAMPLES), rtol=1e-6)
    for example, of_example, losses in zip(EXAMPLES, means, nll, strict=True):
        n_prompt = len(example.prompt_ids)
        third = [loss for t, loss in enumerate(losses) if (n_prompt + t) % 3 == 0 and n_prompt + t > 0]
        np.testing.assert_allclose(of_example[1], np.mean(third) if third else np.nan, rtol=1e-6)
    without_first = [one[int(not e.prompt_ids) :] for e, one in zip(EXAMPLES, nll, strict=True)]
    np.testing.assert_array_equal(means, token_means(EXAMPLES, without_first, kinds))

    row, _, wanted = queries(collate(EXAMPLES, 0)["labels"])
    values, members = torch.from_numpy(np.concatenate(without_first)), query_members(EXAMPLES, kinds)
    assert members.shape == (len(wanted), 3)
    np.testing.assert_allclose(kind_means(values, row, len(EXAMPLES), members), means, rtol=1e-5)


def test_a_loss_without_a_number_stays_in_its_kinds():
    row, members = torch.tensor([0, 0, 1]), torch.tensor([[True, False], [True, True], [True, False]])
    means = kind_means(torch.tensor([np.nan, 2.0, 3.0]), row, 2, members)
    np.testing.assert_array_equal(means, [[np.nan, 2], [3, np.nan]])


def test_twin_log_odds_equal_differences_of_log_probabilities():
    gpt2, twins = tiny().eval(), make_twins()
    odds = twin_log_odds(gpt2, twins, max_batch_tokens=40)
    assert odds.shape == (3, 2) and odds.dtype == np.float32
    for pair, values in zip(twins, odds, strict=True):
        for prefix, value in zip(pair.prefixes, values, strict=True):
            log_p = log_probabilities(gpt2, prefix)[-1]
            np.testing.assert_allclose(value, log_p[pair.tokens[0]] - log_p[pair.tokens[1]], atol=1e-5)
    assert twin_log_odds(gpt2, []).shape == (0, 2)


# --- grafting ----------------------------------------------------------------------------------------------------


def belongs(name: str, block: str) -> bool:
    """Spelled out by hand, for names as in a state_dict."""
    if block == "embeddings":
        return "wte" in name or "wpe" in name
    if block == "ln_f":
        return "ln_f" in name or name.startswith("lm_head.")
    _, layer, kind = block.split()
    modules = ("ln_1", "attn") if kind == "attn" else ("ln_2", "mlp")
    return any(f"h.{layer}.{module}." in name for module in modules)


@pytest.mark.parametrize("make", [tiny, lambda: tiny(tie_word_embeddings=False), tiny_lora])
def test_graft_equals_state_dicts_swapped_by_hand(make):
    model = make().eval()
    base, start = BaseWeights(model), copy.deepcopy(find_gpt2(model).state_dict())
    tuned = copy.deepcopy(find_gpt2(disturb(model)).state_dict())
    by_hand = find_gpt2(copy.deepcopy(model))

    def loss(weights) -> np.ndarray:
        """[example, all tokens and every third one of the text]"""
        by_hand.load_state_dict(weights)
        nll = [slow_nll(by_hand, e) for e in EXAMPLES]
        return np.array([[np.nanmean(one), np.nanmean(one[-len(e.prompt_ids) % 3 :: 3])]
                         for e, one in zip(EXAMPLES, nll, strict=True)])  # fmt: skip

    result = graft(model, base, EXAMPLES, make_kinds(EXAMPLES), max_batch_tokens=200)
    tied = find_gpt2(model).lm_head.weight is find_gpt2(model).transformer.wte.weight
    names = block_names(find_gpt2(model))
    assert names == ["embeddings", *(f"layer {i} {kind}" for i in range(N_LAYER) for kind in ("attn", "mlp")), "ln_f"]
    for index, block in enumerate(names):
        back, alone = dict(tuned), dict(start)
        for name in tuned:
            # A tied output matrix has a name of its own in a state_dict.
            owner = "transformer.wte.weight" if tied and name == "lm_head.weight" else name
            if belongs(owner, block):
                back[name], alone[name] = start[name], tuned[name]
        for key, expected in (
            ("graft_necessity", loss(back) - loss(tuned)),
            ("graft_sufficiency", loss(start) - loss(alone)),
        ):
            assert result[key].shape == (len(EXAMPLES), len(names)) and result[key].dtype == np.float32
            np.testing.assert_allclose(result[key][:, index], expected[:, 0], atol=2e-5, err_msg=f"{key} {block}")
            by_kind = result[f"{key}_by_kind"][:, index]
            np.testing.assert_allclose(by_kind[:, :2], expected, atol=2e-5, err_msg=f"{key} {block}")
            assert np.isnan(by_kind[:, 2]).all()
    assert (result["graft_necessity"][:, 1:-1] != 0).any(axis=0).all()


def test_blocks_that_nothing_was_trained_of_change_nothing():
    model = tiny_lora(target_modules=["c_attn"])
    base = BaseWeights(model)
    result = graft(disturb(model), base, EXAMPLES[:2], make_kinds(EXAMPLES[:2]))
    attention = [name.endswith("attn") for name in block_names(find_gpt2(model))]
    for name in ("graft_necessity", "graft_sufficiency"):
        assert ((result[name] != 0).all(axis=0) == attention).all()
        by_kind = result[f"{name}_by_kind"]
        assert ((by_kind[..., 0] != 0).all(axis=0) == attention).all() and np.isnan(by_kind[..., 2]).all()
    nothing = [Example("", "", (1, 2), (), ())]
    undefined = graft(model, base, nothing, [np.zeros((0, 2), dtype=bool)])
    assert np.isnan(undefined["graft_necessity"]).all() and np.isnan(undefined["graft_sufficiency"]).all()


def test_every_parameter_belongs_to_one_block():
    with pytest.warns(UserWarning):  # PEFT finds an adapter on a tied matrix odd
        adapted = tiny_lora(target_modules=["wte", "c_attn", "lm_head"])
    for model in (tiny(), tiny(tie_word_embeddings=False), adapted):
        gpt2 = find_gpt2(model)
        for name, _ in gpt2.named_parameters():
            assert [block for block in block_names(gpt2) if belongs(name.removeprefix("transformer."), block)] == [
                block_of(name)
            ]


def test_what_it_costs():
    """Counted by a hook: tokens that pass the MLPs are what a whole forward pass is n_layer times of."""
    gpt2, examples = tiny().eval(), [EXAMPLES[0]] * 4
    tokens = 4 * len(EXAMPLES[0].input_ids)
    assert token_forwards(examples) == tokens
    passed = []
    for block in gpt2.transformer.h:
        block.mlp.register_forward_pre_hook(lambda module, args: passed.append(args[0].shape[:-1].numel()))
    target_nll(gpt2, examples)
    assert sum(passed) == tokens * N_LAYER
    passed.clear()
    graft(gpt2, BaseWeights(gpt2), examples, make_kinds(examples))
    assert sum(passed) == graft_tokens(examples, N_LAYER) * N_LAYER
    passed.clear()
    ablation_exact(gpt2, examples, [0, 1, 0, 1], make_kinds(examples))
    saved = 4 * N_LAYER * N_HEAD * (len(EXAMPLES[0].input_ids) - len(EXAMPLES[0].target_ids))  # in the last MLP
    assert sum(passed) + saved == ablation_tokens(examples, N_LAYER, N_HEAD) * N_LAYER


# --- the model, as it was ----------------------------------------------------------------------------------------


def state_of(model) -> dict:
    """Everything that an intervention could leave changed."""
    parameters = {name: p for name, p in model.named_parameters()}
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": {n: (id(p), p.data_ptr(), p.detach().numpy().tobytes()) for n, p in parameters.items()},
        "gradients": {n: None if p.grad is None else (id(p.grad), p.grad.tolist()) for n, p in parameters.items()},
        "requires_grad": {n: p.requires_grad for n, p in parameters.items()},
        "tensor hooks": {n: len(p._backward_hooks or ()) for n, p in parameters.items()},
        "training": [m.training for m in model.modules()],
        "hooks": [[len(getattr(m, table)) for table in tables] for m in model.modules()],
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
    }


WHOLE = Texts(EXAMPLES, [np.ones((len(e.target_ids), 1), bool) for e in EXAMPLES], ())
HEADS = np.ones((N_LAYER, N_HEAD), bool)
UNITS = np.array([name in ("attn_sink", "head_write") for name in RESTORED])[:, None, None] & HEADS
INTERVENTIONS = {
    "target_nll": lambda model, base: target_nll(find_gpt2(model), EXAMPLES),
    "twin_log_odds": lambda model, base: twin_log_odds(find_gpt2(model), make_twins()),
    "ablation_exact": lambda model, base: ablation_exact(find_gpt2(model), EXAMPLES, HALVES, make_kinds(EXAMPLES)),
    "gradient_pass": lambda model, base: gradient_pass(find_gpt2(model), EXAMPLES, HALVES),
    "graft": lambda model, base: graft(model, base, EXAMPLES, make_kinds(EXAMPLES)),
    "restorations": lambda model, base: restorations(find_gpt2(model), base, WHOLE, HEADS, UNITS),
    "restorations_under_noise": lambda model, base: restorations_under_noise(
        find_gpt2(model), base, WHOLE, HEADS, UNITS, 0, 1
    ),
    "second_readings": lambda model, base: second_readings(find_gpt2(model), base, [(0, 1, 2, 3, 1, 2, 3)] * 2, HEADS),
}


@pytest.mark.parametrize("make", [lambda: tiny(resid_pdrop=0.5), lambda: tiny_lora(lora_dropout=0.5)])
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_the_model_is_left_as_it_was(name, make):
    model = make().train()
    ids = torch.tensor([EXAMPLES[0].input_ids])
    model(input_ids=ids, labels=ids).loss.backward()
    find_gpt2(model).transformer.wpe.requires_grad_(False)
    base = BaseWeights(model)
    disturb(model)
    before = state_of(model)
    with measuring(find_gpt2(model)):
        inside = state_of(model)
        INTERVENTIONS[name](model, base)
        assert state_of(model) == inside
        assert torch.is_grad_enabled()
        # And when it fails half way.
        calls = []

        def fail(module, args):
            calls.append(module)
            if len(calls) == 2:
                raise RuntimeError("planned")

        handle = find_gpt2(model).transformer.h[1].register_forward_pre_hook(fail)
        find_gpt2(model).transformer.h[1].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="planned"):
            INTERVENTIONS[name](model, base)
        handle.remove()
        find_gpt2(model).transformer.h[1]._forward_pre_hooks.clear()
        assert state_of(model) == inside
    assert state_of(model) == before


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_the_callers_autocast_and_grad_mode_make_no_difference(name):
    model = tiny().eval()
    base = BaseWeights(model)
    disturb(model)
    plain = INTERVENTIONS[name](model, base)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = INTERVENTIONS[name](model, base)
    if isinstance(plain, dict):
        plain, again = list(plain.values()), list(again.values())
    for a, b in zip(plain, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_training_mode_is_refused(name):
    model = tiny().train()
    with pytest.raises(AssertionError, match="dropout"):
        INTERVENTIONS[name](model, BaseWeights(model))
