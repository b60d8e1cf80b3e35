"""Runs to compare a run with: the same settings with other seeds, with permuted targets, or on the base's own text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import RunPaths, measured_runs
from gpt2_interp.snapshots.table import MEASURE
from gpt2_interp.statistics.intervals import nan_mean

# Of a run that does not record what its settings decide (those of before did not).
PLACES = frozenset(("run_name", "root", "output_dir", "logging_dir", "resume", "overwrite"))


LENGTH = {"max_steps", "num_train_epochs", "save_steps", "eval_steps"}  # a null run may be shorter


def null_run(m: Measurements) -> Measurements | None:
    """The run under the same root whose targets were permuted, with these settings but perhaps fewer steps; of the same
    seed if there is one."""
    mine = m.info.get("arguments", {})
    if mine.get("null_targets"):
        return None
    ignored = {"null_targets", "seed", "data_seed", *LENGTH}
    others = [
        (theirs.get("seed") != mine.get("seed"), other)
        for other, theirs in _other_runs(m)
        if theirs.get("null_targets") and _are_alike(m.info, other.info, ignored)
    ]
    return min(others, key=lambda pair: pair[0])[1] if others else None


def seed_runs(m: Measurements) -> list[Measurements]:
    """The other runs under the same root that differ in their seed only, one for each seed.

    None where training starts from random weights: there head 3 of one seed has nothing to do with head 3 of another.
    """
    mine = m.info.get("arguments", {})
    if not mine or mine.get("config_name"):
        return []
    ignored = {"seed", "data_seed"}
    runs: dict[Any, Measurements] = {}
    for other, theirs in _other_runs(m):
        if theirs.get("seed") != mine.get("seed") and _are_alike(m.info, other.info, ignored):
            runs.setdefault(theirs.get("seed"), other)
    return list(runs.values())


def trained_on_base_text(m: Measurements) -> list[Measurements]:
    """The runs under the same root that `--null_training` made for this run: on the base's own kind of text, to the
    same relative change of the weights. Their run.json names the run under "null_training_of". Of one of them, the
    others."""
    wanted = m.info.get("null_training_of", m.paths.run_name)
    return [other for other, _ in _other_runs(m) if other.info.get("null_training_of") == wanted]


def _other_runs(m: Measurements) -> Iterator[tuple[Measurements, Mapping[str, Any]]]:
    """Yield (run, arguments) of every other readable run under the same root that has a snapshot, by name."""
    for name in measured_runs(m.paths.root):
        if name == m.paths.run_name:
            continue
        try:
            other = Measurements(RunPaths(name, m.paths.root))
        except InputError:
            continue
        yield other, other.info.get("arguments", {})


def undeciding(*runs: Mapping[str, Any], kinds: Sequence[str] = ("record", "nothing")) -> frozenset[str]:
    """Return the names of the settings that don't decide what is learned, as run.json of one of the runs says."""
    return PLACES.union(*(run.get("decides", {}).get(kind, ()) for run in runs for kind in kinds))


def _are_alike(mine: Mapping[str, Any], theirs: Mapping[str, Any], ignored: set[str]) -> bool:
    """Return whether two run.json have the same settings but for the ignored ones, as far as they decide what is
    learned."""
    if mine.get("null_training_of") != theirs.get("null_training_of"):
        return False
    left_out = undeciding(mine, theirs) | ignored
    a, b = mine.get("arguments", {}), theirs.get("arguments", {})
    return a.keys() - left_out == b.keys() - left_out and all(a[key] == b[key] for key in a.keys() - left_out)


def last_changes(m: Measurements, like: Measurements, names: Sequence[str]) -> tuple[int, dict[str, np.ndarray]]:
    """Return (last step, changes since step 0 by measure, [unit]) of another run; only measures that have the same
    units."""
    last = m.steps[-1]
    if len(m.steps) < 2 or m.steps[0] != 0:
        return last, {}
    names = [name for name in names if all(_same_axis(axis, m, like) for axis in MEASURE[name].unit_axes)]
    whole = {name: one for name, one in m.series(names, [0, last]).items() if one.steps == [0, last]}
    return last, {name: nan_mean(one.differences()[:, -1], axis=0) for name, one in whole.items()}


def _same_axis(axis: str, m: Measurements, like: Measurements) -> bool:
    return axis in m.info["axes"] and m.labels(axis) == like.labels(axis)
