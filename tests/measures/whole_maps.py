"""Attention measures of whole maps [query, key], as no snapshot ever has them in memory."""

import torch
from torch import Tensor

from gpt2_interp.measures.attention import QUERY_BLOCK, query_measures, region_mean


def attention_measures(a: Tensor, regions: Tensor) -> dict[str, Tensor]:
    """Mean over each region's queries of every one of QUERY_MEASURES.

    a: [batch, head, query, key], causal, as many queries as keys, not negative.
    regions: [batch, region, query] bool. Returns each [batch, region, head], NaN for an empty region.
    """
    n = a.shape[-1]
    assert a.shape[-2] == n, "causal attention of a whole sequence has as many queries as keys"
    blocks = [query_measures(a[:, :, i : i + QUERY_BLOCK, : i + QUERY_BLOCK], i) for i in range(0, n, QUERY_BLOCK)]
    return {name: region_mean(torch.cat([block[name] for block in blocks], -1), regions) for name in blocks[0]}
