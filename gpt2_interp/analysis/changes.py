"""The material of claims: each measure over the snapshots of a run, and everything its changes are compared with.

`notes` is a dict as an ordered set of sentences, for what is left out and for what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from gpt2_interp.analysis.measurements import UNREADABLE, Measurements, Series
from gpt2_interp.analysis.other_runs import last_changes, null_run, seed_runs, trained_on_base_text
from gpt2_interp.snapshots.table import CLAIMED, FEWEST_PERTURBATIONS, Measure
from gpt2_interp.statistics.simultaneous import FEWEST_SEEDS, Intervals, cluster_means, simultaneous_intervals

FEWEST_NULL_RUNS = 3


@dataclass(frozen=True)
class OtherRun:
    """Another run: its name, its last step, its changes [unit] by measure."""

    name: str
    step: int
    changes: dict[str, np.ndarray]


@dataclass(frozen=True)
class Comparisons:
    """Everything that the changes of all measures are compared with; what was not measured is missing.

    draws: changes under random perturbations of the base, [draw, unit] by measure; draw k is the same perturbation in
    all of them. floors: the largest thing that the precision of training does to any unit, by measure. ablation: of
    each head the cost at step 0 [unit], now, and its change. general, other_article: the same measure on general text,
    and behind another row's article. training: runs on the base's own kind of text. style: the run with permuted
    targets. seeds: runs that differ in their seed.
    """

    draws: dict[str, np.ndarray]
    floors: dict[str, float]
    ablation: tuple[np.ndarray, Intervals, Intervals] | None
    general: dict[str, Series]
    other_article: dict[str, Series]
    training: list[OtherRun]
    style: OtherRun | None
    seeds: list[OtherRun]

    def of_training(self, name: str) -> np.ndarray | None:
        """Return changes of one measure in the runs on the base's own kind of text, [run, unit]; None if none has
        it."""
        found = [run.changes[name] for run in self.training if name in run.changes]
        return np.stack(found) if found else None


def comparisons(m: Measurements, notes: dict[str, None]) -> Comparisons:
    """Collect `Comparisons`, as far as they were measured."""
    names = [measure.name for measure in CLAIMED]
    general = {f"control_{name}": name for name in names}
    other = {f"other_{name}": name for name in names}
    series = m.series([name for name in (*general, *other, "ablation_exact") if m.has(name)], notes=notes)

    style = None
    if (run := null_run(m)) is not None:
        style = OtherRun(run.paths.run_name, *last_changes(run, m, names))
        notes[f"Run {style.name!r}, at its step {style.step}, has these settings and permuted targets."] = None
    training = [OtherRun(run.paths.run_name, *last_changes(run, m, names)) for run in trained_on_base_text(m)]
    if training:
        few = "" if len(training) >= FEWEST_NULL_RUNS else f"; whether a change is beyond them takes {FEWEST_NULL_RUNS}"
        notes[f"{len(training)} short runs were trained on the base's own kind of text (--null_training){few}."] = None
    seeds = [OtherRun(run.paths.run_name, *last_changes(run, m, names)) for run in seed_runs(m)]
    seeds = [run for run in seeds if run.step == m.steps[-1]]
    if seeds:
        few = "" if len(seeds) + 1 >= FEWEST_SEEDS else f"; whether a change is reproduced takes {FEWEST_SEEDS}"
        notes[
            f"{len(seeds) + 1} runs have these settings and different seeds, this one included, and one base{few}."
        ] = None
    return Comparisons(
        _draws(m, names, notes),
        _floors(m, names, notes),
        _ablation(series.get("ablation_exact"), m.steps),
        {name: series[key] for key, name in general.items() if spans(series.get(key), m.steps)},
        {name: series[key] for key, name in other.items() if spans(series.get(key), m.steps)},
        training,
        style,
        seeds,
    )


def spans(series: Series | None, steps: list[int]) -> TypeGuard[Series]:
    """Return whether there is a change from step 0 to the last snapshot."""
    return series is not None and len(series.steps) > 1 and (series.steps[0], series.steps[-1]) == (0, steps[-1])


def is_large(measure: Measure, before: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return [unit] bool, whether changes [unit] from `before` [unit] reach the measure's smallest effect of interest.

    A factor f asks for at least f times as much, or at most 1/f of it.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if measure.as_factor:
            return np.abs(np.log((before + change) / before)) >= np.log(measure.smallest)
        return np.abs(change) >= measure.smallest


def _draws(m: Measurements, names: Sequence[str], notes: dict[str, None]) -> dict[str, np.ndarray]:
    try:
        arrays = m.store.load(m.steps[-1], [f"band_{name}" for name in names])
    except UNREADABLE:
        return {}  # Measurements.series has named it
    draws = {}
    for name, array in sorted(arrays.items()):
        by_draw = array.reshape(len(array), -1).astype(float)
        count = int(np.isfinite(by_draw).any(axis=1).sum()) if array.size else 0
        if count >= FEWEST_PERTURBATIONS:
            draws[name.removeprefix("band_")] = by_draw
        elif count:
            notes[
                f"{name} is left out: it has {count} random perturbations, and {FEWEST_PERTURBATIONS} are needed "
                f"(runs of earlier versions had 19)."
            ] = None
    return draws


def _floors(m: Measurements, names: Sequence[str], notes: dict[str, None]) -> dict[str, float]:
    try:
        arrays = m.store.load_reference([f"floor_{name}" for name in names])
    except UNREADABLE as error:
        notes[f"What the precision of training alone does is left out: {error}"] = None
        return {}
    return {
        name.removeprefix("floor_"): float(np.nanmax(np.abs(array)))
        for name, array in arrays.items()
        if np.isfinite(array).any()
    }


def _ablation(series: Series | None, steps: list[int]) -> tuple[np.ndarray, Intervals, Intervals] | None:
    if not spans(series, steps):
        return None
    after = simultaneous_intervals(cluster_means(series.values[-1], series.clusters))
    return series.before(), after, simultaneous_intervals(series.differences()[:, -1])


def paired_difference(own: Series, other: Series) -> np.ndarray | None:
    """Return how much more the own article changes a measure than another article does, [cluster, unit]; None where the
    two were not measured on the same probes at the same snapshots."""
    if own.values[[0, -1]].shape != other.values[[0, -1]].shape or own.clusters != other.clusters:
        return None
    change = (own.values[-1] - own.values[0]) - (other.values[-1] - other.values[0])
    return cluster_means(change, own.clusters)


def as_entry(intervals: Intervals, i: int) -> dict[str, Any]:
    """One unit of some intervals as claims.json has it."""
    return {"change": intervals.mean[i], "low": intervals.low[i], "high": intervals.high[i]}
