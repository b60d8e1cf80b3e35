"""Restoration in models that changed by noise: what the patch alone costs where there was nothing to restore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from gpt2_interp.inside.ablation import batches_of
from gpt2_interp.inside.attention_observer import output_grams
from gpt2_interp.inside.interventions import Reading, read
from gpt2_interp.inside.losses import has_loss, undisturbed
from gpt2_interp.inside.restoration_batches import Batch, Texts, numbers_of, restored_losses, with_pattern
from gpt2_interp.inside.restored_numbers import head_rows
from gpt2_interp.model.base_weights import BaseWeights


def restorations_under_noise(
    gpt2: GPT2LMHeadModel,
    base: BaseWeights,
    texts: Texts,
    heads: np.ndarray,
    units: np.ndarray,
    kind: int,
    draws: int,
    max_tokens: int = 2048,
) -> tuple[np.ndarray, np.ndarray]:
    """Restore the base's patterns and numbers where the base plus noise, as large as the real change, stands for the
    tuned model.

    heads: [layer, head] bool, whose pattern; units: [restored, layer, head] bool, whose number. kind: index of the kind
    of token whose loss it is. The noise is that of the measures' bands. Returns what is needed, as `restorations` does:
    ([draw, layer, head], [draw, restored, layer, head]), means over the examples that have such a token, float32; NaN
    where not asked for.
    """
    patterns, numbers = (np.full((draws, *chosen.shape), np.nan, np.float32) for chosen in (heads, units))
    counted = [i for i, e in enumerate(texts.examples) if has_loss(e)]
    layers = np.flatnonzero((heads | units.any(axis=0)).any(axis=1)).tolist()
    if not layers or not counted:
        return patterns, numbers
    norms = base.change_norms(gpt2)
    total = draws * len(counted) * int(heads.sum() + units.sum())
    with undisturbed(gpt2), tqdm(total=total, desc="restoring heads under noise", unit=" heads", leave=False) as bar:
        batches = []
        with base.replaced(gpt2):
            grams = output_grams(gpt2)
            for rows in batches_of(counted, texts.examples, max_tokens):
                batch = Batch(gpt2, texts, rows, max_tokens)
                batches.append((batch, _of_base(read(gpt2, batch.ids), batch, grams, layers, heads, units)))
        for seed in range(draws):
            with base.perturbed(gpt2, seed, norms):
                grams = output_grams(gpt2)
                effects = [_under_noise(batch, start, grams, heads, units, kind, bar) for batch, start in batches]
            patterns[seed], numbers[seed] = (
                _mean_of_defined(np.concatenate(each)) for each in zip(*effects, strict=True)
            )
    return patterns, numbers


def _of_base(
    start: Reading, batch: Batch, grams: Tensor, layers: Sequence[int], heads: np.ndarray, units: np.ndarray
) -> dict[int, tuple[Tensor | None, dict[str, Tensor]]]:
    """Return for each layer what is put back: (the pattern, or None, and the numbers)."""
    found: dict[int, tuple[Tensor | None, dict[str, Tensor]]] = {}
    for layer in layers:
        pattern = start.pattern(layer) if heads[layer].any() else None
        rows = head_rows(start, layer, batch.places, grams[layer])
        found[layer] = pattern, numbers_of(rows) if units[:, layer].any() else {}
    return found


def _under_noise(
    batch: Batch,
    start: Mapping[int, tuple[Tensor | None, Mapping[str, Tensor]]],
    grams: Tensor,
    heads: np.ndarray,
    units: np.ndarray,
    kind: int,
    bar,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the effects of one batch in the model as it is: ([example, layer, head], [example, restored, layer,
    head])."""
    n = len(batch.examples)
    patterns, numbers = (np.full((n, *chosen.shape), np.nan, np.float32) for chosen in (heads, units))
    reading = read(batch.gpt2, batch.ids)
    before = batch.reading_losses(reading.final)[:, None, kind]  # [example, 1]
    for layer, (pattern, of_base) in start.items():
        if pattern is not None:
            chosen = np.flatnonzero(heads[layer]).tolist()
            after = batch.losses_with(reading, layer, chosen, with_pattern(reading, pattern, layer, chosen), bar)
            patterns[:, layer, chosen] = (after[..., kind] - before).cpu().numpy()
        if of_base:
            rows = head_rows(reading, layer, batch.places, grams[layer])
            for m, chosen, after in restored_losses(batch, reading, layer, rows, of_base, units[:, layer], bar):
                numbers[:, m, layer, chosen] = (after[..., kind] - before).cpu().numpy()
    return patterns, numbers


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    count = np.isfinite(values).sum(axis=0)
    return np.nansum(values, axis=0) / np.where(count, count, np.nan)
