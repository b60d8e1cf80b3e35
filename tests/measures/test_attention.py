import json
import math

import numpy as np
import pytest
import torch

from gpt2_interp.measures.attention import (
    QUERY_BLOCK,
    QUERY_MEASURES,
    STRIPES,
    attention_between,
    kl_bits,
    moved_norms,
    norm_weighted_share,
    query_measures,
    region_mean,
    source_chance,
    source_shares,
    stripe_sums,
)
from tests.measures.whole_maps import attention_measures


def random_attention(*shape: int, seed: int = 0) -> torch.Tensor:
    """[*shape, n, n], causal, rows sum to 1; the last of `shape` is n."""
    n = shape[-1]
    scores = 3 * torch.randn(*shape[:-1], n, n, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def bits(row: list[float]) -> float:
    return -sum(a * math.log2(a) for a in row if a > 0)


def slow_query(row: list[float]) -> dict[str, float]:
    """QUERY_MEASURES of one query that sees all of `row`, written as docs/metrics.md has them."""
    total = sum(row)
    row = [a / total for a in row]
    i, m = len(row) - 1, len(row)
    ascending = sorted(row)
    rest = sum(row[1:])
    entropy = bits(row)
    return {
        "attn_entropy": entropy,
        "attn_entropy_norm": entropy / math.log2(m) if m > 1 else math.nan,
        "attn_entropy_norm_ns": bits([a / rest for a in row[1:]]) / math.log2(m - 1)
        if i > 1 and rest > 0
        else math.nan,
        "attn_gini": (1 - 2 * sum(c * (m - k + 0.5) / m for k, c in enumerate(ascending, 1))) * m / (m - 1)
        if m > 1
        else math.nan,
        "attn_distance_ns": sum(row[j] / rest * (i - j) for j in range(1, m)) / ((i - 1) / 2)
        if i > 1 and rest > 0
        else math.nan,
        "attn_sink": row[0] if i > 0 else math.nan,
    }


def slow_measures(a: np.ndarray, regions: np.ndarray) -> dict[str, np.ndarray]:
    result = {name: np.full((a.shape[0], regions.shape[1], a.shape[1]), np.nan) for name in QUERY_MEASURES}
    for b, r, h in np.ndindex(a.shape[0], regions.shape[1], a.shape[1]):
        queries = [slow_query(a[b, h, i, : i + 1].tolist()) for i in np.flatnonzero(regions[b, r])]
        for name in QUERY_MEASURES:
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
    for name in QUERY_MEASURES:
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
    torch.testing.assert_close(q["attn_entropy_norm"], torch.tensor([1.0, 0, 0, 0]))
    torch.testing.assert_close(q["attn_entropy_norm_ns"], torch.tensor([1, 0, math.nan, 0]), equal_nan=True)


def test_without_the_sink_the_rest_counts_however_little_it_is():
    """Nearly all attention on the first token, as in most heads of GPT-2: the rest must not drown in rounding."""
    n = 40
    rest = torch.rand(n - 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    for left in (1e-3, 1e-6, 1e-9, 1e-30):
        row = torch.cat([torch.tensor([1 - left], dtype=torch.float64), left * rest / rest.sum()])
        measured = query_measures(row.float()[None, None, None], n - 1)
        expected = slow_query([1.0, *rest.tolist()])  # what the first token has does not matter
        for name in ("attn_entropy_norm_ns", "attn_distance_ns"):
            assert measured[name].item() == pytest.approx(expected[name], abs=1e-5), (name, left)


@pytest.mark.parametrize("name", QUERY_MEASURES)
def test_only_what_is_wanted(name):
    a = random_attention(1, 2, 20)
    chosen = query_measures(a, wanted={name})
    assert list(chosen) == [name]
    torch.testing.assert_close(chosen[name], query_measures(a)[name], equal_nan=True)


def test_region_mean_takes_many_measures_at_once():
    values = torch.randn(3, 4, 2, 5, 9, generator=torch.Generator().manual_seed(0))  # [measure, layer, batch, head, q]
    values[0, 1, 0, 2, 3] = torch.nan
    regions = torch.rand(2, 2, 9, generator=torch.Generator().manual_seed(1)) < 0.6
    means = region_mean(values, regions)
    assert means.shape == (3, 4, 2, 2, 5)
    for m, layer in np.ndindex(3, 4):
        torch.testing.assert_close(means[m, layer], region_mean(values[m, layer], regions))
    torch.testing.assert_close(means[0, 1, 0, 0, 2], values[0, 1, 0, 2][regions[0, 0]].nanmean())


def test_undefined_is_nan_and_never_zero():
    values = query_measures(random_attention(1, 1, 4))
    assert values["attn_entropy"][0, 0, 0] == 0  # one visible key: certain, not undefined
    assert values["attn_gini"][0, 0, 0].isnan() and values["attn_sink"][0, 0, 0].isnan()
    assert values["attn_distance_ns"][0, 0, :2].isnan().all()
    assert values["attn_entropy_norm"][0, 0, 0].isnan() and values["attn_entropy_norm_ns"][0, 0, :2].isnan().all()
    assert all(values[name][0, 0, 2:].isfinite().all() for name in QUERY_MEASURES)


def test_rows_are_renormalised():
    a = random_attention(1, 2, 30)
    regions = torch.ones(1, 1, 30, dtype=torch.bool)
    expected, measured = attention_measures(a, regions), attention_measures(0.97 * a, regions)
    for name in QUERY_MEASURES:
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
        norm = [entropy(a[:, :, i, : i + 1], axis=-1) / np.log(i + 1) for i in range(1, n)]
        np.testing.assert_allclose(measured["attn_entropy_norm"][:, 0], np.mean(norm, 0), atol=1e-5)
        # scipy renormalises; the row of a query whose first token took everything (in float32) has no rest
        with np.errstate(invalid="ignore"):
            norm_ns = [entropy(a[:, :, i, 1 : i + 1], axis=-1) / np.log(i) for i in range(2, n)]
        np.testing.assert_allclose(measured["attn_entropy_norm_ns"][:, 0], np.nanmean(norm_ns, 0), atol=1e-5)


# --- attention to the source -------------------------------------------------------------------------------------


def sources(n_key: int, *n_source: int) -> torch.Tensor:
    """[batch, key] bool: keys 1 .. n_source - 1."""
    j = torch.arange(n_key)
    return torch.stack([(j >= 1) & (j < n) for n in n_source])


def test_source_shares_equal_loops():
    n, first = 30, 18
    a, source = random_attention(4, 2, n), sources(n, 12, 17, 1, 0)
    shares = source_shares(0.9 * a[:, :, first:], source)  # rows are renormalised
    for b, h, i in np.ndindex(4, 2, n - first):
        row = a[b, h, first + i].tolist()
        on_source = sum(row[j] for j in range(n) if source[b, j])
        expected = {"attn_source": on_source, "attn_source_ns": on_source / (1 - row[0])}
        for name, value in expected.items():
            if b < 2:
                assert shares[name][b, h, i].item() == pytest.approx(value, rel=1e-4), name
            else:  # a source of one token is position 0 alone
                assert shares[name][b, h, i].isnan()
    some = source_shares(a[:, :, 18:20, :20], source)  # the keys that this block of queries sees
    torch.testing.assert_close(some["attn_source"], shares["attn_source"][:, :, :2], equal_nan=True)


def test_uniform_attention_gives_the_source_its_chance():
    n = 25
    uniform = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    source, queries = sources(n, 10, 6, 0), torch.arange(n).repeat(3, 1) >= torch.tensor([[14], [9], [0]])
    chance = source_chance(source, queries)
    by_hand = [np.mean([9 / i for i in range(14, n)]), np.mean([5 / i for i in range(9, n)]), math.nan]
    torch.testing.assert_close(chance, torch.tensor(by_hand, dtype=torch.float32), equal_nan=True)
    shares = source_shares(uniform.expand(3, 1, n, n), source)["attn_source_ns"]
    torch.testing.assert_close(region_mean(shares, queries[:, None])[:, 0, 0], chance, equal_nan=True)
    assert source_chance(sources(n, 10), torch.zeros(1, n, dtype=torch.bool)).isnan().all()


def test_attention_between_equals_loops():
    a = random_attention(2, 3, 12)
    generator = torch.Generator().manual_seed(1)
    queries, keys = torch.rand(2, 4, 12, generator=generator), torch.rand(2, 4, 12, generator=generator)
    measured = attention_between(a, queries, keys)
    for b, h in np.ndindex(2, 3):
        expected = sum((queries[b, f, q] * a[b, h, q, k] * keys[b, f, k]).item() for f, q, k in np.ndindex(4, 12, 12))
        assert measured[b, h].item() == pytest.approx(expected, rel=1e-5)


# --- what a head moves -------------------------------------------------------------------------------------------


def random_values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_norms_and_weighted_shares_equal_what_they_stand_for():
    """Kobayashi's f(x_j) made in full, in float64, and its norms query by query."""
    n, first, d_head, d_model = 16, 10, 4, 12
    a, source = random_attention(3, 2, n), sources(n, 8, 5, 0)
    value, weight = random_values(3, 2, n, d_head), random_values(2, d_head, d_model)
    gram = weight @ weight.transpose(1, 2)
    f = torch.einsum("bhkd,hdm->bhkm", value.double(), weight.double())  # [batch, head, key, d_model]
    norms = moved_norms(value, gram)
    torch.testing.assert_close(norms, f.norm(dim=-1).float())
    share = norm_weighted_share(a[:, :, first:], norms, source)
    for b, h, i in np.ndindex(2, 2, n - first):
        w = [a[b, h, first + i, k].item() * f[b, h, k].norm().item() for k in range(n)]
        expected = sum(w[k] for k in range(n) if source[b, k]) / sum(w)
        assert share[b, h, i].item() == pytest.approx(expected, rel=1e-5)
    assert share[2].isnan().all()
    written = torch.einsum("bhqk,bhkm->bhqm", a.double(), f).norm(dim=-1)
    torch.testing.assert_close(moved_norms(a @ value, gram), written.float(), rtol=1e-4, atol=1e-5)


def test_where_all_values_are_of_one_length_the_norm_weighs_nothing():
    n, d = 20, 6
    a, source = random_attention(2, 2, n), sources(n, 9, 15)
    value = torch.nn.functional.normalize(random_values(2, 2, n, d), dim=-1)
    orthogonal = torch.linalg.qr(random_values(2, d, d)).Q
    norms = moved_norms(value, orthogonal @ orthogonal.transpose(1, 2))
    torch.testing.assert_close(norms, torch.ones(2, 2, n))
    torch.testing.assert_close(norm_weighted_share(a, norms, source), source_shares(a, source)["attn_source"])


def test_a_value_that_moves_nothing_weighs_nothing():
    """The sink: attention without a value vector. This is why the norm is there at all."""
    n = 10
    a, source = random_attention(1, 1, n), sources(n, n)
    value = random_values(1, 1, n, 3)
    value[:, :, 0] = 0
    share = norm_weighted_share(a[:, :, 1:], moved_norms(value, torch.eye(3)[None]), source)
    torch.testing.assert_close(share, torch.ones(1, 1, n - 1))


# --- against the base model --------------------------------------------------------------------------------------


def test_kl_of_known_distributions():
    half, quarter = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert kl_bits(half, quarter).item() == pytest.approx(0.5 * 1 + 0.5 * math.log2(2 / 3), abs=1e-6)
    assert kl_bits(quarter, half).item() == pytest.approx(0.25 * -1 + 0.75 * math.log2(1.5), abs=1e-6)
    assert kl_bits(half, half) == 0
    one = torch.tensor([0.0, -torch.inf])  # all on the first key
    assert kl_bits(one, half).item() == pytest.approx(1) and kl_bits(one, one) == 0
    assert kl_bits(half, one) == torch.inf
    assert kl_bits(torch.tensor([0.0, -200.0]), one) == 0  # exp(-200) is 0 in float32
    assert kl_bits(torch.full((2,), torch.nan), half).isnan() and kl_bits(half, torch.full((2,), torch.nan)).isnan()


def test_kl_equals_scipy_and_is_never_negative():
    from scipy.stats import entropy

    generator = torch.Generator().manual_seed(0)
    scores = 5 * torch.randn(2, 200, 30, generator=generator)
    scores[..., 20:] = -torch.inf  # keys that no query sees
    log_a, log_a0 = scores.log_softmax(-1)
    expected = entropy(log_a.double().exp(), log_a0.double().exp(), base=2, axis=-1)
    np.testing.assert_allclose(kl_bits(log_a, log_a0), expected, rtol=1e-4)
    nearly = (scores[0] + 1e-6 * torch.randn(200, 30, generator=generator)).log_softmax(-1)
    assert (kl_bits(nearly, log_a) >= 0).all() and kl_bits(nearly, log_a).max() < 1e-5


# --- repeated random tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 5, 64])
def test_stripes_equal_loops_whatever_the_blocks(block):
    period = 9
    n = 2 * period + 1
    a = random_attention(2, 3, n)
    total = dict.fromkeys(STRIPES, 0)
    for first in range(0, n, block):
        sums = stripe_sums(a[:, :, first : first + block, : first + block], first, period)
        total = {name: total[name] + sums[name] for name in STRIPES}
    for b, h in np.ndindex(2, 3):
        for name, back in (("prev_token", 1), ("duplicate", period), ("induction", period - 1)):
            expected = sum(a[b, h, q, q - back].item() for q in range(period + 1, n))
            assert total[name][b, h].item() == pytest.approx(expected, rel=1e-5), name


def test_planted_heads_score_one():
    """A head that looks for the token after the earlier copy of its own, and its two simpler relatives."""
    period = 7
    tokens = [0, *range(1, period + 1), *range(1, period + 1)]  # [BOS, r, r]
    n = len(tokens)
    heads = torch.zeros(3, n, n)
    for q in range(n):
        earlier = [k for k in range(q) if tokens[k] == tokens[q]]
        heads[0, q, max(q - 1, 0)] = 1
        heads[1, q, earlier[0] if earlier else 0] = 1
        heads[2, q, earlier[0] + 1 if earlier else 0] = 1
    sums = stripe_sums(heads[None], 0, period)
    for h, name in enumerate(STRIPES):
        scores = sums[name][0] / period
        assert scores[h] == 1
        assert scores.sum() == 1  # and the others nothing: no token comes twice in one reading
