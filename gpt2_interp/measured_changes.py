"""What claims are made from: each measure over the snapshots of a run, and the runs to compare that run with.

Imports no torch. `notes` is a dict as an ordered set of sentences, for what is left out and for what was found.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt2_interp.errors import InputError
from gpt2_interp.measure_table import CLAIMED, HEADLINE, MEASURE, N_PERTURBATION, Measure
from gpt2_interp.measures.inference import FEWEST_SEEDS, Intervals, cluster_means, simultaneous_intervals
from gpt2_interp.run_paths import RunPaths, measured_runs
from gpt2_interp.snapshots import SnapshotStore

UNREADABLE = (InputError, OSError, ValueError, KeyError)  # what a damaged file of the store raises

# Settings that say where a run writes, what it logs and how it loads data, not what it learns.
# The batch is split by the memory that is free; effective_batch_size says how large it is.
NOT_LEARNED = {
    *("run_name", "root", "output_dir", "resume", "overwrite", "resume_from_checkpoint", "save_total_limit", "project"),
    *("report_to", "disable_tqdm", "push_to_hub", "local_rank", "samples_per_checkpoint", "num_beams", "debug"),
    *("max_predict_samples", "per_device_eval_batch_size", "ddp_timeout", "measures", "snapshot_schedule"),
    *("per_device_train_batch_size", "gradient_accumulation_steps"),
}
NOT_LEARNED_PREFIXES = ("logging_", "log_", "hub_", "trackio_", "dataloader_num", "dataloader_p")
LENGTH = {"max_steps", "num_train_epochs", "save_steps", "eval_steps"}  # a null run may be shorter


# --- one run ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """One measure over the snapshots that have it, at the region and pooling that are claimed."""

    measure: Measure
    steps: list[int]
    values: np.ndarray  # [step, probe, unit]
    clusters: list[str]  # of each probe
    halves: np.ndarray | None  # 0 or 1 of each probe

    def differences(self, wanted: np.ndarray | None = None) -> np.ndarray:
        """Changes since the first step, averaged over each cluster's (wanted) probes: [cluster, step - 1, unit]."""
        wanted = np.ones(len(self.clusters), bool) if wanted is None else wanted
        change = np.moveaxis(self.values[1:, wanted] - self.values[0, wanted], 0, 1)
        return cluster_means(change, [c for c, w in zip(self.clusters, wanted, strict=True) if w])

    def before(self) -> np.ndarray:
        """Mean at the first step, over clusters, of the probes that the last change is defined on: [unit]."""
        first = np.where(np.isfinite(self.values[-1]), self.values[0], np.nan)
        return mean_of(cluster_means(first, self.clusters))

    def change_by_half(self) -> list[np.ndarray] | None:
        """Last change by halves of the probes: two arrays [unit]."""
        if self.halves is None:
            return None
        return [mean_of(self.differences(self.halves == half)[:, -1]) for half in (0, 1)]


def read_series(
    store: SnapshotStore, names: Sequence[str], steps: Sequence[int], notes: dict[str, None] | None = None
) -> dict[str, Series]:
    """Those of the measures that the snapshots have and whose probes are described, read file by file.

    A damaged snapshot is skipped, and named in `notes`.
    """
    notes = {} if notes is None else notes
    axes, probes = axis_labels(store), _probe_set(store)
    found: dict[str, dict[int, np.ndarray]] = {}
    by_folder = itertools.groupby(sorted(names, key=lambda name: MEASURE[name].folder), lambda n: MEASURE[n].folder)
    for _, group in by_folder:
        group = list(group)
        for step in steps:
            try:
                arrays = store.load(step, group)
            except UNREADABLE as error:
                notes[f"Step {step} is left out where its snapshot is damaged: {error}"] = None
                continue
            for name, array in arrays.items():
                found.setdefault(name, {})[step] = headline(MEASURE[name], array, axes)
    result = {}
    for name in (name for name in names if name in found):
        at = found[name]
        values = np.stack([at[step] for step in sorted(at)])
        if not values.shape[1]:
            continue  # no such probes: twins of a corpus without known facts
        entries = probes.get(MEASURE[name].probe_axis, [])
        if len(entries) != values.shape[1]:
            notes[f"{name} is left out: probe_set.json does not describe its {values.shape[1]} probes."] = None
            continue
        halves = np.array([entry["half"] for entry in entries]) if all("half" in entry for entry in entries) else None
        result[name] = Series(MEASURE[name], sorted(at), values, [str(e["cluster"]) for e in entries], halves)
    return result


def headline(measure: Measure, array: np.ndarray, axes: Mapping[str, Sequence[str]]) -> np.ndarray:
    """The array at the region and pooling that are claimed, units in one axis: [probe, unit]."""
    for i in reversed(range(len(measure.axes))):
        if (axis := measure.axes[i]) in HEADLINE:
            array = np.take(array, list(axes[axis]).index(HEADLINE[axis]), axis=i)
    return array.reshape(len(array), math.prod(array.shape[1:]))


def axis_labels(store: SnapshotStore) -> dict[str, list[str]]:
    """Labels of every axis; numbers where run.json gives only its size."""
    sizes = store.run_info()["axes"]
    return {axis: [str(i) for i in (range(v) if isinstance(v, int) else v)] for axis, v in sizes.items()}


def _probe_set(store: SnapshotStore) -> dict[str, Any]:
    try:
        return store.probe_set()
    except (OSError, ValueError):
        return {}


def mean_of(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=0) / defined.sum(axis=0)


# --- other runs of the same settings ---------------------------------------------------------------------------


def null_run(store: SnapshotStore) -> SnapshotStore | None:
    """The run under the same root whose targets were permuted, with these settings but perhaps fewer steps; of the same
    seed if there is one."""
    mine = store.run_info().get("arguments", {})
    if mine.get("null_targets"):
        return None
    ignored = {"null_targets", "seed", "data_seed", *LENGTH}
    others = [
        (theirs.get("seed") != mine.get("seed"), other)
        for other, theirs in _other_runs(store)
        if theirs.get("null_targets") and _settings(theirs, ignored) == _settings(mine, ignored)
    ]
    return min(others, key=lambda pair: pair[0])[1] if others else None


def seed_runs(store: SnapshotStore) -> list[SnapshotStore]:
    """The other runs under the same root that differ in their seed only, one for each seed.

    None where training starts from random weights: there head 3 of one seed has nothing to do with head 3 of another.
    """
    mine = store.run_info().get("arguments", {})
    if not mine or mine.get("config_name"):
        return []
    ignored = {"seed", "data_seed"}
    runs = {}
    for other, theirs in _other_runs(store):
        if theirs.get("seed") != mine.get("seed") and _settings(theirs, ignored) == _settings(mine, ignored):
            runs.setdefault(theirs.get("seed"), other)
    return list(runs.values())


def _other_runs(store: SnapshotStore) -> Iterator[tuple[SnapshotStore, Mapping[str, Any]]]:
    """(store, arguments) of every readable run under the same root but this one, by name."""
    for name in measured_runs(store.paths.root):
        other = SnapshotStore(RunPaths(name, store.paths.root))
        try:
            arguments = other.run_info().get("arguments", {})
        except InputError:
            continue
        if name != store.paths.run_name:
            yield other, arguments


def _settings(arguments: Mapping[str, Any], ignored: set[str]) -> dict[str, Any]:
    return {
        key: value
        for key, value in arguments.items()
        if key not in NOT_LEARNED | ignored and not key.startswith(NOT_LEARNED_PREFIXES)
    }


def last_changes(store: SnapshotStore, like: SnapshotStore, names: Sequence[str]) -> tuple[int, dict[str, np.ndarray]]:
    """(last step, changes since step 0 by measure, [unit]) of another run; only measures that have the same units."""
    steps = store.steps()
    if len(steps) < 2 or steps[0] != 0:
        return steps[-1] if steps else 0, {}
    theirs, ours = axis_labels(store), axis_labels(like)
    names = [name for name in names if all(theirs.get(axis) == ours[axis] for axis in MEASURE[name].unit_axes)]
    series = read_series(store, names, [0, steps[-1]])
    whole = {name: one for name, one in series.items() if one.steps == [0, steps[-1]]}
    return steps[-1], {name: mean_of(one.differences()[:, -1]) for name, one in whole.items()}


# --- what changes are held against -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparisons:
    """What the changes of all measures are held against.

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
        """{"run", "step", "change" [unit]} of one measure in the null run, if it has it."""
        if self.null is None or name not in self.null[2]:
            return None
        return {"run": self.null[0], "step": self.null[1], "change": self.null[2][name]}


def comparisons(store: SnapshotStore, steps: list[int], ablation: Series | None, notes: dict[str, None]) -> Comparisons:
    """All of them, as far as they were measured; `steps` are all the run's snapshots."""
    names = [measure.name for measure in CLAIMED]
    null, other = None, null_run(store)
    if other is not None:
        null = (other.paths.run_name, *last_changes(other, store, names))
        notes[f"Run {null[0]!r}, at its step {null[1]}, is the null: its targets were permuted."] = None
    seeds = [last_changes(run, store, names) for run in seed_runs(store)]
    seeds = [changes for step, changes in seeds if step == steps[-1]]
    if seeds:
        few = "" if len(seeds) + 1 >= FEWEST_SEEDS else f"; whether a change is reproduced takes {FEWEST_SEEDS}"
        notes[f"{len(seeds) + 1} runs have these settings and different seeds, this one included{few}."] = None
    return Comparisons(
        _bands(store, steps[-1], names, notes), _floors(store, names, notes), _ablation(ablation, steps), null, seeds
    )


def spans(series: Series | None, steps: list[int]) -> bool:
    """Whether there is a change from step 0 to the last snapshot."""
    return series is not None and len(series.steps) > 1 and (series.steps[0], series.steps[-1]) == (0, steps[-1])


def _bands(store: SnapshotStore, step: int, names: Sequence[str], notes: dict[str, None]) -> dict[str, float]:
    try:
        arrays = store.load(step, [f"band_{name}" for name in names])
    except UNREADABLE:
        return {}  # read_series has named it
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


def _floors(store: SnapshotStore, names: Sequence[str], notes: dict[str, None]) -> dict[str, float]:
    try:
        arrays = store.load_reference([f"floor_{name}" for name in names])
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
