"""What one run has measured, as the figures read it: arrays, labels, clusters of probes, claims. Imports no torch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gpt2_interp.errors import InputError
from gpt2_interp.measure_table import HEADLINE, MEASURE
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots import SnapshotStore

DRAWS = 1000
FEWEST_CLUSTERS = 10  # below this, resampling whole clusters says little


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


def nan_mean(array: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean of the defined values; NaN where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(array, axis=axis)


def bootstrap_band(values: np.ndarray, clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Mean over probes with a 95% percentile bootstrap band, probes with equal weight.

    values [step, example] -> mean, low, high [step], and the band's name. Whole clusters are drawn, because the probes
    of one are not independent; with fewer than FEWEST_CLUSTERS of them single probes are, and the name says so.
    """
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    by_cluster = len(names) >= FEWEST_CLUSTERS
    if not by_cluster:
        cluster_of = np.arange(values.shape[1])
    units = cluster_of.max() + 1
    random = np.random.default_rng(0)
    counts = random.multinomial(units, np.full(units, 1 / units), size=DRAWS)  # [draw, unit]
    weights = counts[:, cluster_of].astype(float)  # [draw, example]
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ np.where(defined, values, 0).T) / (weights @ defined.T)  # [draw, step]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    drawn = f"{units} clusters of probes" if by_cluster and units < values.shape[1] else f"{units} probes"
    return nan_mean(values, axis=1), low, high, f"95% bootstrap over {drawn}"
