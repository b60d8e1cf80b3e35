"""The reader of a run: its arrays, their labels, the clusters of its probes, its training log and its claims."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2_interp.checksums import changed_files
from gpt2_interp.errors import InputError
from gpt2_interp.files import read_json
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import HEADLINE, MEASURE, Measure
from gpt2_interp.statistics.intervals import bootstrap_band, nan_mean
from gpt2_interp.statistics.simultaneous import cluster_means

if TYPE_CHECKING:
    import xarray

CLAIMS_VERSION = 2  # of claims.json; a file of another version is written anew, never read
UNREADABLE = (InputError, OSError, ValueError, KeyError)  # what a damaged file of the store raises


def open_run(name: str, root: str | Path = ".") -> Measurements:
    """Open the measurements of one run; `root` is the folder that holds interpretability_metrics/ and its neighbours.

    `run["attn_entropy"]` is one measure over all snapshots, `run.snapshot(500)` all measures of one snapshot: labelled
    arrays of xarray. Raises InputError if the run has no snapshot.
    """
    return Measurements(RunPaths(name, Path(root)))


class Measurements:
    """One run's saved measurements: what claims, figures and reports read, and what `open_run` returns.

    As labelled arrays: `run["attn_entropy"]`, `run.snapshot(500)`; `list(run)` names the measures. As plain numpy
    arrays: `stack`, `headline`, `series`. A file is read when one of its arrays is asked for, and only that array.
    Raises InputError if there is no snapshot at all.
    """

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
        self._stacks: dict[str, tuple[list[int], np.ndarray]] = {}
        for name in changed_files(paths.model_outputs):
            path = Path(os.path.normpath(paths.model_outputs / name))
            warnings.warn(f"{path} is not as training wrote it (its sha256 differs, or it is gone)", stacklevel=3)

    def __repr__(self) -> str:
        steps = f"{len(self.steps)} snapshots, steps {self.steps[0]} to {self.steps[-1]}"
        return f"<run {self.paths.run_name!r}: {steps}, {len(list(self))} measures>"

    # ---- labelled arrays ----

    def __iter__(self) -> Iterator[str]:
        """Names of the measures that this run has, in the order of the measure table."""
        return (name for name in MEASURE if name in self._stored or name in self._stored_reference)

    def __contains__(self, name: object) -> bool:
        return name in self._stored or name in self._stored_reference

    def __getitem__(self, name: str) -> xarray.DataArray:
        """One measure with its labels: [step, *axes], or [*axes] of what is stored once (folder "reference").

        Coordinates: the step numbers, the labels of run.json, the ids, clusters and halves of the probes. Attributes:
        units, meaning, formula and what else the measure table says. A damaged snapshot is named in a warning and left
        out. Raises InputError for a name that is no measure or that this run does not have.
        """
        self._check_name(name)
        if MEASURE[name].folder == "reference":
            return self._labelled(name, self.store.load_reference([name])[name])
        steps, values = self.stack(name)
        return self._labelled(name, values, steps)

    def snapshot(self, step: int, names: Iterable[str] | None = None) -> xarray.Dataset:
        """The measures of one snapshot, all or the named ones, each [*axes] with its labels.

        Raises InputError for a step without a snapshot, a damaged file, and a name that the snapshot does not have.
        """
        import xarray

        if step not in self.steps:
            raise InputError(f"run {self.paths.run_name!r} has no snapshot of step {step}; it has {self.steps}.")
        names = None if names is None else [names] if isinstance(names, str) else list(names)
        for name in names or ():
            self._check_name(name)
        arrays = self.store.load(step, names)
        missing = [name for name in names or () if name not in arrays]
        if missing:
            raise InputError(f"step {step} does not have {', '.join(missing)}; run[name].step lists the steps that do.")
        in_order = names or [name for name in MEASURE if name in arrays]
        found = {name: self._labelled(name, arrays[name]) for name in in_order}
        return xarray.Dataset(found, {"step": step}, {"run": self.paths.run_name})

    def _labelled(self, name: str, values: np.ndarray, steps: Sequence[int] | None = None) -> xarray.DataArray:
        from gpt2_interp.analysis.labelled import labelled  # here: xarray takes half a second to import

        return labelled(name, values, steps, axes=self.info["axes"], probe_set=self.probe_set)

    def _check_name(self, name: str) -> None:
        if name in self:
            return
        if name in MEASURE:
            raise InputError(f"run {self.paths.run_name!r} has no {name}: list(run) names what it has.")
        near = difflib.get_close_matches(str(name), MEASURE, n=1)
        hint = f"did you mean {near[0]}?" if near else "list(run) names what this run has."
        raise InputError(f"{name!r} is no measure: {hint}")

    # ---- plain arrays ----

    def stack(self, name: str) -> tuple[list[int], np.ndarray]:
        """Return (steps, array [step, *axes]), read once. Raises InputError if no snapshot has it, or it has no
        probes."""
        if name not in self._stacks:
            self._stacks[name] = self.store.stack(name)
        if self._stacks[name][1].size == 0:
            raise InputError(f"run {self.paths.run_name!r} has no probes for {name}.")
        return self._stacks[name]

    def has(self, name: str) -> bool:
        """Return whether any snapshot has this array."""
        return name in self._stored

    @cached_property
    def _stored(self) -> set[str]:
        files = [entry for step in self.steps for entry in self._files(step)]
        return {name for entry in files for name in entry["arrays"]}

    def _files(self, step: int) -> list[dict[str, Any]]:
        try:
            return list(self.store.manifest(step)["files"].values())
        except InputError:
            return []  # what reads this step names it

    @cached_property
    def _stored_reference(self) -> set[str]:
        try:
            return self.store.reference_names()
        except InputError as error:
            warnings.warn(f"what is stored of step 0 alone is left out: {error}", stacklevel=3)
            return set()

    def headline(self, name: str) -> tuple[list[int], np.ndarray]:
        """Return `stack` at the region and the pooling that HEADLINE names: (steps, array [step, *other axes])."""
        steps, values = self.stack(name)
        return steps, self._at_headline(MEASURE[name], values, first=1)

    def _at_headline(self, measure: Measure, values: np.ndarray, first: int = 0) -> np.ndarray:
        """The array without the axes of HEADLINE; the measure's axes begin at axis `first`."""
        for i in reversed(range(len(measure.axes))):
            if (axis := measure.axes[i]) in HEADLINE:
                values = np.take(values, self.labels(axis).index(HEADLINE[axis]), axis=first + i)
        return values

    def series(
        self, names: Sequence[str], steps: Sequence[int] | None = None, notes: dict[str, None] | None = None
    ) -> dict[str, Series]:
        """Those of the measures that the snapshots have and whose probes are described, each file opened once.

        steps: all by default. A damaged snapshot is left out, and named in `notes`, an ordered set of sentences.
        """
        notes = {} if notes is None else notes
        found: dict[str, dict[int, np.ndarray]] = {}
        ordered = sorted(names, key=lambda name: MEASURE[name].folder)
        for _, of_folder in itertools.groupby(ordered, lambda name: MEASURE[name].folder):
            folder = list(of_folder)
            for step in self.steps if steps is None else steps:
                try:
                    arrays = self.store.load(step, folder)
                except UNREADABLE as error:
                    notes[f"Step {step} is left out where its snapshot is damaged: {error}"] = None
                    continue
                for name, array in arrays.items():
                    values = self._at_headline(MEASURE[name], array)
                    found.setdefault(name, {})[step] = values.reshape(len(values), math.prod(values.shape[1:]))
        result = {name: self._one_series(MEASURE[name], found[name], notes) for name in names if name in found}
        return {name: one for name, one in result.items() if one is not None}

    def _one_series(self, measure: Measure, at: dict[int, np.ndarray], notes: dict[str, None]) -> Series | None:
        """The series of one measure, from its values [probe, unit] by step; None where its probes are not described."""
        values = np.stack([at[step] for step in sorted(at)])
        if not values.shape[1]:
            return None  # no such probes: twins of a corpus without known facts
        entries = self.probe_set.get(measure.probe_axis or "", [])
        if len(entries) != values.shape[1]:
            notes[f"{measure.name} is left out: probe_set.json does not describe its {values.shape[1]} probes."] = None
            return None
        halves = np.array([entry["half"] for entry in entries]) if all("half" in entry for entry in entries) else None
        if halves is not None and len(set(halves)) < 2:
            note = f"All probes of {measure.probe_axis} are of one cluster, so they can't be divided into halves."
            notes[note] = halves = None
        splits = np.array([entry.get("split", "") for entry in entries])  # earlier versions had one split alone
        return Series(measure, sorted(at), values, [str(entry["cluster"]) for entry in entries], halves, splits)

    def logged(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (steps, values) of one scalar of the training log; null becomes NaN. Both [line]."""
        lines = [line for line in self.log if key in line]
        values = [np.nan if line[key] is None else line[key] for line in lines]
        return np.array([line["step"] for line in lines], dtype=int), np.array(values, dtype=float)

    # ---- labels ----

    def labels(self, axis: str) -> list[str]:
        """Labels of one axis; numbers where run.json gives only its size."""
        value = self.info["axes"][axis]
        return [str(i) for i in range(value)] if isinstance(value, int) else [str(label) for label in value]

    def clusters(self, n_probe: int, axis: str = "example") -> list[str]:
        """Cluster of every probe of one axis; without a probe set each probe is its own."""
        probes = self.probe_set.get(axis, [])
        if len(probes) != n_probe:
            return [str(i) for i in range(n_probe)]
        return [str(probe.get("cluster", i)) for i, probe in enumerate(probes)]

    def probe_ids(self, n_example: int) -> list[str]:
        """Id of every held-out example; its number without a probe set."""
        examples = self.probe_set.get("example", [])
        if len(examples) != n_example:
            return [str(i) for i in range(n_example)]
        return [str(example.get("id", i)) for i, example in enumerate(examples)]

    # ---- the run's other files ----

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The lines of training_log.jsonl; none where it is missing or damaged, which a warning says."""
        return _or_warning(self.store.log_file, self.store.read_log, [])

    @cached_property
    def probe_set(self) -> dict[str, Any]:
        """probe_set.json; {} where it is missing or damaged, which a warning says."""
        return _or_warning(self.store.probe_file, self.store.probe_set, {})

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Text of the token ids of the probes, from tokens.json; {} where it is missing or damaged, which a warning
        says."""
        return _or_warning(self.paths.metrics / "tokens.json", self.store.tokens, {})

    @property
    def claims_file(self) -> Path:
        return self.paths.metrics / "claims.json"

    @cached_property
    def claims(self) -> dict[str, Any]:
        """claims.json: every change with what was tested, with which numbers, and the words that follow.

        {} where it was not written, or where a version with other rules wrote it: visualize_metrics.py writes it anew.
        """
        path = self.claims_file
        found = _or_warning(path, partial(read_json, path), {}) if path.exists() else {}
        return found if found.get("schema_version") == CLAIMS_VERSION else {}

    # ---- means with their uncertainty ----

    def mean_with_band(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
        """Return (steps, mean, low, high, name of the band) of a measure with one value for each probe, all [step]."""
        steps, values = self.stack(name)
        mean, low, high, band = bootstrap_band(values, self.clusters(values.shape[1], MEASURE[name].axes[0]))
        return np.array(steps), mean, low, high, band


def _or_warning(path: Path, read: Callable[[], Any], nothing: Any) -> Any:
    """Return what a file holds; where it is missing or damaged warn, and return `nothing`."""
    try:
        if path.exists():
            return read()
        warnings.warn(f"{path} is missing", stacklevel=3)
    except InputError as error:
        warnings.warn(f"left out: {error}", stacklevel=3)
    return nothing


@dataclass(frozen=True)
class Series:
    """One measure over the snapshots that have it, at the region and pooling that are claimed."""

    measure: Measure
    steps: list[int]
    values: np.ndarray  # [step, probe, unit]
    clusters: list[str]  # of each probe
    halves: np.ndarray | None  # 0 or 1 of each probe
    splits: np.ndarray | None = None  # "validation" or "test", the corpus' split that each probe is of; "" if unknown

    def of_split(self, split: str) -> Series | None:
        """The same of the probes of one split, "validation" or "test"; None where there are none."""
        own = np.zeros(len(self.clusters), bool) if self.splits is None else self.splits == split
        if not own.any():
            return None
        clusters = [c for c, w in zip(self.clusters, own, strict=True) if w]
        halves = None if self.halves is None else self.halves[own]
        splits = np.full(int(own.sum()), split)
        return replace(self, values=self.values[:, own], clusters=clusters, halves=halves, splits=splits)

    def differences(self, wanted: np.ndarray | None = None) -> np.ndarray:
        """Changes since the first step, averaged over each cluster's (wanted) probes: [cluster, step - 1, unit]."""
        wanted = np.ones(len(self.clusters), bool) if wanted is None else wanted
        change = np.moveaxis(self.values[1:, wanted] - self.values[0, wanted], 0, 1)
        return cluster_means(change, [c for c, w in zip(self.clusters, wanted, strict=True) if w])

    def before(self) -> np.ndarray:
        """Mean at the first step, over clusters, of the probes that the last change is defined on: [unit]."""
        first = np.where(np.isfinite(self.values[-1]), self.values[0], np.nan)
        return nan_mean(cluster_means(first, self.clusters), axis=0)

    def change_by_half(self) -> list[np.ndarray] | None:
        """Last change by halves of the probes: two arrays [unit]."""
        if self.halves is None:
            return None
        return [nan_mean(self.differences(self.halves == half)[:, -1], axis=0) for half in (0, 1)]
