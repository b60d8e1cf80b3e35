import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.analysis.derived import CURVE, intruder_curve, intruders
from gpt2_interp.measures.spectra import intruder_cosines, singular_values, spectra, stable_rank
from gpt2_interp.model.anatomy import matrix_names
from gpt2_interp.model.base_weights import BaseWeights, weight_deltas
from gpt2_interp.snapshots.table import N_INTRUDER, N_SINGULAR
from tests.measures.test_weights import disturb

SHAPES = [(40, 12), (12, 40), (16, 16)]  # tall, as the embeddings; wide, as c_fc; square


def tiny(**overrides) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 12, "n_head": 3, "vocab_size": 20, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **overrides}))


def tiny_lora(**settings):
    settings = {"r": 3, "lora_alpha": 7, "target_modules": ["c_attn", "c_proj", "c_fc"], **settings}
    return get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **settings))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(random(size, size, seed=seed))[0]


def decaying(rows: int, columns: int) -> torch.Tensor:
    """A matrix whose singular values 1, 0.8, 0.64, ... lie well apart."""
    rank = min(rows, columns)
    return rotation(rows)[:, :rank] * 0.8 ** torch.arange(rank) @ rotation(columns, seed=1)[:, :rank].T


def slow_cosines(before, after, outputs_last: bool, count: int = N_INTRUDER) -> list[float]:
    """Loops over numpy's SVD."""
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if not outputs_last:
        before, after = before.T, after.T
    _, sigma, base = np.linalg.svd(before, full_matrices=False)
    tuned = np.linalg.svd(after, full_matrices=False)[2]
    best = []
    for u_t in tuned[:count]:
        best.append(max(abs(u_0 @ u_t) for u_0, s in zip(base, sigma, strict=True) if s > 1e-6 * sigma[0]))
    return best


# ---- against numpy's SVD, matrix by matrix ----


@pytest.mark.parametrize("make", [tiny, lambda: tiny(tie_word_embeddings=False), tiny_lora])
def test_a_whole_model_against_numpy(make):
    model = make()
    base = BaseWeights(model)
    measured = spectra(disturb(model, 0.02), base)
    names = matrix_names(model)
    assert measured["stable_rank"].shape == (len(names),)
    assert measured["weight_spectrum"].shape == (len(names), N_SINGULAR)
    assert measured["intruder_cosine"].shape == (len(names), N_INTRUDER)
    changed = 0
    for i, (name, delta, before) in enumerate(weight_deltas(model, base)):
        assert name == names[i]
        if not delta.any():
            continue
        changed += 1
        sigma = np.linalg.svd(delta.double().numpy(), compute_uv=False)
        np.testing.assert_allclose(measured["weight_spectrum"][i, :12], sigma, rtol=1e-5, atol=1e-7 * sigma[0])
        assert measured["stable_rank"][i] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-5)
        expected = slow_cosines(before, before + delta, outputs_last=name != "lm_head")  # nn.Linear is [out, in]
        np.testing.assert_allclose(measured["intruder_cosine"][i], expected, atol=1e-4, err_msg=name)
    assert changed == (12 if "Peft" in type(model).__name__ else len(names))
    assert np.isnan(measured["weight_spectrum"][:, 12:]).all()  # no more singular values than 12


@pytest.mark.parametrize("shape", SHAPES)
def test_single_matrices_against_numpy(shape):
    before, delta = random(*shape), 0.3 * random(*shape, seed=1)
    np.testing.assert_allclose(singular_values(delta), np.linalg.svd(delta.numpy(), compute_uv=False), rtol=1e-9)
    expected = slow_cosines(before, before + delta, outputs_last=True)
    np.testing.assert_allclose(intruder_cosines(before, delta), expected, rtol=1e-6)
    assert min(expected) < 0.9  # so that the test could fail


def test_more_rows_than_are_held_at_a_time(monkeypatch):
    monkeypatch.setattr("gpt2_interp.measures.spectra.ROWS_AT_ONCE", 7)
    test_single_matrices_against_numpy((40, 12))
    test_single_matrices_against_numpy((12, 40))


# ---- stable rank and spectrum ----


@pytest.mark.parametrize("shape", SHAPES)
def test_known_stable_ranks(shape):
    u, v = random(shape[0]), random(shape[1], seed=1)
    one = singular_values(torch.outer(u, v))
    assert stable_rank(one) == pytest.approx(1)
    assert one[0] == pytest.approx((u.norm() * v.norm()).item()) and (one[1:] < 1e-7 * one[0]).all()
    n = min(shape)
    assert stable_rank(singular_values(0.1 * torch.eye(*shape))) == pytest.approx(n)
    diagonal = torch.zeros(*shape)
    diagonal[0, 0], diagonal[1, 1] = 2.0, 1.0
    assert stable_rank(singular_values(diagonal)) == pytest.approx(1.25)  # (4 + 1) / 4


def test_a_lora_change_has_no_more_directions_than_its_rank():
    model = tiny_lora()
    base = BaseWeights(model)
    measured = spectra(disturb(model, 0.3), base)
    adapted = ["h." in name for name in matrix_names(model)]
    assert (measured["stable_rank"][adapted] <= 3 + 1e-5).all() and (measured["stable_rank"][adapted] > 1).all()
    spectrum = measured["weight_spectrum"][adapted]
    assert (spectrum[:, 2] > 1e-3 * spectrum[:, 0]).all() and (spectrum[:, 3:12] < 1e-5 * spectrum[:, :1]).all()


def test_what_has_not_changed():
    model = tiny_lora()
    base = BaseWeights(model)
    measured = spectra(model, base)
    assert np.isnan(measured["stable_rank"]).all()
    assert (measured["weight_spectrum"][:, :12] == 0).all()
    assert (measured["intruder_cosine"] == 1).all()
    wte = spectra(disturb(model, 0.02), base)  # frozen beneath the adapters
    assert np.isnan(wte["stable_rank"][0]) and (wte["intruder_cosine"][0] == 1).all()


# ---- intruders ----


@pytest.mark.parametrize("shape", SHAPES)
def test_a_small_change_brings_no_intruder(shape):
    cosines = intruder_cosines(decaying(*shape), 1e-5 * random(*shape))
    assert len(cosines) == 10 and (cosines > 1 - 1e-6).all() and (cosines <= 1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_planted_intruder_is_the_only_one(shape):
    """A large direction halfway between all those of the base that come out."""
    before = decaying(*shape)
    outputs = torch.linalg.svd(before, full_matrices=False)[2]  # [rank, out]
    mixture = outputs.sum(0) / len(outputs) ** 0.5  # cosine with each: 1/sqrt(rank) < 0.3
    cosines = intruder_cosines(before, 50 * torch.outer(random(shape[0]), mixture))
    assert cosines[0] == pytest.approx(len(outputs) ** -0.5, abs=0.02)
    before, after = before.numpy(), (before + 50 * torch.outer(random(shape[0]), mixture)).numpy()
    np.testing.assert_allclose(cosines, slow_cosines(before, after, outputs_last=True), atol=1e-6)


def test_a_direction_outside_of_the_base_is_an_intruder_and_shifts_the_others_down():
    before = torch.zeros(20, 40, dtype=torch.float64)
    before[:12] = decaying(12, 40)
    outside = torch.linalg.svd(before)[2][-1]  # orthogonal to everything that the base writes
    unused_input = torch.zeros(20, dtype=torch.float64)
    unused_input[19] = 1
    cosines = intruder_cosines(before, torch.outer(unused_input, 5 * outside))
    assert cosines[0] < 1e-6 and (cosines[1:] > 1 - 1e-6).all()
    assert intruders(cosines.numpy()) == 1


@pytest.mark.parametrize("shape", [(30, 14), (14, 30)])
def test_vectors_that_the_base_does_not_use_do_not_count(shape):
    """A base of rank 5: the eigenvectors that complete its basis are no directions of it."""
    before = random(shape[0], 5) @ random(5, shape[1], seed=1)
    unused = torch.linalg.svd(before)[2][-1]
    cosines = intruder_cosines(before, torch.outer(random(shape[0], seed=2), 50 * unused))
    assert cosines[0] < 0.1
    assert cosines[6:].isnan().all() and cosines[:6].isfinite().all()  # the tuned matrix has rank 6


def test_the_output_side_is_what_is_compared():
    """Turning what a matrix reads leaves the directions it writes; turning what it writes does not."""
    for shape in SHAPES:
        before = decaying(*shape)
        turned_in = rotation(shape[0], seed=5) @ before
        turned_out = before @ rotation(shape[1], seed=5)
        assert (intruder_cosines(before, turned_in - before) > 1 - 1e-6).all()
        assert intruder_cosines(before, turned_out - before).mean() < 0.8


@torch.no_grad()
def test_the_output_side_of_each_layer_of_gpt2():
    """Conv1D and embeddings are stored [in, out], lm_head [out, in]."""
    model = tiny(tie_word_embeddings=False)
    modules = {"h.0.mlp.c_fc": model.transformer.h[0].mlp.c_fc, "wte": model.transformer.wte, "lm_head": model.lm_head}
    base = BaseWeights(model)
    modules["h.0.mlp.c_fc"].weight.copy_(rotation(12).float() @ modules["h.0.mlp.c_fc"].weight)
    modules["wte"].weight.copy_(rotation(20).float() @ modules["wte"].weight)
    modules["lm_head"].weight.copy_(modules["lm_head"].weight @ rotation(12).float())
    cosines = dict(zip(matrix_names(model), spectra(model, base)["intruder_cosine"], strict=True))
    for name in modules:
        np.testing.assert_allclose(cosines[name], 1, atol=1e-4)


def test_fewer_singular_values_than_intruders_are_looked_for():
    model = tiny(n_embd=6)
    base = BaseWeights(model)
    cosines = spectra(disturb(model, 0.02), base)["intruder_cosine"]
    assert np.isfinite(cosines[:, :6]).all() and np.isnan(cosines[:, 6:]).all()


@torch.no_grad()
def test_matrices_of_zeros_and_diverged_ones_are_undefined():
    model = tiny()
    model.transformer.h[1].mlp.c_fc.weight.zero_()
    base = BaseWeights(model)
    model.transformer.h[1].mlp.c_fc.weight.fill_(1.0)
    model.transformer.h[0].mlp.c_fc.weight[3, 3] = torch.inf
    measured = spectra(model, base)
    zero, infinite = (matrix_names(model).index(f"h.{i}.mlp.c_fc") for i in (1, 0))
    assert np.isnan(measured["intruder_cosine"][zero]).all() and measured["stable_rank"][zero] == pytest.approx(1)
    assert all(np.isnan(values[infinite]).all() for values in measured.values())
    assert np.isnan(measured["stable_rank"]).sum() == len(matrix_names(model)) - 1


def test_counting_intruders():
    cosines = np.array([[0.1, 0.5, 0.9], [0.2, 0.3, np.nan], [np.nan] * 3])
    np.testing.assert_array_equal(intruders(cosines), [1, 2, np.nan])
    np.testing.assert_array_equal(intruders(cosines, eps=0.95), [3, 2, np.nan])
    curve = intruder_curve(cosines, np.array([0.0, 0.15, 0.25, 0.6, 1.1]))
    np.testing.assert_array_equal(curve, [[0, 1, 1, 2, 3], [0, 0, 1, 2, 2], [np.nan] * 5])
    assert intruder_curve(np.zeros((2, 4, 10))).shape == (2, 4, len(CURVE))
