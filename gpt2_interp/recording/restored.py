"""The group `restoration` of one snapshot: which heads it is paid for, on which probes, and its arrays.

Undoing changes costs as much as ablation, many times over. So it is done on RESTORED_PROBES of the few probes; a
measure's number is put back only where that measure changed by more than noise does; and the same is done to perturbed
bases only where that was found to matter, on PROBES_UNDER_NOISE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from transformers import GPT2LMHeadModel

from gpt2_interp.inside.restoration import restorations, second_readings
from gpt2_interp.inside.restoration_batches import Texts, repeated_texts
from gpt2_interp.inside.restoration_under_noise import restorations_under_noise
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import ProbeSet, evenly
from gpt2_interp.recording.bands import Arrays, headline
from gpt2_interp.snapshots.table import CLAIMED, JUDGED_KINDS, MEASURE, REPEATED, RESTORED
from gpt2_interp.statistics.beyond_noise import beyond_noise
from gpt2_interp.statistics.simultaneous import cluster_means, simultaneous_intervals

RESTORED_PROBES, PROBES_UNDER_NOISE = 24, 12  # of the few probes, and of the sequences
DRAWS = 19  # perturbed bases in which the same is done
HEAD = ("layer", "head")
OF_HEADS = tuple(measure.name for measure in CLAIMED if measure.unit_axes == HEAD)


def changed_heads(
    start: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray], clusters: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Return [layer, head] bool for each measure of heads: whether it changed by more than zero and more than noise.

    start, now: the arrays of step 0 and of this snapshot, its bands included. clusters: of the probes of each axis. A
    measure that one of them lacks, or its band, is left out.
    """
    found = {}
    for name in OF_HEADS:
        if name not in start or name not in now or f"band_{name}" not in now:
            continue
        difference = headline(name, now[name]) - headline(name, start[name])  # [probe, layer, head]
        change = simultaneous_intervals(cluster_means(difference, clusters[MEASURE[name].axes[0]]))
        draws = now[f"band_{name}"].reshape(len(now[f"band_{name}"]), -1)
        beyond = beyond_noise(change.mean.ravel(), draws).reshape(change.mean.shape)
        found[name] = change.excludes_zero & beyond
    return found


def restoration_arrays(
    gpt2: GPT2LMHeadModel,
    probe_set: ProbeSet,
    base: BaseWeights,
    changed: Mapping[str, np.ndarray],
    every_head: bool,
    draws: int,
    max_tokens: int,
) -> Arrays:
    """Return the arrays of the group, NaN where not paid for.

    changed: of `changed_heads`. every_head: parts are restored of all heads, and so are measures that are missing
    there; otherwise only heads that are known to have changed are restored. draws: how many perturbations the bands
    have; DRAWS of them are used. Used while `measuring`.
    """
    every = np.ones((gpt2.config.n_layer, gpt2.config.n_head), bool)
    of_measure = {name: changed.get(name, every & every_head) for name in OF_HEADS}
    heads = every if every_head else np.any(list(of_measure.values()), axis=0)
    units = np.stack([of_measure[name] for name in RESTORED])
    restored = evenly(range(len(probe_set.few)), RESTORED_PROBES)
    rows = [probe_set.few[i] for i in restored]
    arrays = {
        name: _spread(values, restored, len(probe_set.few))
        for name, values in restorations(gpt2, base, texts_of(probe_set, rows), heads, units, max_tokens).items()
    }
    kind = judged_kind(probe_set)
    clusters = [probe_set.examples[i].cluster for i in probe_set.few]
    matters = _matters(arrays["restore_pattern_needed"][..., kind], clusters, of_measure["attn_kl0"])
    of_units = arrays["restore_measure_needed"][..., kind]
    units_matter = np.stack([_matters(of_units[:, m], clusters, units[m]) for m in range(len(RESTORED))])
    texts = texts_of(probe_set, evenly(rows, PROBES_UNDER_NOISE))
    patterns, numbers = restorations_under_noise(
        gpt2, base, texts, matters, units_matter, kind, min(draws, DRAWS), max_tokens
    )
    arrays |= {"band_restore_pattern": _all_draws(patterns, draws), "band_restore_measure": _all_draws(numbers, draws)}
    return arrays | _repeated(gpt2, probe_set, base, of_measure, heads, draws, max_tokens)


def texts_of(probe_set: ProbeSet, rows: Sequence[int]) -> Texts:
    """Return held-out examples with their kinds of token and known answers."""
    gold = [probe_set.gold[i] for i in rows] if probe_set.gold else ()
    return Texts([probe_set.examples[i] for i in rows], [probe_set.kinds[i] for i in rows], gold)


def judged_kind(probe_set: ProbeSet) -> int:
    """Return the index of the kind of token by whose loss a change is judged."""
    return probe_set.token_kinds.index(next(kind for kind in JUDGED_KINDS if kind in probe_set.token_kinds))


def _repeated(
    gpt2: GPT2LMHeadModel,
    probe_set: ProbeSet,
    base: BaseWeights,
    of_measure: Mapping[str, np.ndarray],
    heads: np.ndarray,
    draws: int,
    max_tokens: int,
) -> Arrays:
    """The arrays that belong to random tokens read twice."""
    sequences = probe_set.sequences
    if not sequences:
        return {}
    chosen = evenly(range(len(sequences)), RESTORED_PROBES)
    found = second_readings(gpt2, base, [sequences[i] for i in chosen], heads, max_tokens)
    arrays = {name: _spread(values, chosen, len(sequences)) for name, values in found.items()}
    names = [f"sequence {i}" for i in range(len(sequences))]
    changed = np.any([of_measure[name] for name in REPEATED], axis=0)
    matters = _matters(arrays["restore_second_reading"], names, changed)
    texts = repeated_texts([sequences[i] for i in evenly(chosen, PROBES_UNDER_NOISE)])
    no_units = np.zeros((len(RESTORED), *heads.shape), bool)
    patterns, _ = restorations_under_noise(gpt2, base, texts, matters, no_units, 0, min(draws, DRAWS), max_tokens)
    return arrays | {"band_restore_second_reading": _all_draws(patterns, draws)}


def _matters(costs: np.ndarray, clusters: Sequence[str], asked: np.ndarray) -> np.ndarray:
    """Return [layer, head] bool, where the simultaneous interval over the heads `asked` excludes 0; costs: [probe,
    layer, head]."""
    return simultaneous_intervals(cluster_means(np.where(asked, costs, np.nan), clusters)).excludes_zero & asked


def _spread(values: np.ndarray, places: Collection[int], size: int) -> np.ndarray:
    """Put values [chosen, ...] where their probes stand among `size`, NaN elsewhere."""
    whole = np.full((size, *values.shape[1:]), np.nan, np.float32)
    whole[list(places)] = values
    return whole


def _all_draws(values: np.ndarray, draws: int) -> np.ndarray:
    return _spread(values, range(len(values)), draws)
