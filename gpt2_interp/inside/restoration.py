"""Causes by restoration: what becomes of the loss when a part of a head's change is undone, or done to the base.

f_t is the tuned model, f_0 the base, both read the same text; A and V are pattern and values of one head, z = A V. Each
effect is a difference of mean NLL of target tokens, in nats per token and by kind of token. Positive: the change helps.

needed, in the tuned model: L(f_t, restored) - L(f_t). enough, in the base: L(f_0) - L(f_0, changed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate
from gpt2_interp.inside.ablation import batches_of
from gpt2_interp.inside.attention_observer import output_grams
from gpt2_interp.inside.interventions import (
    Reading,
    attention_pattern,
    heads_changed,
    read,
    split_heads,
    states_after,
)
from gpt2_interp.inside.losses import (
    final_states,
    has_loss,
    kind_means,
    queries,
    query_members,
    token_forwards,
    token_nll,
    undisturbed,
)
from gpt2_interp.inside.observation import PAD_ID
from gpt2_interp.inside.restored_numbers import RESTORABLE, HeadRows, head_rows, places, restored_outputs
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import GoldFact
from gpt2_interp.snapshots.table import RESTORED

WAYS = ("needed", "enough")
PARTS = (  # of a head, exchanged at every position, by the name of their array
    "restore_pattern_needed",
    "restore_pattern_enough",
    "restore_value_needed",
    "restore_output_needed",
    "restore_qk_needed",
)
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


class _Batch:
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

    def effects(self, reading: Reading, layer: int, heads: Sequence[int], z: Tensor, bar) -> Tensor:
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


@dataclass(frozen=True)
class _Way:
    """One direction of restoring a batch: parts of the reading `other` are put into the reading `own`.

    grams, other_grams: of `output_grams`; weights: makes the model the one that read `own`; sign: of the effects.
    """

    name: str
    own: Reading
    other: Reading
    grams: Tensor
    other_grams: Tensor
    weights: AbstractContextManager
    sign: int


def restorations(
    gpt2: GPT2LMHeadModel,
    base: BaseWeights,
    texts: Texts,
    heads: np.ndarray,
    units: np.ndarray,
    max_tokens: int = 2048,
) -> dict[str, np.ndarray]:
    """Return what undoing parts of heads' changes does, float32, NaN where not asked for.

    heads: [layer, head] bool, of which pattern, values, output and query/key weights are restored; units: [restored,
    layer, head] bool, of which the measured number is.

    restore_pattern_needed, _enough, restore_value_needed, restore_output_needed, restore_qk_needed: [example, layer,
    head, kind]. restore_measure_needed, _enough: [example, restored, layer, head, kind].
    restore_all_patterns_needed, _enough: [example, kind], with the patterns of all heads exchanged at once.
    """
    n, n_kind = len(texts.examples), texts.n_kind
    found = {name: np.full((n, *heads.shape, n_kind), np.nan, np.float32) for name in PARTS}
    for way in WAYS:
        found[f"restore_measure_{way}"] = np.full((n, *units.shape, n_kind), np.nan, np.float32)
        found[f"restore_all_patterns_{way}"] = np.full((n, n_kind), np.nan, np.float32)
    counted = [i for i, e in enumerate(texts.examples) if has_loss(e)]
    total = len(counted) * int(len(PARTS) * heads.sum() + len(WAYS) * units.sum())
    with undisturbed(gpt2), tqdm(total=total, desc="restoring heads", unit=" heads", leave=False) as bar:
        grams = output_grams(gpt2)
        with base.replaced(gpt2):
            grams_0 = output_grams(gpt2)
        for rows in batches_of(counted, texts.examples, max_tokens):
            batch = _Batch(gpt2, texts, rows, max_tokens)
            tuned = read(gpt2, batch.ids)
            with base.replaced(gpt2):
                start = read(gpt2, batch.ids)
            needed = _Way("needed", tuned, start, grams, grams_0, nullcontext(), 1)
            enough = _Way("enough", start, tuned, grams_0, grams, base.replaced(gpt2), -1)
            patterns = _patterns_of_base_weights(gpt2, base, tuned)
            for way in (needed, enough):
                with way.weights:
                    _restore(batch, way, heads, units, patterns, found, bar)
    return found


def _restore(
    batch: _Batch,
    way: _Way,
    heads: np.ndarray,
    units: np.ndarray,
    qk_patterns: Callable[[int], Tensor],
    found: dict[str, np.ndarray],
    bar,
) -> None:
    """Put one batch's effects of one way into `found`."""
    before = batch.reading_losses(way.own.final)  # [example, kind]
    with heads_changed(batch.gpt2, lambda layer, values, z: way.other.pattern(layer).to(z.dtype) @ values):
        all_patterns = batch.reading_losses(final_states(batch.gpt2, batch.ids)) - before
    found[f"restore_all_patterns_{way.name}"][batch.rows] = (way.sign * all_patterns).cpu().numpy()
    for layer in range(len(heads)):
        chosen = np.flatnonzero(heads[layer]).tolist()
        for name, z in _parts(way, layer, qk_patterns).items() if chosen else ():
            effect = way.sign * (batch.effects(way.own, layer, chosen, z[:, chosen], bar) - before[:, None])
            found[name][np.ix_(batch.rows, [layer], chosen)] = effect[:, None].cpu().numpy()
        if units[:, layer].any():
            rows = head_rows(way.own, layer, batch.places, way.grams[layer])
            there = head_rows(way.other, layer, batch.places, way.other_grams[layer])
            for m, of_measure, effect in _measures(batch, way.own, layer, rows, _numbers(there), units[:, layer], bar):
                into = np.ix_(batch.rows, [m], [layer], of_measure)
                effect = way.sign * (effect - before[:, None])
                found[f"restore_measure_{way.name}"][into] = effect[:, None, None].cpu().numpy()


def _parts(way: _Way, layer: int, qk_patterns: Callable[[int], Tensor]) -> dict[str, Tensor]:
    """Return what all heads of a layer put out with a part exchanged, each [example, head, seq, d_head]."""
    own, other = way.own, way.other
    values = own.values(layer)
    exchanged = other.pattern(layer).to(values.dtype) @ values
    if way.name == "enough":
        return {"restore_pattern_enough": exchanged}
    return {
        "restore_pattern_needed": exchanged,
        "restore_value_needed": own.pattern(layer).to(values.dtype) @ other.values(layer),
        "restore_output_needed": other.outputs(layer),
        "restore_qk_needed": qk_patterns(layer).to(values.dtype) @ values,
    }


def _patterns_of_base_weights(gpt2: GPT2LMHeadModel, base: BaseWeights, tuned: Reading) -> Callable[[int], Tensor]:
    """Return a function: layer -> the attention [example, head, query, key] that the base's query and key weights give
    to the stream of the tuned model."""
    with base.replaced(gpt2, only=lambda name: ".attn.c_attn." in name):
        queries_keys = [
            split_heads(block.attn.c_attn(block.ln_1(entry)), tuned.n_head)[:2]
            for block, entry in zip(gpt2.transformer.h, tuned.entries, strict=True)
        ]
    return lambda layer: attention_pattern(*queries_keys[layer], tuned.scalings[layer])


def _numbers(rows: HeadRows) -> dict[str, Tensor]:
    """Return what each of RESTORED is at each query, [example, head, query]."""
    return {name: restorable.number(rows) for name, restorable in RESTORABLE.items()}


def _measures(
    batch: _Batch,
    reading: Reading,
    layer: int,
    rows: HeadRows,
    numbers: Mapping[str, Tensor],
    units: np.ndarray,
    bar,
) -> Iterator[tuple[int, list[int], Tensor]]:
    """Yield (index in RESTORED, heads, losses [example, head, kind]) with the measure's numbers put back; units:
    [restored, head] bool."""
    for m, name in enumerate(RESTORED):
        heads = np.flatnonzero(units[m]).tolist()
        if heads:
            z = restored_outputs(name, rows.of(heads), numbers[name][:, heads])
            yield m, heads, batch.effects(reading, layer, heads, z, bar)


# --- random tokens read twice ------------------------------------------------------------------------------------


def second_readings(
    gpt2: GPT2LMHeadModel,
    base: BaseWeights,
    sequences: Sequence[Sequence[int]],
    heads: np.ndarray,
    max_tokens: int = 2048,
) -> dict[str, np.ndarray]:
    """Return the loss of the second reading of [BOS, r_1..r_T, r_1..r_T], float32: what can be copied, r_2..r_T.

    second_reading_base, second_reading_tuned: [sequence]. restore_second_reading: [sequence, layer, head], the tuned
    model's with the base's pattern put back in one head, minus the tuned model's; heads: [layer, head] bool, of which.
    """
    middle = (len(sequences[0]) - 1) // 2 + 2
    examples = [Example("", "", tuple(one[:middle]), (), tuple(one[middle:])) for one in sequences]
    texts = Texts(examples, [np.ones((len(e.target_ids), 1), bool) for e in examples], [])
    n = len(examples)
    found = {name: np.full(n, np.nan, np.float32) for name in ("second_reading_base", "second_reading_tuned")}
    found["restore_second_reading"] = np.full((n, *heads.shape), np.nan, np.float32)
    counted = [i for i, e in enumerate(examples) if has_loss(e)]
    total = len(counted) * int(heads.sum())
    with undisturbed(gpt2), tqdm(total=total, desc="restoring heads on repeats", unit=" heads", leave=False) as bar:
        for rows in batches_of(counted, examples, max_tokens):
            batch = _Batch(gpt2, texts, rows, max_tokens)
            tuned = read(gpt2, batch.ids)
            with base.replaced(gpt2):
                start = read(gpt2, batch.ids)
                found["second_reading_base"][rows] = batch.reading_losses(start.final)[:, 0].cpu().numpy()
            before = batch.reading_losses(tuned.final)
            found["second_reading_tuned"][rows] = before[:, 0].cpu().numpy()
            for layer in range(len(heads)):
                chosen = np.flatnonzero(heads[layer]).tolist()
                if chosen:
                    z = start.pattern(layer)[:, chosen].to(before.dtype) @ tuned.values(layer)[:, chosen]
                    effect = batch.effects(tuned, layer, chosen, z, bar) - before[:, None]
                    found["restore_second_reading"][np.ix_(rows, [layer], chosen)] = effect[:, None, :, 0].cpu().numpy()
    return found


# --- the same in models that changed by noise --------------------------------------------------------------------


def restorations_under_noise(
    gpt2: GPT2LMHeadModel,
    base: BaseWeights,
    texts: Texts,
    units: np.ndarray,
    draws: int,
    max_tokens: int = 2048,
) -> np.ndarray:
    """Return [draw, restored, layer, head] float32: mean over the examples of `restore_measure_needed` (of all their
    tokens) where the base plus noise, as large as the real change, stands for the tuned model.

    units: [restored, layer, head] bool, of which; NaN elsewhere. The noise is that of the measures' bands.
    """
    found = np.full((draws, *units.shape), np.nan, np.float32)
    counted = [i for i, e in enumerate(texts.examples) if has_loss(e)]
    layers = np.flatnonzero(units.any(axis=(0, 2))).tolist()
    if not layers or not counted:
        return found
    norms = base.change_norms(gpt2)
    total = draws * len(counted) * int(units.sum())
    with undisturbed(gpt2), tqdm(total=total, desc="restoring heads under noise", unit=" heads", leave=False) as bar:
        batches, numbers = [], []
        with base.replaced(gpt2):
            grams = output_grams(gpt2)
            for rows in batches_of(counted, texts.examples, max_tokens):
                batches.append(_Batch(gpt2, texts, rows, max_tokens))
                start = read(gpt2, batches[-1].ids)
                there = {layer: head_rows(start, layer, batches[-1].places, grams[layer]) for layer in layers}
                numbers.append({layer: _numbers(rows) for layer, rows in there.items()})
        for seed in range(draws):
            with base.perturbed(gpt2, seed, norms):
                grams = output_grams(gpt2)
                sums = np.zeros(units.shape)
                for batch, of_batch in zip(batches, numbers, strict=True):
                    reading = read(gpt2, batch.ids)
                    before = batch.reading_losses(reading.final)[:, None, 0]
                    for layer in layers:
                        rows = head_rows(reading, layer, batch.places, grams[layer])
                        for m, heads, losses in _measures(
                            batch, reading, layer, rows, of_batch[layer], units[:, layer], bar
                        ):
                            sums[m, layer, heads] += (losses[..., 0] - before).sum(0).cpu().numpy()
            found[seed] = np.where(units, sums / len(counted), np.nan)
    return found


# --- what it costs -----------------------------------------------------------------------------------------------


def restoration_tokens(examples: Sequence[Example], n_layer: int, n_head: int) -> int:
    """Tokens of whole forward passes that restoring all parts of all heads is worth; see `ablation_tokens`."""
    return int(token_forwards(examples) * (4 + len(PARTS) * n_head * (n_layer + 1) / 2))
