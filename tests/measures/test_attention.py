import json
import math

import numpy as np
import pytest
import torch

from gpt2_interp.measures.attention import QUERY_BLOCK, attention_measures, query_measures

MEASURES = ("attn_entropy", "attn_gini", "attn_distance_ns", "attn_sink")


def random_attention(*shape: int, seed: int = 0) -> torch.Tensor:
    """[*shape, n, n], causal, rows sum to 1; the last of `shape` is n."""
    n = shape[-1]
    scores = 3 * torch.randn(*shape[:-1], n, n, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def slow_query(row: list[float]) -> dict[str, float]:
    """The four measures of one query that sees all of `row`, written as MEASURES.md has them."""
    total = sum(row)
    row = [a / total for a in row]
    i, m = len(row) - 1, len(row)
    ascending = sorted(row)
    rest = sum(row[1:])
    return {
        "attn_entropy": -sum(a * math.log2(a) for a in row if a > 0),
        "attn_gini": (1 - 2 * sum(c * (m - k + 0.5) / m for k, c in enumerate(ascending, 1))) * m / (m - 1)
        if m > 1
        else math.nan,
        "attn_distance_ns": sum(row[j] / rest * (i - j) for j in range(1, m)) / ((i - 1) / 2)
        if i > 1 and rest > 0
        else math.nan,
        "attn_sink": row[0] if i > 0 else math.nan,
    }


def slow_measures(a: np.ndarray, regions: np.ndarray) -> dict[str, np.ndarray]:
    result = {name: np.full((a.shape[0], regions.shape[1], a.shape[1]), np.nan) for name in MEASURES}
    for b, r, h in np.ndindex(a.shape[0], regions.shape[1], a.shape[1]):
        queries = [slow_query(a[b, h, i, : i + 1].tolist()) for i in np.flatnonzero(regions[b, r])]
        for name in MEASURES:
            defined = [query[name] for query in queries if not math.isnan(query[name])]
            result[name][b, r, h] = sum(defined) / len(defined) if defined else math.nan
    return result


@pytest.mark.parametrize("n", [1, 2, 3, 20, QUERY_BLOCK, QUERY_BLOCK + 1, 2 * QUERY_BLOCK + 5])
def test_equals_the_definition_written_as_loops(n):
    a = random_attention(2, 3, n)
    regions = torch.rand(2, 4, n, generator=torch.Generator().manual_seed(1)) < 0.4
    regions[0, 1] = False  # an empty region
    regions[1, 2] = True
    expected = slow_measures(a.double().numpy(), regions.numpy())
    measured = attention_measures(a, regions)
    for name in MEASURES:
        np.testing.assert_allclose(measured[name], expected[name], atol=2e-5, err_msg=name)
        assert measured[name].shape == (2, 4, 3)
        assert measured[name][0, 1].isnan().all()


def test_known_patterns():
    n = 12
    uniform = torch.ones(n, n).tril()
    one_key = torch.zeros(n, n)
    one_key[torch.arange(n), torch.arange(n) // 2] = 1
    first, itself = torch.zeros(n, n), torch.eye(n)
    first[:, 0] = 1
    a = torch.stack([uniform / uniform.sum(-1, keepdim=True), one_key, first, itself])[None]  # [1, 4, n, n]
    q = {name: values[0, :, n - 1] for name, values in query_measures(a).items()}  # of the last query
    torch.testing.assert_close(q["attn_entropy"], torch.tensor([math.log2(n), 0, 0, 0]))
    torch.testing.assert_close(q["attn_gini"], torch.tensor([0.0, 1, 1, 1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(q["attn_sink"], torch.tensor([1 / n, 0, 1, 0]))
    torch.testing.assert_close(q["attn_distance_ns"], torch.tensor([1, 6 / 5, math.nan, 0]), equal_nan=True)


def test_undefined_is_nan_and_never_zero():
    values = query_measures(random_attention(1, 1, 4))
    assert values["attn_entropy"][0, 0, 0] == 0  # one visible key: certain, not undefined
    assert values["attn_gini"][0, 0, 0].isnan() and values["attn_sink"][0, 0, 0].isnan()
    assert values["attn_distance_ns"][0, 0, :2].isnan().all()


def test_rows_are_renormalised():
    a = random_attention(1, 2, 30)
    regions = torch.ones(1, 1, 30, dtype=torch.bool)
    expected, measured = attention_measures(a, regions), attention_measures(0.97 * a, regions)
    for name in MEASURES:
        torch.testing.assert_close(measured[name], expected[name])


def test_half_precision_attention_is_measured_in_float32():
    a = random_attention(1, 2, 70)
    regions = torch.ones(1, 1, 70, dtype=torch.bool)
    for name, values in attention_measures(a.bfloat16(), regions).items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, attention_measures(a, regions)[name], atol=0.01, rtol=0.01)


def test_input_is_not_changed():
    a = random_attention(1, 2, 30)
    before = a.clone()
    attention_measures(a, torch.ones(1, 1, 30, dtype=torch.bool))
    assert torch.equal(a, before)


def test_no_head_is_averaged_with_another():
    """An earlier project appended text -> layer -> head and reshaped: every cell mixed three heads."""
    a = random_attention(3, 4, 20)
    a[1, 2] = torch.eye(20)
    entropy = attention_measures(a, torch.ones(3, 1, 20, dtype=torch.bool))["attn_entropy"]  # [3, 1, 4]
    assert entropy[1, 0, 2] == 0
    assert (entropy == 0).sum() == 1


def test_real_gpt2_heads(real_data):
    """144 heads of the real 124M GPT-2 on three prompts, against scipy and plain numpy."""
    from scipy.stats import entropy

    for number in range(3):
        outputs = json.loads((real_data / "gpt2_reference_outputs" / f"prompt_{number}.json").read_text())["outputs"]
        layers = [
            [outputs[f"block_{layer}_attn_head_{head}_attn_softmax"]["data"] for head in range(12)]
            for layer in range(12)
        ]
        a = np.array(layers)  # [layer, head, query, key]
        n = a.shape[-1]
        measured = attention_measures(torch.tensor(a, dtype=torch.float32), torch.ones(12, 1, n, dtype=torch.bool))
        by_scipy = np.mean([entropy(a[:, :, i, : i + 1], base=2, axis=-1) for i in range(n)], axis=0)
        np.testing.assert_allclose(measured["attn_entropy"][:, 0], by_scipy, atol=1e-5)
        np.testing.assert_allclose(measured["attn_sink"][:, 0], a[:, :, 1:, 0].mean(-1), atol=1e-5)
        # Gini as the mean absolute difference of all pairs over twice the mean, times m / (m - 1)
        gini = np.mean(
            [
                np.abs(a[:, :, i, : i + 1, None] - a[:, :, i, None, : i + 1]).sum((-1, -2)) / (2 * i)
                for i in range(1, n)
            ],
            axis=0,
        )
        np.testing.assert_allclose(measured["attn_gini"][:, 0], gini, atol=1e-5)
        assert measured["attn_sink"].max() > 0.9  # GPT-2 is known for its sinks
