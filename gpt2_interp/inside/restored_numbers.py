"""The measured numbers of heads, query by query, and the heads' outputs with a number given another value.

A measure of attention is a mean over queries. Here it is restored at each query of region Q: the row of attention
becomes the nearest one (`measures/projections.py`) in which the number is what it is to be, and the values stay. What
is restored where a measure is no plain share or mean of a row:

attn_gold_lift, a ratio of sums over queries: the share of a query's attention to the source that goes to its gold
tokens, which the lift divides by chance. attn_source_normw: the share of a_ij ||f(x_j)||, by way of a_ij alone.
head_write: the output as a whole, made longer or shorter.

A query keeps its output where no row of attention has the number, or where the number is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gpt2_interp.data.examples import Example
from gpt2_interp.inside.interventions import Reading
from gpt2_interp.measures.attention import moved_norms, norm_weighted_share, query_measures, source_shares
from gpt2_interp.measures.projections import with_entropy, with_mean, with_share
from gpt2_interp.probes.probe_set import GoldFact
from gpt2_interp.probes.regions import region_spans, source_masks, span_masks
from gpt2_interp.snapshots.table import RESTORED


@dataclass(frozen=True)
class Places:
    """Where a batch of examples has its queries and keys.

    first: the first position of region Q in any example. queries: [batch, query] bool, region Q, from `first` on;
    source: [batch, key] bool; gold: [batch, query, key] bool, the tokens of the value that a query predicts a token of.
    """

    first: int
    queries: Tensor
    source: Tensor
    gold: Tensor


def places(examples: Sequence[Example], gold: Sequence[Sequence[GoldFact]], device: torch.device) -> Places:
    """Return where the examples have their queries; gold: the known answers of each, or nothing."""
    length = max(len(e.input_ids) for e in examples)
    spans = [region_spans(example) for example in examples]
    first = min((q[0] for q, _ in spans if q[1] > q[0]), default=0)
    marked = torch.zeros(len(examples), length, length, dtype=torch.bool)
    for b, facts in enumerate(gold):
        for fact in facts:
            keys = [k for k in fact.value if 1 <= k < len(examples[b].source_ids)]
            for query in fact.queries:
                marked[b, query, keys] = True
    queries = span_masks(spans, length)[:, 0, first:]
    masks = (queries, source_masks(examples, length), marked[:, first:])
    return Places(first, *(mask.to(device) for mask in masks))


@dataclass(frozen=True)
class HeadRows:
    """Some heads of one layer at the positions from places.first on.

    a: [batch, head, query, key]; values: [batch, head, key, d_head]; z: [batch, head, query, d_head], the output; gram:
    [head, d_head, d_head] of `output_grams`; residual: [batch, query], norm of the stream that the layer reads.
    """

    places: Places
    a: Tensor
    values: Tensor
    z: Tensor
    gram: Tensor
    residual: Tensor

    def of(self, heads: Sequence[int]) -> HeadRows:
        """Return those heads alone."""
        heads = list(heads)
        return replace(
            self, a=self.a[:, heads], values=self.values[:, heads], z=self.z[:, heads], gram=self.gram[heads]
        )

    @cached_property
    def norms(self) -> Tensor:
        """Norms of what each key would add to the stream, [batch, head, key]."""
        return moved_norms(self.values, self.gram)


def head_rows(reading: Reading, layer: int, where: Places, gram: Tensor) -> HeadRows:
    """Return all heads of a layer; gram: [head, d_head, d_head]."""
    first = where.first
    residual = torch.linalg.vector_norm(reading.entries[layer][:, first:].float(), dim=-1)
    pattern, outputs = reading.pattern(layer, first), reading.outputs(layer, first)
    return HeadRows(where, pattern, reading.values(layer), outputs, gram, residual)


class Restorable(NamedTuple):
    """number: what a measure is at each query, [batch, head, query]. restored: the rows [row, head, key] with another
    number [row, head], where `at` says which queries of which examples they are; None for head_write."""

    number: Callable[[HeadRows], Tensor]
    pattern: Callable[[HeadRows, At, Tensor], Tensor] | None


class At(NamedTuple):
    """Chosen queries of a batch. example, query: indices [row]; a: [row, head, key]; i: their positions [row, 1, 1]."""

    example: Tensor
    query: Tensor
    a: Tensor
    i: Tensor

    @property
    def others(self) -> Tensor:
        """All keys but the first, [1, 1, key] bool."""
        return (torch.arange(self.a.shape[-1], device=self.a.device) > 0)[None, None]


def _of_row(name: str) -> Callable[[HeadRows], Tensor]:
    return lambda rows: query_measures(rows.a, rows.places.first, {name})[name]


def _gold_share(rows: HeadRows) -> Tensor:
    gold = (rows.a * rows.places.gold[:, None]).sum(-1)
    source = (rows.a * rows.places.source[:, None, None]).sum(-1)
    return (gold / source).masked_fill(~rows.places.gold.any(-1)[:, None], torch.nan)


def _sink(rows: HeadRows, at: At, number: Tensor) -> Tensor:
    return with_share(at.a, ~at.others, number)


def _source(rows: HeadRows, at: At, number: Tensor) -> Tensor:
    return with_share(at.a, rows.places.source[at.example][:, None], number, at.others)


def _gold(rows: HeadRows, at: At, number: Tensor) -> Tensor:
    gold, source = rows.places.gold[at.example, at.query], rows.places.source[at.example]
    return with_share(at.a, gold[:, None], number, source[:, None])


def _distance(rows: HeadRows, at: At, number: Tensor) -> Tensor:
    j = torch.arange(at.a.shape[-1], device=at.a.device)
    return with_mean(at.a, (at.i - j) / ((at.i - 1) / 2), number, at.others)


def _entropy(rows: HeadRows, at: At, number: Tensor) -> Tensor:
    return with_entropy(at.a, number * at.i[..., 0].log(), at.others)


def _norm_weighted(rows: HeadRows, at: At, number: Tensor) -> Tensor:
    """sum_S w / sum w = number just where the mean of ||f(x_j)|| (1_S - number) is 0."""
    source = rows.places.source[at.example][:, None].float()
    return with_mean(at.a, rows.norms[at.example] * (source - number[..., None]), torch.zeros_like(number))


def _write(rows: HeadRows) -> Tensor:
    return moved_norms(rows.z, rows.gram) / rows.residual[:, None]


RESTORABLE: dict[str, Restorable] = {
    "attn_sink": Restorable(_of_row("attn_sink"), _sink),
    "attn_source_ns": Restorable(
        lambda rows: source_shares(rows.a, rows.places.source)["attn_source_ns"],
        _source,
    ),
    "attn_gold_lift": Restorable(_gold_share, _gold),
    "attn_distance_ns": Restorable(_of_row("attn_distance_ns"), _distance),
    "attn_entropy_norm_ns": Restorable(_of_row("attn_entropy_norm_ns"), _entropy),
    "attn_source_normw": Restorable(
        lambda rows: norm_weighted_share(rows.a, rows.norms, rows.places.source),
        _norm_weighted,
    ),
    "head_write": Restorable(_write, None),
}
assert tuple(RESTORABLE) == RESTORED


def restored_outputs(name: str, rows: HeadRows, number: Tensor) -> Tensor:
    """Return z [batch, head, query, d_head] of heads whose measure `name` is `number` [batch, head, query] at each
    query of region Q."""
    if RESTORABLE[name].pattern is None:
        factor = number / RESTORABLE[name].number(rows)
        known = factor.isfinite() & rows.places.queries[:, None]
        return rows.z * torch.where(known, factor, 1)[..., None].to(rows.z.dtype)
    example, query = (rows.places.queries & number.isfinite().any(dim=1)).nonzero(as_tuple=True)
    i = (rows.places.first + query).to(rows.a)[:, None, None]
    at = At(example, query, rows.a[example, :, query], i)
    pattern = RESTORABLE[name].pattern(rows, at, number[example, :, query])  # [row, head, key]
    known = ~pattern.isnan().any(-1, keepdim=True)  # [row, head, 1]
    a, is_new = rows.a.clone(), torch.zeros_like(rows.a[..., :1], dtype=torch.bool)
    a[example, :, query] = torch.where(known, pattern.to(a), at.a)
    is_new[example, :, query] = known
    return torch.where(is_new, a.to(rows.values.dtype) @ rows.values, rows.z)
