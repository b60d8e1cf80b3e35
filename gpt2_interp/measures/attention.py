"""Statistics of attention after softmax: how widely a head looks, how far back, how much of it at the source.

A query i sees m = i + 1 keys. Rows are renormalised in float32, so that a half-precision softmax sums to 1. "ns" is
without the sink: keys 1..i, renormalised. What a query cannot have (Gini of one key, distance without any key but the
first, a share of a source that is not there) is NaN and is left out of the mean.

Each function takes a block of queries, a: [batch, head, query, key] with keys 0, 1, ... up to the last one that any of
these queries can see, so that never a whole map is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

QUERY_BLOCK = 64  # queries handled together: later keys are invisible to all of them, which saves a third of the work
ENTROPIES = ("attn_entropy", "attn_entropy_norm", "attn_entropy_norm_ns")
QUERY_MEASURES = (*ENTROPIES, "attn_gini", "attn_distance_ns", "attn_sink")
STRIPES = ("prev_token", "duplicate", "induction")


def region_mean(values: Tensor, regions: Tensor) -> Tensor:
    """Mean over a region's queries, those with NaN left out.

    values: [..., batch, head, query]; regions: [batch, region, query] bool. Returns [..., batch, region, head], NaN
    where nothing is left.
    """
    defined = ~values.isnan()
    weights = regions.float().transpose(1, 2)  # [batch, query, region]
    total = values.nan_to_num(nan=0.0) @ weights  # [..., batch, head, region]
    return (total / (defined.float() @ weights)).transpose(-1, -2)


# --- the shape of a row ------------------------------------------------------------------------------------------


def query_measures(a: Tensor, first: int = 0, wanted: Collection[str] = QUERY_MEASURES) -> dict[str, Tensor]:
    """Those of QUERY_MEASURES that are `wanted`, of the queries first, first + 1, ...; each [batch, head, query]."""
    a = a.float().contiguous()
    n_query, n_key = a.shape[-2:]
    i = torch.arange(first, first + n_query, device=a.device, dtype=torch.float32)  # [query]
    j = torch.arange(n_key, device=a.device, dtype=torch.float32)  # [key]
    # One product for three sums over keys: all of a, a on keys 1..i, a times the key's position.
    total, other, moment = (a @ torch.stack([torch.ones_like(j), (j > 0).float(), j], dim=1)).unbind(-1)
    values = _entropies(a, i, total, other) if not set(wanted).isdisjoint(ENTROPIES) else {}
    if "attn_gini" in wanted:
        values["attn_gini"] = _gini(a, i, total)
    # sum_j a'_ij (i - j) over keys 1..i, in units of its value under uniform attention, (i - 1) / 2
    distance = (i - moment / other) / ((i - 1) / 2)
    values["attn_distance_ns"] = distance.masked_fill(i < 2, torch.nan)
    values["attn_sink"] = (a[..., 0] / total).masked_fill(i < 1, torch.nan)
    return {name: values[name] for name in QUERY_MEASURES if name in wanted}


def _entropies(a: Tensor, i: Tensor, total: Tensor, other: Tensor) -> dict[str, Tensor]:
    """ENTROPIES, each [batch, head, query], from one logarithm of `a` (float32).

    With s = sum a: -sum (a/s) log2 (a/s) = log2 s - (sum a log2 a) / s, over all keys or all but the first.
    """
    # 0 log 0 = 0: the clamp lies below any weight that counts, and keeps denormals (slow) away from the logarithm.
    terms = a.clamp_min(torch.finfo(torch.float32).tiny).log2_().mul_(a)
    sum_of_all = terms.sum(-1)
    # No term is positive, so that taking the first one off again cancels nothing.
    entropy = (total.log2() - sum_of_all / total).clamp_min(0)
    without_sink = (other.log2() - (sum_of_all - terms[..., 0]) / other).clamp_min(0)
    return {
        "attn_entropy": entropy,
        "attn_entropy_norm": (entropy / (i + 1).log2()).masked_fill(i < 1, torch.nan),
        "attn_entropy_norm_ns": (without_sink / i.log2()).masked_fill(i < 2, torch.nan),
    }


def _gini(a: Tensor, i: Tensor, total: Tensor) -> Tensor:
    n_key, m = a.shape[-1], i + 1
    # Invisible keys are zeros and sort to the front; m - k + 1/2 counts from the back, so it stays the same.
    from_back = n_key - 0.5 - torch.arange(n_key, device=a.device, dtype=torch.float32)
    gini = (1 - 2 * (_sorted(a) @ from_back) / (total * m)) * m / (m - 1)
    return gini.masked_fill(i < 1, torch.nan)


def _sorted(a: Tensor) -> Tensor:
    """Return `a` (float32, contiguous, not negative) with every row ascending."""
    if a.device.type != "cpu":
        return a.sort(dim=-1).values
    # numpy sorts integers with vector instructions, 15 times faster than torch sorts floats on a CPU; the bits of
    # floats that are not negative have, read as integers, the same order.
    return torch.from_numpy(np.sort(a.numpy().view(np.int32), axis=-1).view(np.float32))


# --- attention to the source -------------------------------------------------------------------------------------


def source_shares(a: Tensor, source: Tensor) -> dict[str, Tensor]:
    """attn_source and attn_source_ns of each query, [batch, head, query]; NaN for an example without a source.

    source: [batch, seq] bool, position 0 never in it, at least as long as a's keys.
    """
    keys = source[:, : a.shape[-1]].float()
    ones = torch.ones_like(keys)
    other = ones.clone()
    other[:, 0] = 0
    columns = torch.stack([keys, ones, other], dim=-1)[:, None]  # [batch, 1, key, 3]
    to_source, total, to_other = (a.float() @ columns).unbind(-1)
    missing = ~source.any(dim=-1)[:, None, None]
    return {
        "attn_source": (to_source / total).masked_fill(missing, torch.nan),
        "attn_source_ns": (to_source / to_other).masked_fill(missing, torch.nan),
    }


def source_chance(source: Tensor, queries: Tensor) -> Tensor:
    """attn_source_chance, [batch]: mean over the queries i of n_S / i, what uniform attention over keys 1..i gives.

    source, queries: [batch, seq] bool. NaN without a source or a query.
    """
    i = torch.arange(queries.shape[-1], device=queries.device, dtype=torch.float32)
    n_source = source.sum(dim=-1)
    share = torch.where(queries & (i > 0), n_source[:, None] / i, torch.nan).nanmean(dim=-1)
    return share.masked_fill(n_source == 0, torch.nan)


def attention_between(a: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Sum over facts f, their queries q and all keys k of queries[f, q] a[q, k] keys[f, k]: [batch, head].

    queries: [batch, fact, query]; keys: [batch, fact, key]; both weights, float32. Ratios of two such sums are the
    lifts of attention to gold tokens.
    """
    by_fact = a.float() @ keys.transpose(1, 2)[:, None]  # [batch, head, query, fact]
    return (by_fact * queries.transpose(1, 2)[:, None]).sum(dim=(-1, -2))


# --- what a head moves -------------------------------------------------------------------------------------------


def moved_norms(vectors: Tensor, gram: Tensor) -> Tensor:
    """||v W_O||, [batch, head, pos], without making v W_O: sqrt(v (W_O W_O') v').

    vectors: [batch, head, pos, d_head], values or sums of them; gram: [head, d_head, d_head], each head's W_O W_O'.
    With v_j = ln_1(x_j) W_V + b_V, as GPT-2 computes it, this is ||f(x_j)|| of Kobayashi et al. 2020 (c_proj's bias,
    which belongs to no head, left out).
    """
    vectors = vectors.float()
    return ((vectors @ gram) * vectors).sum(dim=-1).clamp_min(0).sqrt()


def norm_weighted_share(a: Tensor, norms: Tensor, source: Tensor) -> Tensor:
    """attn_source_normw of each query, [batch, head, query]: the source's share of w_ij = a_ij ||f(x_j)||.

    norms: [batch, head, seq] from `moved_norms`; source: [batch, seq] bool. NaN for an example without a source.
    """
    n_key = a.shape[-1]
    norms, keys = norms[..., :n_key], source[:, None, :n_key]
    to_source, total = (a.float() @ torch.stack([norms * keys, norms], dim=-1)).unbind(-1)
    return (to_source / total).masked_fill(~source.any(dim=-1)[:, None, None], torch.nan)


# --- against the base model --------------------------------------------------------------------------------------


def kl_bits(log_a: Tensor, log_a0: Tensor) -> Tensor:
    """Kullback-Leibler divergence in bits of exp(log_a) from exp(log_a0), [..., key] -> [...].

    Natural logarithms of two distributions, -inf for probability 0. Where a = 0 nothing is added, and rounding below 0
    is cut off.
    """
    a = log_a.exp()
    difference = torch.where(a > 0, log_a - log_a0, 0.0)
    return ((a * difference).sum(dim=-1) / math.log(2)).clamp_min(0)


# --- repeated random tokens --------------------------------------------------------------------------------------


def stripe_sums(a: Tensor, first: int, period: int) -> dict[str, Tensor]:
    """Sums of STRIPES over this block's queries of the second reading, each [batch, head].

    The sequence is [BOS, r_1..r_T, r_1..r_T], period = T. For a query q = T+1..2T of the second reading, q - 1 is the
    token before it, q - T itself in the first reading and q - T + 1 what came next there (Olsson et al. 2022). Divided
    by T, the sums over all blocks are the means.
    """
    start, stop = max(first, period + 1), min(first + a.shape[2], 2 * period + 1)
    q = torch.arange(start, max(start, stop), device=a.device)
    keys = {"prev_token": q - 1, "duplicate": q - period, "induction": q - period + 1}
    return {name: a[:, :, q - first, key].float().sum(dim=-1) for name, key in keys.items()}
