import math

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.measures.weights import find_gpt2, matrix_names, reference_weights, weight_change, weight_deltas

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


def deltas(model, reference) -> dict[str, torch.Tensor]:
    return {name: delta for name, delta, _ in weight_deltas(model, reference)}


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
    reference = reference_weights(model)
    w_0 = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert all(change == 0 for change in weight_change(model, reference)["weight_change"])
    disturb(model)
    change = weight_change(model, reference)
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
    reference = reference_weights(model)
    assert (weight_change(model, reference)["weight_change"] == 0).all()  # B begins at 0
    disturb(model)
    layer = find_gpt2(model).transformer.h[1].attn.c_attn
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # [r, in], [out, r]
    scaling = 7 / math.sqrt(3) if settings else 7 / 3
    expected = (scaling * b @ a).T  # [in, out]
    measured = deltas(model, reference)
    torch.testing.assert_close(measured["h.1.attn.c_attn.q"], expected[:, :12])
    torch.testing.assert_close(measured["h.1.attn.c_attn.v"], expected[:, 24:])
    assert torch.linalg.matrix_rank(measured["h.0.mlp.c_fc"]) == 3
    assert measured["wte"].norm() == 0


@torch.no_grad()
def test_lora_delta_is_what_merging_adds():
    """Independent of the formula: PEFT's own merge into plain weights, several adapters, before and after."""
    model = tiny_lora()
    plain_reference = reference_weights(tiny())
    reference = reference_weights(model)
    model.add_adapter("second", LoraConfig(r=2, lora_alpha=2, target_modules=ALL_MATRICES, fan_in_fan_out=True))
    model.base_model.set_adapter(["default", "second"])
    disturb(model)
    before = deltas(model, reference)
    model.merge_adapter()
    merged = deltas(model, reference)
    model.unmerge_adapter()
    plain = deltas(model.merge_and_unload(), plain_reference)
    for name in before:
        torch.testing.assert_close(before[name], merged[name])
        torch.testing.assert_close(before[name], plain[name], atol=1e-6, rtol=1e-4)
    assert all(before[name].norm() > 0 for name in before if name.startswith("h."))


def test_reference_of_the_plain_base_serves_its_lora_model():
    base = tiny()
    reference = reference_weights(base)
    model = disturb(get_peft_model(base, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)))
    changed = {n for n, d in deltas(model, reference).items() if d.norm() > 0}
    assert changed == {n for n in matrix_names(model) if "c_attn" in n}


def test_an_adapter_trained_on_counts_only_its_further_change():
    model = disturb(tiny_lora())
    reference = reference_weights(model)
    assert (weight_change(model, reference)["weight_change"] == 0).all()
    before = model.get_submodule("base_model.model.transformer.h.0.mlp.c_fc").get_delta_weight("default").clone()
    disturb(model)
    after = model.get_submodule("base_model.model.transformer.h.0.mlp.c_fc").get_delta_weight("default")
    torch.testing.assert_close(deltas(model, reference)["h.0.mlp.c_fc"], after - before, atol=1e-6, rtol=1e-4)


def test_modules_to_save_and_a_trained_output_matrix():
    model = tiny_lora(modules_to_save=["wpe", "lm_head"])
    reference = reference_weights(model)
    assert "lm_head" in matrix_names(model)
    disturb(model)
    measured = deltas(model, reference)
    assert measured["wpe"].norm() > 0 and measured["lm_head"].norm() > 0 and measured["wte"].norm() == 0


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="variant"):
        reference_weights(tiny_lora(use_dora=True))
    with pytest.raises(ValueError, match="LoRA"):
        reference_weights(get_peft_model(tiny(), IA3Config(task_type="CAUSAL_LM")))
    with pytest.raises(ValueError, match="GPT2LMHeadModel"):
        matrix_names(torch.nn.Linear(2, 2))


def test_a_small_lora_change_does_not_drown_in_rounding():
    model = disturb(tiny_lora(), size=1e-5)
    reference = reference_weights(tiny())
    layer = find_gpt2(model).transformer.h[0].attn.c_proj
    exact = 7 / 3 * (layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()).T
    torch.testing.assert_close(deltas(model, reference)["h.0.attn.c_proj"].double(), exact, rtol=1e-5, atol=1e-12)
    assert np.isfinite(weight_change(model, reference)["weight_change_relative"]).all()
