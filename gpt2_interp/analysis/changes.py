"""The material of claims: each measure over the snapshots of a run, and the runs to compare that run with.

`notes` is a dict as an ordered set of sentences, for what is left out and for what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from gpt2_interp.analysis.measurements import UNREADABLE, Measurements, Series
from gpt2_interp.analysis.other_runs import last_changes, null_run, seed_runs
from gpt2_interp.snapshots.table import CLAIMED, N_PERTURBATION
from gpt2_interp.statistics.simultaneous import FEWEST_SEEDS, Intervals, cluster_means, simultaneous_intervals


@dataclass(frozen=True)
class Comparisons:
    """Everything that the changes of all measures are compared with.

    bands, floors: largest absolute value of each measure. ablation: of each head the cost at step 0 [unit], now, and
    its change. null: name, last step and changes of the null run. seeds: changes of each other seed. Changes are
    [unit], by measure.
    """

    bands: dict[str, float]
    floors: dict[str, float]
    ablation: tuple[np.ndarray, Intervals, Intervals] | None
    null: tuple[str, int, dict[str, np.ndarray]] | None
    seeds: list[dict[str, np.ndarray]]

    def null_entry(self, name: str) -> dict[str, Any] | None:
        """Return {"run", "step", "change" [unit]} of one measure in the null run, if it has it."""
        if self.null is None or name not in self.null[2]:
            return None
        return {"run": self.null[0], "step": self.null[1], "change": self.null[2][name]}


def comparisons(m: Measurements, ablation: Series | None, notes: dict[str, None]) -> Comparisons:
    """Collect `Comparisons`, as far as they were measured."""
    names = [measure.name for measure in CLAIMED]
    null, other = None, null_run(m)
    if other is not None:
        null = (other.paths.run_name, *last_changes(other, m, names))
        notes[f"Run {null[0]!r}, at its step {null[1]}, is the null: its targets were permuted."] = None
    others = [last_changes(run, m, names) for run in seed_runs(m)]
    seeds = [changes for step, changes in others if step == m.steps[-1]]
    if seeds:
        few = "" if len(seeds) + 1 >= FEWEST_SEEDS else f"; whether a change is reproduced takes {FEWEST_SEEDS}"
        notes[f"{len(seeds) + 1} runs have these settings and different seeds, this one included{few}."] = None
    return Comparisons(_bands(m, names, notes), _floors(m, names, notes), _ablation(ablation, m.steps), null, seeds)


def spans(series: Series | None, steps: list[int]) -> TypeGuard[Series]:
    """Return whether there is a change from step 0 to the last snapshot."""
    return series is not None and len(series.steps) > 1 and (series.steps[0], series.steps[-1]) == (0, steps[-1])


def _bands(m: Measurements, names: Sequence[str], notes: dict[str, None]) -> dict[str, float]:
    try:
        arrays = m.store.load(m.steps[-1], [f"band_{name}" for name in names])
    except UNREADABLE:
        return {}  # Measurements.series has named it
    bands = {}
    for name, array in sorted(arrays.items()):
        count = int(np.isfinite(array.reshape(len(array), -1)).any(axis=1).sum()) if array.size else 0
        if count >= N_PERTURBATION:
            bands[name.removeprefix("band_")] = float(np.nanmax(np.abs(array)))
        elif count:
            notes[
                f"{name} is left out: it holds {count} random perturbations, and one change in {count + 1} exceeds as "
                f"many by chance; {N_PERTURBATION} are needed."
            ] = None
    return bands


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
