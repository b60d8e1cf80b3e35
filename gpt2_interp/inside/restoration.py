"""Causes by restoration: what becomes of the loss when a part of a head's change is undone, or done to the base.

f_t is the tuned model, f_0 the base, both read the same text; A and V are pattern and values of one head, z = A V. Each
effect is a difference of mean NLL of target tokens, in nats per token and by kind of token. Positive: the change helps.

needed, in the tuned model: L(f_t, restored) - L(f_t). enough, in the base: L(f_0) - L(f_0, changed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.inside.ablation import batches_of
from gpt2_interp.inside.attention_observer import output_grams
from gpt2_interp.inside.interventions import Reading, attention_pattern, heads_changed, read, split_heads
from gpt2_interp.inside.losses import final_states, has_loss, token_forwards, undisturbed
from gpt2_interp.inside.restoration_batches import (
    Batch,
    Texts,
    by_layer,
    numbers_of,
    repeated_texts,
    restored_losses,
    with_pattern,
)
from gpt2_interp.inside.restored_numbers import head_rows
from gpt2_interp.model.base_weights import BaseWeights

WAYS = ("needed", "enough")
PARTS = (  # of a head, exchanged at every position, by the name of their array
    "restore_pattern_needed",
    "restore_pattern_enough",
    "restore_value_needed",
    "restore_output_needed",
    "restore_qk_needed",
)


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
            batch = Batch(gpt2, texts, rows, max_tokens)
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
    batch: Batch,
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
    for layer, chosen in by_layer(heads):
        for name, z in _parts(way, layer, qk_patterns).items():
            effect = way.sign * (batch.losses_with(way.own, layer, chosen, z[:, chosen], bar) - before[:, None])
            found[name][np.ix_(batch.rows, [layer], chosen)] = effect[:, None].cpu().numpy()
    for layer, _ in by_layer(units.any(axis=0)):
        rows = head_rows(way.own, layer, batch.places, way.grams[layer])
        numbers = numbers_of(head_rows(way.other, layer, batch.places, way.other_grams[layer]))
        for m, chosen, after in restored_losses(batch, way.own, layer, rows, numbers, units[:, layer], bar):
            effect = way.sign * (after - before[:, None])
            into = np.ix_(batch.rows, [m], [layer], chosen)
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


# --- random tokens read twice ------------------------------------------------------------------------------------


def second_readings(
    gpt2: GPT2LMHeadModel,
    base: BaseWeights,
    sequences: Sequence[Sequence[int]],
    heads: np.ndarray,
    max_tokens: int = 2048,
) -> dict[str, np.ndarray]:
    """Return the loss of the second reading of [BOS, r_1..r_T, r_1..r_T], float32.

    second_reading_base, second_reading_tuned: [sequence]. restore_second_reading: [sequence, layer, head], the tuned
    model's with the base's pattern put back in one head, minus the tuned model's; heads: [layer, head] bool, of which.
    """
    texts = repeated_texts(sequences)
    n = len(texts.examples)
    found = {name: np.full(n, np.nan, np.float32) for name in ("second_reading_base", "second_reading_tuned")}
    found["restore_second_reading"] = np.full((n, *heads.shape), np.nan, np.float32)
    counted = [i for i, e in enumerate(texts.examples) if has_loss(e)]
    total = len(counted) * int(heads.sum())
    with undisturbed(gpt2), tqdm(total=total, desc="restoring heads on repeats", unit=" heads", leave=False) as bar:
        for rows in batches_of(counted, texts.examples, max_tokens):
            batch = Batch(gpt2, texts, rows, max_tokens)
            tuned = read(gpt2, batch.ids)
            with base.replaced(gpt2):
                start = read(gpt2, batch.ids)
                found["second_reading_base"][rows] = batch.reading_losses(start.final)[:, 0].cpu().numpy()
            before = batch.reading_losses(tuned.final)
            found["second_reading_tuned"][rows] = before[:, 0].cpu().numpy()
            for layer, chosen in by_layer(heads):
                after = batch.losses_with(
                    tuned, layer, chosen, with_pattern(tuned, start.pattern(layer), layer, chosen), bar
                )
                effect = (after - before[:, None])[:, None, :, 0]
                found["restore_second_reading"][np.ix_(rows, [layer], chosen)] = effect.cpu().numpy()
    return found


# --- what it costs -----------------------------------------------------------------------------------------------


def restoration_tokens(examples: Sequence[Example], n_layer: int, n_head: int) -> int:
    """Tokens of whole forward passes that restoring all parts of all heads is worth; see `ablation_tokens`."""
    return int(token_forwards(examples) * (4 + len(PARTS) * n_head * (n_layer + 1) / 2))
