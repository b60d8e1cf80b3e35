import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from gpt2_interp.measures.gradients import REST, GradientShares, grad_matrix_names, grad_matrix_of
from tests.measures.test_weights import tiny, tiny_lora


def with_gradient(model):
    ids = torch.randint(0, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids, labels=ids).loss.backward()
    return model


@pytest.mark.parametrize(
    "make",
    [tiny, tiny_lora, lambda: tiny_lora(modules_to_save=["wpe"], bias="all"), lambda: tiny(tie_word_embeddings=False)],
)
def test_shares_equal_loops_and_their_squares_sum_to_one(make):
    model = with_gradient(make())
    gradients = GradientShares(model)
    shares, total = gradients.shares(gradients.squares())
    sums: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            label = grad_matrix_of(name)
            sums[label] = sums.get(label, 0.0) + (parameter.grad.double() ** 2).sum().item()
    assert total == pytest.approx(math.sqrt(sum(sums.values())))
    assert (shares.double() ** 2).nansum().item() == pytest.approx(1)
    for label, share in zip(grad_matrix_names(model), shares.tolist(), strict=True):
        if label in sums:
            assert share == pytest.approx(math.sqrt(sums[label]) / total)
        else:
            assert math.isnan(share)  # frozen: no gradient exists, which is not a gradient of 0


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("transformer.wte.weight", "wte"),
        ("module.transformer.h.10.attn.c_attn.weight", "h.10.attn.c_attn"),
        ("transformer.h.0.attn.c_attn.bias", REST),
        ("transformer.h.0.ln_1.weight", REST),
        ("transformer.ln_f.weight", REST),
        ("base_model.model.transformer.h.1.mlp.c_proj.lora_A.default.weight", "h.1.mlp.c_proj"),
        ("base_model.model.transformer.h.1.attn.c_proj.lora_B.my_adapter.weight", "h.1.attn.c_proj"),
        ("base_model.model.transformer.h.1.attn.c_proj.base_layer.weight", "h.1.attn.c_proj"),
        ("base_model.model.transformer.h.1.attn.c_proj.base_layer.bias", REST),
        ("base_model.model.transformer.wte.lora_embedding_A.default", "wte"),
        ("base_model.model.transformer.wpe.modules_to_save.default.weight", "wpe"),
        ("base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector.default.weight", "h.0.attn.c_attn"),
        ("base_model.model.transformer.h.0.attn.c_attn.lora_E.default", "h.0.attn.c_attn"),
        ("base_model.model.transformer.h.0.mlp.c_fc.ia3_l.default", "h.0.mlp.c_fc"),
        ("base_model.model.transformer.wte.token_adapter.trainable_tokens_delta.default", "wte"),
        ("base_model.model.transformer.h.0.attn.c_attn.lora_B.default.bias", REST),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_labels(name, label):
    assert grad_matrix_of(name) == label


def test_lora_on_embeddings():
    config = LoraConfig(target_modules=["wte", "c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    model = with_gradient(get_peft_model(tiny(), config))
    gradients = GradientShares(model)
    shares, _ = gradients.shares(gradients.squares())
    assert shares[gradients.labels.index("wte")] > 0


def test_shares_do_not_change_when_gradients_are_clipped():
    model = with_gradient(tiny())
    gradients = GradientShares(model)
    before, total = gradients.shares(gradients.squares())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    after, clipped = gradients.shares(gradients.squares())
    torch.testing.assert_close(before, after)
    assert total > 0.01 == pytest.approx(clipped, rel=1e-4)


def test_cleared_and_broken_gradients_are_not_zero():
    """An earlier project read gradients after they were cleared and reported 0.0 at every step."""
    model = with_gradient(tiny())
    gradients = GradientShares(model)
    model.transformer.wpe.weight.grad[0, 0] = torch.nan
    assert math.isnan(gradients.shares(gradients.squares())[1])
    model.zero_grad()
    shares, total = gradients.shares(gradients.squares())
    assert shares.isnan().all() and math.isnan(total)
