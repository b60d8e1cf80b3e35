"""What restorations share: the texts, batch by batch, and the loss when a head's output is another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate
from gpt2_interp.inside.interventions import (
    Reading,
    states_after,
)
from gpt2_interp.inside.losses import (
    kind_means,
    queries,
    query_members,
    token_nll,
)
from gpt2_interp.inside.observation import PAD_ID
from gpt2_interp.inside.restored_numbers import RESTORABLE, HeadRows, places, restored_outputs
from gpt2_interp.probes.probe_set import GoldFact
from gpt2_interp.snapshots.table import RESTORED

StatesAt = Callable[[Tensor, Tensor], Tensor]  # (row, position), each [queries] -> [queries, d_model] after ln_f


@dataclass(frozen=True)
class Texts:
    """What is read. kinds: for each example [n_target, kind] bool, which of its target tokens are of which kind; gold:
    its known answers."""

    examples: Sequence[Example]
    kinds: Sequence[np.ndarray]
    gold: Sequence[Sequence[GoldFact]]

    @property
    def n_kind(self) -> int:
        return self.kinds[0].shape[1]


class Batch:
    """One batch of texts: what a model reads in it, and what its losses are."""

    def __init__(self, gpt2: GPT2LMHeadModel, texts: Texts, rows: Sequence[int], max_tokens: int):
        self.gpt2, self.rows, self.max_tokens = gpt2, list(rows), max_tokens
        self.examples = [texts.examples[i] for i in rows]
        batch = {name: t.to(gpt2.device) for name, t in collate(self.examples, PAD_ID).items()}
        self.ids, self.labels = batch["input_ids"], batch["labels"]
        gold = [texts.gold[i] for i in rows] if texts.gold else []
        self.places = places(self.examples, gold, gpt2.device)
        self.kinds = [texts.kinds[i] for i in rows]

    def losses(self, final: StatesAt, which: Tensor) -> Tensor:
        """Return [row, kind], mean NLL of each kind of token; which: [row], the example of each row."""
        row, position, wanted = queries(self.labels[which])
        chosen = which.tolist()
        members = query_members([self.examples[i] for i in chosen], [self.kinds[i] for i in chosen])
        nll = token_nll(self.gpt2, final(row, position), wanted)
        return kind_means(nll, row, len(which), members.to(nll.device))

    def reading_losses(self, final: Tensor) -> Tensor:
        """Return [example, kind] of states [example, seq, d_model] after ln_f."""
        every = torch.arange(len(self.examples), device=final.device)
        return self.losses(lambda row, position: final[row, position], every)

    def losses_with(self, reading: Reading, layer: int, heads: Sequence[int], z: Tensor, bar) -> Tensor:
        """Return [example, one of `heads`, kind], the losses with each head's output changed, one at a time.

        z: [example, one of `heads`, query, d_head], what the heads put out at the last positions of the sequence.
        """
        n, first = len(self.examples), self.ids.shape[1] - z.shape[2]
        which = torch.arange(n, device=z.device).repeat_interleave(len(heads))
        index = torch.arange(len(heads), device=z.device).repeat(n)
        head = torch.tensor(list(heads), device=z.device)[index]
        losses = []
        # Where only the end of the sequences is computed, more of them fit.
        for chunk in torch.arange(len(which), device=z.device).split(max(1, self.max_tokens // z.shape[2])):
            w = which[chunk]
            changed = reading.z[layer][w, first:].unflatten(-1, (reading.n_head, -1))  # a copy
            changed[torch.arange(len(w), device=z.device), :, head[chunk]] = z[w, index[chunk]].to(changed.dtype)
            losses.append(self.losses(_after(self.gpt2, reading, layer, w, changed.flatten(-2)), w))
            bar.update(len(w))
        return torch.cat(losses).unflatten(0, (n, len(heads)))


def _after(gpt2: GPT2LMHeadModel, reading: Reading, layer: int, which: Tensor, z: Tensor) -> StatesAt:
    return lambda row, position: states_after(gpt2, reading, layer, which, z, (row, position))


def by_layer(heads: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Yield (layer, its heads) of those that are True in [layer, head], layers without any left out."""
    for layer, chosen in enumerate(heads):
        if chosen.any():
            yield layer, np.flatnonzero(chosen).tolist()


def with_pattern(reading: Reading, pattern: Tensor, layer: int, heads: list[int]) -> Tensor:
    """Return what some heads put out with another pattern [example, head, query, key], [example, one of `heads`, query,
    d_head]."""
    values = reading.values(layer)[:, heads]
    return pattern[:, heads].to(values.dtype) @ values


def numbers_of(rows: HeadRows) -> dict[str, Tensor]:
    """Return what each of RESTORED is at each query, [example, head, query]."""
    return {name: restorable.number(rows) for name, restorable in RESTORABLE.items()}


def restored_losses(
    batch: Batch,
    reading: Reading,
    layer: int,
    rows: HeadRows,
    numbers: Mapping[str, Tensor],
    units: np.ndarray,
    bar,
) -> Iterator[tuple[int, list[int], Tensor]]:
    """Yield (index in RESTORED, heads, losses [example, head, kind]) with the measure's numbers put back, NaN for an
    example in which no query has the number; units: [restored, head] bool."""
    for m, name in enumerate(RESTORED):
        heads = np.flatnonzero(units[m]).tolist()
        if heads:
            number = numbers[name][:, heads]
            known = (number.isfinite() & rows.places.queries[:, None]).any(dim=-1, keepdim=True)  # [example, head, 1]
            losses = batch.losses_with(reading, layer, heads, restored_outputs(name, rows.of(heads), number), bar)
            yield m, heads, losses.masked_fill(~known, torch.nan)


def repeated_texts(sequences: Sequence[Sequence[int]]) -> Texts:
    """Return sequences [BOS, r_1..r_T, r_1..r_T] as texts whose target is what can be copied: r_2..r_T, read again."""
    middle = (len(sequences[0]) - 1) // 2 + 2
    examples = [Example("", "", tuple(one[:middle]), (), tuple(one[middle:])) for one in sequences]
    return Texts(examples, [np.ones((len(e.target_ids), 1), bool) for e in examples], ())
