import math

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.measures.weights import weight_measures
from gpt2_interp.model.anatomy import find_gpt2, matrix_names
from gpt2_interp.model.base_weights import BaseWeights, weight_deltas

ALL_MATRICES = ["c_attn", "c_proj", "c_fc"]


def tiny(**overrides) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 12, "n_head": 3, "vocab_size": 20, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **overrides}))


def tiny_lora(**settings):
    settings = {"r": 3, "lora_alpha": 7, "target_modules": ALL_MATRICES, "fan_in_fan_out": True, **settings}
    return get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", **settings))


@torch.no_grad()
def disturb(model, size: float = 0.1):
    """Move every trainable weight a little, as training would."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def deltas(model, base) -> dict[str, torch.Tensor]:
    return {name: delta for name, delta, _ in weight_deltas(model, base)}


def test_names_split_c_attn():
    names = matrix_names(tiny())
    assert names[:7] == [
        "wte",
        "wpe",
        "h.0.attn.c_attn.q",
        "h.0.attn.c_attn.k",
        "h.0.attn.c_attn.v",
        "h.0.attn.c_proj",
        "h.0.mlp.c_fc",
    ]
    assert len(names) == 2 + 2 * 6
    assert matrix_names(tiny(tie_word_embeddings=False))[-1] == "lm_head"
    assert matrix_names(tiny_lora()) == names


def test_full_fine_tuning():
    model = tiny()
    base = BaseWeights(model)
    w_0 = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert all(change == 0 for change in weight_measures(model, base)["weight_change"])
    disturb(model)
    change = weight_measures(model, base)
    names = matrix_names(model)
    c_attn = "transformer.h.1.attn.c_attn.weight"
    moved = model.state_dict()[c_attn][:, 12:24] - w_0[c_attn][:, 12:24]  # Conv1D [in, out]: keys are the second third
    size = math.sqrt((moved.double() ** 2).sum())
    k = names.index("h.1.attn.c_attn.k")
    assert change["weight_change"][k] == pytest.approx(size)
    assert change["weight_change_relative"][k] == pytest.approx(size / w_0[c_attn][:, 12:24].norm().item())
    assert change["weight_change_rms"][k] == pytest.approx(size / math.sqrt(12 * 12))


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}])
def test_lora_is_scaling_times_b_a_transposed(settings):
    model = tiny_lora(**settings)
    base = BaseWeights(model)
    assert (weight_measures(model, base)["weight_change"] == 0).all()  # B begins at 0
    disturb(model)
    layer = find_gpt2(model).transformer.h[1].attn.c_attn
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # [r, in], [out, r]
    scaling = 7 / math.sqrt(3) if settings else 7 / 3
    expected = (scaling * b @ a).T  # [in, out]
    measured = deltas(model, base)
    torch.testing.assert_close(measured["h.1.attn.c_attn.q"], expected[:, :12])
    torch.testing.assert_close(measured["h.1.attn.c_attn.v"], expected[:, 24:])
    assert torch.linalg.matrix_rank(measured["h.0.mlp.c_fc"]) == 3
    assert measured["wte"].norm() == 0


@torch.no_grad()
def test_lora_delta_is_what_merging_adds():
    """Independent of the formula: PEFT's own merge into plain weights, several adapters, before and after."""
    model = tiny_lora()
    plain_base = BaseWeights(tiny())
    model.add_adapter("second", LoraConfig(r=2, lora_alpha=2, target_modules=ALL_MATRICES, fan_in_fan_out=True))
    model.base_model.set_adapter(["default", "second"])
    base = BaseWeights(model)
    disturb(model)
    before = deltas(model, base)
    model.merge_adapter()
    merged = deltas(model, base)
    model.unmerge_adapter()
    plain = deltas(model.merge_and_unload(), plain_base)
    for name in before:
        torch.testing.assert_close(before[name], merged[name])
        torch.testing.assert_close(before[name], plain[name], atol=1e-6, rtol=1e-4)
    assert all(before[name].norm() > 0 for name in before if name.startswith("h."))


def test_a_base_of_another_model_is_refused():
    plain = tiny()
    base = BaseWeights(plain)
    with pytest.raises(ValueError, match="BaseWeights of this model"):
        deltas(get_peft_model(plain, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)), base)


def test_an_adapter_trained_on_counts_only_its_further_change():
    model = disturb(tiny_lora())
    base = BaseWeights(model)
    assert (weight_measures(model, base)["weight_change"] == 0).all()
    before = model.get_submodule("base_model.model.transformer.h.0.mlp.c_fc").get_delta_weight("default").clone()
    disturb(model)
    after = model.get_submodule("base_model.model.transformer.h.0.mlp.c_fc").get_delta_weight("default")
    torch.testing.assert_close(deltas(model, base)["h.0.mlp.c_fc"], after - before, atol=1e-6, rtol=1e-4)


def test_modules_to_save_and_a_trained_output_matrix():
    model = tiny_lora(modules_to_save=["wpe", "lm_head"])
    base = BaseWeights(model)
    assert "lm_head" in matrix_names(model)
    disturb(model)
    measured = deltas(model, base)
    assert measured["wpe"].norm() > 0 and measured["lm_head"].norm() > 0 and measured["wte"].norm() == 0


def test_merged_adapters_have_the_same_base():
    model = disturb(tiny_lora())  # adapters that don't begin at 0
    base = BaseWeights(model)
    before = {name: w_0 for name, _, w_0 in weight_deltas(disturb(model), base)}
    model.merge_adapter()
    for name, _, w_0 in weight_deltas(model, base):
        torch.testing.assert_close(w_0, before[name], atol=1e-6, rtol=1e-4)


def test_embeddings_and_an_untied_output_matrix_under_lora():
    """PEFT lays these adapters down the other way round; its own merge says what they add."""
    plain = tiny(tie_word_embeddings=False)
    w_0 = {name: p.detach().clone() for name, p in plain.named_parameters()}
    model = get_peft_model(plain, LoraConfig(r=3, target_modules=["wpe", "wte", "lm_head"]))
    base = BaseWeights(model)
    measured = deltas(disturb(model), base)
    merged = dict(model.merge_and_unload().named_parameters())
    for name, parameter in (("wte", "transformer.wte"), ("wpe", "transformer.wpe"), ("lm_head", "lm_head")):
        moved = merged[f"{parameter}.weight"] - w_0[f"{parameter}.weight"]
        assert moved.norm() > 0.1
        torch.testing.assert_close(measured[name], moved, atol=1e-6, rtol=1e-4)


def test_what_cannot_be_measured_is_refused():
    for model in (tiny_lora(use_dora=True), get_peft_model(tiny(), IA3Config(task_type="CAUSAL_LM"))):
        with pytest.raises(ValueError, match="LoRA"):
            weight_measures(model, BaseWeights(model))
    quantised = tiny()
    c_fc = quantised.transformer.h[0].mlp.c_fc
    c_fc.weight = torch.nn.Parameter(torch.ones(12, 48, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="int8"):
        weight_measures(quantised, BaseWeights(quantised))
    with pytest.raises(ValueError, match="GPT2LMHeadModel"):
        matrix_names(torch.nn.Linear(2, 2))


def test_a_small_lora_change_does_not_drown_in_rounding():
    model = tiny_lora()
    base = BaseWeights(model)
    b = {name: p for name, p in model.named_parameters() if "lora_B" in name}
    with torch.no_grad():
        for i, parameter in enumerate(b.values()):
            parameter.copy_(1e-5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    layer = find_gpt2(model).transformer.h[0].attn.c_proj
    exact = 7 / 3 * (layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()).T
    torch.testing.assert_close(deltas(model, base)["h.0.attn.c_proj"].double(), exact, rtol=1e-5, atol=1e-12)
    assert np.isfinite(weight_measures(model, base)["weight_change_relative"]).all()


def test_a_small_further_change_of_an_adapter_does_not_drown_in_what_it_began_with():
    model = disturb(tiny_lora(), size=1.0)
    layer = find_gpt2(model).transformer.h[0].attn.c_proj

    def product():
        return 7 / 3 * (layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()).T.detach()

    base, before = BaseWeights(model), product()
    disturb(model, size=1e-4)
    torch.testing.assert_close(
        deltas(model, base)["h.0.attn.c_proj"].double(), product() - before, rtol=1e-4, atol=1e-8
    )


# ---- what a head moves and where it looks ----


def matrices_of(model) -> dict[str, np.ndarray]:
    """float64 copies of a plain model's attention matrices, or of a LoRA model's after PEFT's own merge."""
    if hasattr(model, "merge_adapter"):
        model.merge_adapter()
    named = {n.replace("base_layer.", ""): p for n, p in find_gpt2(model).named_parameters()}
    copied = {n: p.detach().numpy().astype(np.float64) for n, p in named.items() if "attn.c_" in n}
    if hasattr(model, "merge_adapter"):
        model.unmerge_adapter()
    return copied


def circuits(matrices, layer: int, head: int, n_embd: int = 12, d_head: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(W_V W_O, W_Q W_K') of one head, written out."""
    c_attn = matrices[f"transformer.h.{layer}.attn.c_attn.weight"]
    c_proj = matrices[f"transformer.h.{layer}.attn.c_proj.weight"]
    q, k, v = (c_attn[:, n_embd * i + d_head * head : n_embd * i + d_head * (head + 1)] for i in range(3))
    return v @ c_proj[d_head * head : d_head * (head + 1)], q @ k.T


@pytest.mark.parametrize("make", [tiny, tiny_lora, lambda: disturb(tiny_lora())])
@pytest.mark.parametrize("size, tolerance", [(0.1, 1e-5), (1e-5, 1e-2)])  # the second: float32 weights are rounded
def test_circuits_against_products_written_out(make, size, tolerance):
    model = make()
    base, before = BaseWeights(model), matrices_of(model)
    disturb(model, size)
    after = matrices_of(model)
    measured = weight_measures(model, base)
    for layer in range(2):
        for head in range(3):
            products = zip(circuits(before, layer, head), circuits(after, layer, head), strict=True)
            for name, (old, new) in zip(("ov_change", "qk_change"), products, strict=True):
                expected = np.linalg.norm(new - old) / np.linalg.norm(old)
                assert measured[name][layer, head] == pytest.approx(expected, rel=tolerance), (name, layer, head)
    assert measured["ov_change"].shape == measured["qk_change"].shape == (2, 3)


@torch.no_grad()
def test_known_changes_of_circuits():
    model = tiny()
    base = BaseWeights(model)
    measured = weight_measures(model, base)
    assert (measured["ov_change"] == 0).all() and (measured["qk_change"] == 0).all()
    attn = model.transformer.h[1].attn
    attn.c_attn.weight[:, 24 + 4 : 24 + 8] *= 1.5  # values of head 1
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    attn.c_attn.weight[:, 8:12] @= turn  # queries and keys of head 2 turn together: no change of where it looks
    attn.c_attn.weight[:, 20:24] @= turn
    attn.c_attn.weight[:, 0:4] *= -1  # queries of head 0
    measured = weight_measures(model, base)
    np.testing.assert_allclose(measured["ov_change"], [[0, 0, 0], [0, 0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(measured["qk_change"], [[0, 0, 0], [2, 0, 0]], atol=1e-6)


@torch.no_grad()
def test_a_circuit_that_was_zero_has_no_relative_change():
    model = tiny()
    model.transformer.h[0].attn.c_proj.weight[4:8] = 0
    base = BaseWeights(model)
    measured = weight_measures(disturb(model), base)
    assert np.isnan(measured["ov_change"]).tolist() == [[False, True, False], [False] * 3]
    assert np.isfinite(measured["qk_change"]).all()
