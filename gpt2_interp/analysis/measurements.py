"""What one run has measured, as the figures read it: arrays, labels, clusters of probes, claims. Imports no torch."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import HEADLINE, MEASURE, Measure
from gpt2_interp.statistics.intervals import bootstrap_band
from gpt2_interp.statistics.simultaneous import cluster_means


class Measurements:
    """One run's saved measurements, each array read once. Raises InputError if there is no snapshot at all."""

    def __init__(self, paths: RunPaths):
        self.paths = paths
        self.store = SnapshotStore(paths)
        self.info = self.store.run_info()
        self.steps = self.store.steps()
        if not self.steps:
            raise InputError(
                f"run {paths.run_name!r} has no snapshot yet: wait for its first checkpoint, or train it again "
                f"with gpt2_summarization.py --run_name {paths.run_name}."
            )
        self.log = self.store.read_log()
        self.probe_set = self.store.probe_set() if self.store.probe_file.is_file() else {}
        self._stacks: dict[str, tuple[list[int], np.ndarray]] = {}

    # ---- arrays ----

    def stack(self, name: str) -> tuple[list[int], np.ndarray]:
        """(steps, array [step, *axes]). Raises InputError if no snapshot has it, or it has no probes."""
        if name not in self._stacks:
            self._stacks[name] = self.store.stack(name)
        if self._stacks[name][1].size == 0:
            raise InputError(f"run {self.paths.run_name!r} has no probes for {name}.")
        return self._stacks[name]

    def has(self, name: str) -> bool:
        """Whether any snapshot has this array."""
        return name in self._stored

    @cached_property
    def _stored(self) -> set[str]:
        files = [entry for step in self.steps for entry in self.store.manifest(step)["files"].values()]
        return {name for entry in files for name in entry["arrays"]}

    def headline(self, name: str) -> tuple[list[int], np.ndarray]:
        """`stack` at the region and the pooling that HEADLINE names: (steps, array [step, *other axes])."""
        steps, values = self.stack(name)
        axes = MEASURE[name].axes
        for axis in (axis for axis in reversed(axes) if axis in HEADLINE):
            values = np.take(values, self.labels(axis).index(HEADLINE[axis]), axis=1 + axes.index(axis))
        return steps, values

    def logged(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of one scalar of the training log; null becomes NaN. Both [line]."""
        lines = [line for line in self.log if key in line]
        values = [np.nan if line[key] is None else line[key] for line in lines]
        return np.array([line["step"] for line in lines], dtype=int), np.array(values, dtype=float)

    # ---- labels ----

    def labels(self, axis: str) -> list[str]:
        value = self.info["axes"][axis]
        return [str(i) for i in range(value)] if isinstance(value, int) else [str(label) for label in value]

    def clusters(self, n_probe: int, axis: str = "example") -> list[str]:
        """Cluster of every probe of one axis; without a probe set each probe is its own."""
        probes = self.probe_set.get(axis, [])
        if len(probes) != n_probe:
            return [str(i) for i in range(n_probe)]
        return [str(probe.get("cluster", i)) for i, probe in enumerate(probes)]

    def probe_ids(self, n_example: int) -> list[str]:
        examples = self.probe_set.get("example", [])
        if len(examples) != n_example:
            return self.clusters(n_example)
        return [str(example.get("id", i)) for i, example in enumerate(examples)]

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Text of the token ids of the probes, from tokens.json; {} where the run has none."""
        return self.store.tokens()

    @cached_property
    def claims(self) -> dict[str, Any]:
        """claims.json as claims.py wrote it: which changes may be claimed; {} where it was not written."""
        return _read_json(self.paths.metrics / "claims.json")

    # ---- means with their uncertainty ----

    def mean_with_band(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
        """(steps, mean, low, high, name of the band) of a measure with one value for each probe, all [step]."""
        steps, values = self.stack(name)
        mean, low, high, band = bootstrap_band(values, self.clusters(values.shape[1], MEASURE[name].axes[0]))
        return np.array(steps), mean, low, high, band


def _read_json(path: Any) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        warnings.warn(f"{path} is not readable JSON and is left out", stacklevel=3)
        return {}
    return value if isinstance(value, dict) else {}


UNREADABLE = (InputError, OSError, ValueError, KeyError)  # what a damaged file of the store raises


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
