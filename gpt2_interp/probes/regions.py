"""Positions of a probe `source | template | target` over which a measure is taken, also as masks for a padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt2_interp.data.examples import Example
from gpt2_interp.snapshots.table import REGIONS

FIRST_A = 8  # region A begins here: earlier queries have too few keys to compare heads by


def region_spans(example: Example) -> list[tuple[int, int]]:
    """Return (start, stop) of regions Q and A. Q: positions that predict a target token; A: positions from FIRST_A
    on."""
    n, n_prompt = len(example.input_ids), len(example.prompt_ids)
    start = max(n_prompt - 1, 0)  # position t predicts token t + 1; nothing predicts token 0
    return [(start, max(n - 1, start)) if example.target_ids else (0, 0), (min(FIRST_A, n), n)]


def span_masks(spans: Sequence[Sequence[tuple[int, int]]], length: int) -> Tensor:
    """Return [batch, region, seq] bool from (start, stop) of each example's regions."""
    start, stop = torch.tensor(spans).unbind(-1)  # each [batch, region]
    position = torch.arange(length)
    return (position >= start[..., None]) & (position < stop[..., None])


def source_masks(examples: Sequence[Example], length: int) -> Tensor:
    """Return S as [batch, seq] bool: the source tokens without position 0, where heads leave attention they don't need.

    A row without any where the source is empty or one token long.
    """
    n_source = torch.tensor([len(example.source_ids) for example in examples])[:, None]
    position = torch.arange(length)
    return (position >= 1) & (position < n_source)


def pooling_weights(examples: Sequence[Example], regions: Tensor) -> Tensor:
    """Return [batch, pooling, seq], weights that average hidden states; a row of NaN where an example lacks the
    pooling.

    regions: [batch, region, seq] bool. source_mean: S; target_mean: region Q; prompt_last: one position.
    """
    length = regions.shape[-1]
    last = torch.tensor([len(example.prompt_ids) - 1 for example in examples])[:, None]
    source, prompt = source_masks(examples, length), torch.arange(length) == last
    masks = torch.stack([source.to(regions.device), regions[:, REGIONS.index("Q")], prompt.to(regions.device)], dim=1)
    return masks.float() / masks.sum(dim=-1, keepdim=True)
