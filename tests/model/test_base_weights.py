import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.model.anatomy import find_gpt2, matrix_names
from gpt2_interp.model.base_weights import BaseWeights, weight_deltas

ALL_MATRICES = ["c_attn", "c_proj", "c_fc"]
IDS = torch.arange(12).view(1, 12)


def tiny(**overrides) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 12, "n_head": 3, "vocab_size": 20, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **overrides})).eval()


def tiny_lora(**settings):
    settings = {"r": 3, "lora_alpha": 7, "target_modules": ALL_MATRICES, "fan_in_fan_out": True, **settings}
    return get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()


MAKERS = {
    "full": tiny,
    "untied": lambda: tiny(tie_word_embeddings=False),
    "lora": tiny_lora,
    "lora that begins elsewhere": lambda: disturb(tiny_lora(), seed=5),
    "lora and a saved module": lambda: tiny_lora(modules_to_save=["wpe", "lm_head"]),
}


@pytest.fixture(params=MAKERS)
def model(request):
    return MAKERS[request.param]()


@torch.no_grad()
def disturb(model, size: float = 0.1, seed: int = 1):
    """Move every trainable weight a little, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(IDS).logits


def state(model) -> dict[str, tuple[int, torch.Tensor]]:
    return {name: (p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}


def assert_same(before, after):
    """The very same tensors, with the same bits in them."""
    assert before.keys() == after.keys()
    for name, (address, value) in before.items():
        assert after[name][0] == address and torch.equal(after[name][1], value), name


# ---- the base, put back ----


def test_inside_the_model_is_the_base_and_afterwards_itself_again(model):
    base, of_base = BaseWeights(model), logits(model)
    disturb(model)
    before, tuned = state(model), logits(model)
    assert not torch.allclose(tuned, of_base, atol=1e-3)
    with base.replaced(model):
        assert torch.equal(logits(model), of_base)
    assert_same(before, state(model))
    assert torch.equal(logits(model), tuned)


def test_an_exception_inside_restores_as_well(model):
    base = BaseWeights(model)
    before = state(disturb(model))
    norms = base.change_norms(model)
    for context in (base.replaced(model), base.perturbed(model, 0, norms)):
        with pytest.raises(KeyError), context:
            raise KeyError
        assert_same(before, state(model))


def test_only_some_parameters():
    model = tiny()
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    base = BaseWeights(model)
    tuned = {name: p.detach().clone() for name, p in disturb(model).named_parameters()}
    with base.replaced(model, only=lambda name: name.startswith("transformer.h.1.mlp.")):
        for name, parameter in model.named_parameters():
            expected = initial if "h.1.mlp" in name else tuned
            assert torch.equal(parameter, expected[name]), name
    with base.replaced(model, only=lambda name: name == "transformer.wte.weight"):
        assert torch.equal(model.lm_head.weight, initial["transformer.wte.weight"])  # tied: one tensor


def test_lora_copies_only_its_adapters_and_the_frozen_base_stays_in_place():
    model = tiny_lora()
    base = BaseWeights(model)
    assert base.copies and all("lora_" in name for name in base.copies)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    addresses = [p.data_ptr() for p in frozen]
    with base.replaced(disturb(model)):
        assert [p.data_ptr() for p in frozen] == addresses


def test_a_tied_matrix_is_held_once_and_frozen_layers_are_not():
    model = tiny()
    model.transformer.h[0].requires_grad_(False)
    names = set(BaseWeights(model).copies)
    assert "transformer.wte.weight" in names and "lm_head.weight" not in names
    assert not any("h.0." in name for name in names) and any("h.1." in name for name in names)


class Wrapped(torch.nn.Module):  # as DistributedDataParallel holds a model
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_wrapping_after_the_copy_changes_nothing():
    model = tiny()
    base, of_base = BaseWeights(model), logits(model)
    disturb(model)
    for wrapped in (Wrapped(model), torch.compile(model, backend="eager")):
        with base.replaced(wrapped):
            assert torch.equal(logits(model), of_base)


def test_another_dtype_than_at_the_start():
    model = tiny()
    base = BaseWeights(model)
    disturb(model).bfloat16()
    before = state(model)
    with base.replaced(model):
        for name, parameter in model.named_parameters():
            assert parameter.dtype == torch.bfloat16
            assert torch.equal(parameter, base.copies[name].bfloat16())
    assert_same(before, state(model))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_on_another_device():
    model = tiny()
    base = BaseWeights(model)
    disturb(model).to("cuda")
    norms = base.change_norms(model)
    before = state(model)
    with base.replaced(model):
        assert all(
            p.device.type == "cuda" and torch.equal(p.cpu(), base.copies[n]) for n, p in model.named_parameters()
        )
    with base.perturbed(model, 0, norms):
        assert base.change_norms(model) == pytest.approx(norms, rel=1e-5)
    assert_same(before, state(model))


def test_gradients_are_left_alone():
    model = tiny()
    base = BaseWeights(model)
    disturb(model)
    model(IDS, labels=IDS).loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    with base.replaced(model):
        logits(model)
    assert all(torch.equal(p.grad, grads[name]) for name, p in model.named_parameters())


def test_a_model_that_is_no_longer_the_one_that_was_copied_is_refused():
    model = tiny()
    model.transformer.h[0].requires_grad_(False)
    base = BaseWeights(model)
    model.transformer.h[0].requires_grad_(True)
    with pytest.raises(ValueError, match="transformer.h.0.ln_1.weight became trainable"), base.replaced(model):
        pass
    model = tiny()
    base = BaseWeights(model)
    with pytest.raises(ValueError, match="gone"), base.replaced(get_peft_model(model, LoraConfig())):
        pass
    model = tiny()
    base = BaseWeights(model)
    model.resize_token_embeddings(21)
    with pytest.raises(ValueError, match="shape"), base.replaced(model):
        pass


def test_merged_adapters_are_refused_and_nothing_is_touched():
    model = tiny_lora()
    base = BaseWeights(model)
    disturb(model)
    norms = base.change_norms(model)
    model.merge_adapter()
    before = state(model)
    for swap in (lambda: base.replaced(model), lambda: base.perturbed(model, 0, norms)):
        with pytest.raises(ValueError, match="unmerge"), swap():
            pass
    assert_same(before, state(model))


# ---- noise of the size of the change ----


def test_noise_has_the_norm_of_each_matrix_own_change(model):
    base = BaseWeights(model)
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    disturb(model)
    norms = base.change_norms(model)
    assert list(norms) == matrix_names(model) and all(norms[name] > 0 for name in norms if "h." in name)
    # written out for one matrix: the keys of layer 1, from the model's own names alone
    ends = ("h.1.attn.c_attn.weight", "h.1.attn.c_attn.base_layer.weight")
    name, start = next((name, weight) for name, weight in initial.items() if name.endswith(ends))
    before = state(model)
    with base.perturbed(model, 3, norms):
        noise = (dict(model.named_parameters())[name] - start)[:, 12:24].detach()
        assert noise.norm().item() == pytest.approx(norms["h.1.attn.c_attn.k"], rel=1e-5)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or "lora_" in name:  # biases, layer norms, adapters
                assert torch.equal(parameter, initial[name]), name
    assert_same(before, state(model))


def test_every_matrix_of_a_perturbed_model_is_as_far_from_the_base_as_the_tuned_one():
    model = tiny()
    base = BaseWeights(model)
    norms = base.change_norms(disturb(model))
    with base.perturbed(model, 0, norms):
        assert base.change_norms(model) == pytest.approx(norms, rel=1e-5)  # tied wte among them, once


def lora_noise(model, base, norms, seed=0) -> dict[str, np.ndarray]:
    """Of each frozen weight beneath an adapter."""
    frozen = {n: p for n, p in model.named_parameters() if n.endswith("base_layer.weight")}
    initial = {n: p.detach().clone() for n, p in frozen.items()}
    with base.perturbed(model, seed, norms):
        return {n: (p.detach() - initial[n]).double().numpy() for n, p in frozen.items()}


def test_noise_beneath_lora_has_the_adapters_rank():
    model = tiny_lora(rank_pattern={"c_fc": 2})
    base = BaseWeights(model)
    norms = base.change_norms(disturb(model))
    noise = lora_noise(model, base, norms)
    assert len(noise) == 8
    for name, matrix in noise.items():
        rank = 2 if "c_fc" in name else 3
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular[rank - 1] > 0.01 * singular[0] and singular[rank] < 1e-5 * singular[0], name
    assert norms["wte"] == 0


def test_two_active_adapters_count_with_both_their_ranks():
    model = tiny_lora()
    model.add_adapter("second", LoraConfig(r=2, target_modules=ALL_MATRICES, fan_in_fan_out=True))
    model.base_model.set_adapter(["default", "second"])
    base = BaseWeights(model)
    for matrix in lora_noise(model, base, base.change_norms(disturb(model))).values():
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular[4] > 0.001 * singular[0] and singular[5] < 1e-5 * singular[0]


def test_noise_is_gaussian_and_fills_every_direction():
    model = tiny(n_embd=96, vocab_size=200)
    base = BaseWeights(model)
    start = model.transformer.h[0].mlp.c_fc.weight.detach().clone()
    norms = base.change_norms(disturb(model))
    with base.perturbed(model, 0, norms):
        noise = (model.transformer.h[0].mlp.c_fc.weight.detach() - start).flatten().double()
    z = noise / noise.std()
    n = z.numel()  # 36,864; tolerances: 5 standard errors
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert np.linalg.matrix_rank(noise.view(96, 384).numpy()) == 96


def test_the_seed_alone_decides_and_the_global_random_state_is_untouched(model):
    base = BaseWeights(model)
    norms = base.change_norms(disturb(model))

    def noisy(seed):
        with base.perturbed(model, seed, norms):
            return logits(model)

    torch.manual_seed(123)
    random_state = torch.get_rng_state()
    first = noisy(7)
    assert torch.equal(random_state, torch.get_rng_state())
    torch.manual_seed(321)
    assert torch.equal(first, noisy(7))
    assert not torch.allclose(first, noisy(8), atol=1e-4)


def test_no_change_no_noise(model):
    base, of_base = BaseWeights(model), logits(model)
    norms = base.change_norms(model)
    assert set(norms.values()) == {0.0}
    with base.perturbed(model, 0, norms):
        assert torch.equal(logits(model), of_base)


def test_only_changed_weights_are_copied():
    model = tiny_lora(target_modules=["c_attn"])
    base = BaseWeights(model)
    norms = base.change_norms(disturb(model))
    addresses = {name: p.data_ptr() for name, p in model.named_parameters()}
    with base.perturbed(model, 0, norms):
        moved = {name for name, p in model.named_parameters() if p.data_ptr() != addresses[name]}
    assert moved == {name for name in addresses if "c_attn" in name and not name.endswith("bias")}


def test_norms_of_another_model_or_of_a_broken_one_are_refused():
    model = tiny()
    base = BaseWeights(model)
    norms = base.change_norms(model)
    with pytest.raises(ValueError, match="change_norms"), base.perturbed(model, 0, {**norms, "lm_head": 1.0}):
        pass
    with pytest.raises(ValueError, match="NaN"), base.perturbed(model, 0, {**norms, "wte": math.nan}):
        pass


def test_the_base_survives_a_perturbation(model):
    """Noise is not added to the copies themselves, nor to frozen weights in place."""
    base, of_base = BaseWeights(model), logits(model)
    norms = base.change_norms(disturb(model))
    with base.perturbed(model, 0, norms):
        assert not torch.allclose(logits(model), of_base, atol=1e-3)
    with base.replaced(model):
        assert torch.equal(logits(model), of_base)
    assert base.change_norms(model) == norms
    assert find_gpt2(model) and all(torch.isfinite(d).all() for _, d, _ in weight_deltas(model, base))
