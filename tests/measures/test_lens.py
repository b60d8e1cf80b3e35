import base64
import json

import numpy as np
import pytest
import torch
from torch.nn.functional import linear
from transformers import GPT2LMHeadModel

from gpt2_interp.measures.lens import lens_measures, mean_over_queries

N_LAYER, QUERIES, D_MODEL, VOCAB = 4, 11, 6, 50
G = torch.Generator().manual_seed(0)
STATES = torch.randn(N_LAYER, QUERIES, D_MODEL, generator=G)
TARGETS = torch.randint(0, VOCAB, (QUERIES,), generator=G)
W = torch.randn(VOCAB, D_MODEL, generator=G)


def norm(x):
    return torch.nn.functional.layer_norm(x, (D_MODEL,))


def output(x):
    return 2 * linear(x, W) - 80  # GPT-2's logits are far from 0


def slow_lens(states, targets, norm, output):
    """One query after the other, in float64."""
    result = {name: np.empty(states.shape[:2]) for name in ("entropy", "kl", "rank", "logprob")}

    def predict(state):
        logits = output(norm(state[None]))[0].double()
        p = np.exp([float(z - logits.max()) for z in logits])
        return logits, p / p.sum()

    for query, target in enumerate(targets.tolist()):
        _, final = predict(states[-1, query])
        for layer in range(len(states)):
            logits, p = predict(states[layer, query])
            result["entropy"][layer, query] = -sum(a * np.log2(a) for a in p)
            result["kl"][layer, query] = sum(a * np.log2(a / b) for a, b in zip(final, p, strict=True))
            result["rank"][layer, query] = 1 + sum(z > logits[target] for z in logits)
            result["logprob"][layer, query] = np.log(p[target])
    return result


@pytest.mark.parametrize("max_logits", [2**24, 3 * 4 * VOCAB, 1])
def test_equals_loops_in_any_pieces(max_logits):
    measured = lens_measures(STATES, TARGETS, norm, output, max_logits)
    expected = slow_lens(STATES, TARGETS, norm, output)
    assert set(measured) == set(expected)
    for name, values in expected.items():
        assert measured[name].dtype == torch.float32
        np.testing.assert_allclose(measured[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
    assert (measured["kl"][-1] == 0).all() and (measured["kl"][:-1] > 0.01).all()


def test_equal_logits_do_not_outrank_the_target():
    logits = torch.tensor([[[3.0, 1.0, 1.0, 5.0]]])
    measured = lens_measures(logits, torch.tensor([1]), torch.clone, torch.clone)
    assert measured["rank"].item() == 3  # behind 5 and 3, not behind the other 1


def test_logits_are_never_all_in_memory():
    largest = []

    def counted(x):
        logits = output(x)
        largest.append(logits.numel())
        return logits

    lens_measures(STATES, TARGETS, norm, counted, max_logits=3 * 4 * VOCAB)
    assert max(largest) == 4 * VOCAB  # with the final prediction and a layer's own, 3 times that


def test_what_is_not_finite_is_nan_and_stays_with_its_query():
    states = STATES.clone()
    states[1, 3] = torch.nan
    measured = lens_measures(states, TARGETS, norm, output)
    for values in measured.values():
        assert values.isnan().nonzero().tolist() == [[1, 3]]


def test_without_queries():
    measured = lens_measures(STATES[:, :0], TARGETS[:0], norm, output)
    assert all(values.shape == (N_LAYER, 0) for values in measured.values())


def test_the_states_and_targets_stay_as_they_were():
    states = STATES.clone()
    lens_measures(states, TARGETS, norm, output)
    assert torch.equal(states, STATES)


def test_mean_over_queries():
    values = torch.tensor([[1.0, 2.0, 6.0], [0.0, 10.0, 5.0]])  # [hidden_layer, queries]
    mean = mean_over_queries(values, torch.tensor([2, 0, 2]), 4)
    np.testing.assert_array_equal(mean, [[2, 10], [np.nan, np.nan], [3.5, 2.5], [np.nan, np.nan]])


@torch.no_grad()
def test_the_last_layer_of_a_real_model_is_its_own_prediction(real_data):
    """sorting_gpt: the lens at the last layer against the probabilities that the model's author stored."""
    folder = real_data / "sorting_gpt"
    entries = json.loads((folder / "stored_activations.json").read_text())
    ids, stored = (
        np.frombuffer(base64.b64decode(entries[name]["data"]), dtype=np.float32).reshape(entries[name]["shape"])
        for name in ("idx", "probs")
    )
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    states = []
    blocks = [*model.transformer.h, model.transformer.ln_f]
    hooks = [b.register_forward_pre_hook(lambda module, args: states.append(args[0].flatten(0, 1))) for b in blocks]
    ids = torch.tensor(ids).long()  # [3, 11]
    logits = model(ids).logits.flatten(0, 1)  # [queries, vocab]
    for hook in hooks:
        hook.remove()
    p = torch.tensor(stored).reshape(-1, stored.shape[-1]).double()
    np.testing.assert_allclose(logits.softmax(-1), p, atol=1e-5)
    targets = torch.arange(len(p)) % p.shape[-1]

    measured = lens_measures(torch.stack(states), targets, model.transformer.ln_f, model.lm_head)
    assert len(states) == len(measured["kl"]) == model.config.n_layer + 1
    assert (measured["kl"][-1] == 0).all() and (measured["kl"][0] > 0.1).all()
    np.testing.assert_allclose(measured["entropy"][-1], -(p * p.log2()).sum(-1), atol=1e-4)
    of_target = p.gather(-1, targets[:, None])
    np.testing.assert_allclose(measured["logprob"][-1].exp(), of_target.squeeze(-1), atol=1e-5)
    expected = slow_lens(torch.stack(states), targets, model.transformer.ln_f, model.lm_head)
    np.testing.assert_array_equal(measured["rank"][-1], 1 + (logits > logits.gather(-1, targets[:, None])).sum(-1))
    for name in ("entropy", "kl", "logprob"):
        np.testing.assert_allclose(measured[name], expected[name], atol=1e-4, err_msg=name)
