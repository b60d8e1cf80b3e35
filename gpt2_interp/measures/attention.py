"""How a head spreads its attention: entropy, Gini, distance and sink, from attention after softmax.

A query i sees m = i + 1 keys. Rows are renormalised in float32, so that a half-precision softmax sums to 1. What a
query cannot have (Gini of one key, distance without any key but the first) is NaN and is left out of the mean.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

QUERY_BLOCK = 64  # queries handled together: later keys are invisible to all of them, which saves a third of the work


def attention_measures(a: Tensor, regions: Tensor) -> dict[str, Tensor]:
    """Mean over each region's queries of attn_entropy, attn_gini, attn_distance_ns and attn_sink.

    a: [batch, head, query, key], causal, as many queries as keys, not negative.
    regions: [batch, region, query] bool. Returns each [batch, region, head], NaN for an empty region.
    """
    n = a.shape[-1]
    assert a.shape[-2] == n, "causal attention of a whole sequence has as many queries as keys"
    blocks = [query_measures(a[:, :, i : i + QUERY_BLOCK, : i + QUERY_BLOCK], i) for i in range(0, n, QUERY_BLOCK)]
    return {name: region_mean(torch.cat([block[name] for block in blocks], -1), regions) for name in blocks[0]}


def query_measures(a: Tensor, first: int = 0) -> dict[str, Tensor]:
    """The four measures of the queries first, first + 1, ...; each [batch, head, query].

    a: [batch, head, query, key] with keys 0, 1, ... up to the last one that any of these queries can see.
    """
    a = a.float().contiguous()
    n_query, n_key = a.shape[-2:]
    i = torch.arange(first, first + n_query, device=a.device, dtype=torch.float32)  # [query]
    j = torch.arange(n_key, device=a.device, dtype=torch.float32)  # [key]
    m = i + 1
    # One product for three sums over keys: all of a, a on keys 1..i, a times the key's position.
    total, other, moment = (a @ torch.stack([torch.ones_like(j), (j > 0).float(), j], dim=1)).unbind(-1)
    # sum_j a'_ij (i - j) over keys 1..i, in units of its value under uniform attention, (i - 1) / 2
    distance = (i - moment / other) / ((i - 1) / 2)
    # 0 log 0 = 0: the clamp lies far below any weight that matters, and keeps denormals (slow) away.
    entropy = total.log2() - a.clamp_min(1e-30).log2_().mul_(a).sum(-1) / total
    # Invisible keys are zeros and sort to the front; m - k + 1/2 counts from the back, so it stays the same.
    from_back = n_key - j - 0.5
    gini = (1 - 2 * (_sorted(a) @ from_back) / (total * m)) * m / (m - 1)
    return {
        "attn_entropy": entropy.clamp_min(0),
        "attn_gini": gini.masked_fill(i < 1, torch.nan),
        "attn_distance_ns": distance.masked_fill(i < 2, torch.nan),
        "attn_sink": (a[..., 0] / total).masked_fill(i < 1, torch.nan),
    }


def _sorted(a: Tensor) -> Tensor:
    """`a` (float32, contiguous, not negative) with every row ascending."""
    if a.device.type != "cpu":
        return a.sort(dim=-1).values
    # numpy sorts integers with vector instructions, 15 times faster than torch sorts floats on a CPU; the bits of
    # floats that are not negative have, read as integers, the same order.
    return torch.from_numpy(np.sort(a.numpy().view(np.int32), axis=-1).view(np.float32))


def region_mean(values: Tensor, regions: Tensor) -> Tensor:
    """Mean over a region's queries, those with NaN left out.

    values: [batch, head, query]; regions: [batch, region, query] bool. Returns [batch, region, head], NaN where
    nothing is left.
    """
    defined = ~values.isnan()
    weights = regions.float().transpose(1, 2)  # [batch, query, region]
    total = values.nan_to_num(nan=0.0) @ weights  # [batch, head, region]
    return (total / (defined.float() @ weights)).transpose(1, 2)
