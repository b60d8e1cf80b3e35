"""Tests of the changes since step 0, from the snapshot store alone: claims.json.

A change is *claimed* when its simultaneous interval excludes zero and it is larger than what random perturbations of
the base and the precision of training do; *task-specific* when it is also larger than on general text; *causal* when
taking the head away costs something, and another amount than at step 0. Statistics: `statistics/simultaneous.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_interp.analysis.changes import Comparisons, comparisons, spans
from gpt2_interp.analysis.measurements import Measurements, Series
from gpt2_interp.files import write_json
from gpt2_interp.snapshots.table import CLAIMED, Measure
from gpt2_interp.statistics.simultaneous import (
    CONFIDENCE,
    FEWEST_TO_TEST,
    FLIPS,
    Intervals,
    is_reproduced,
    simultaneous_intervals,
)

SCHEMA_VERSION = 1
HEAD = ("layer", "head")


# --- what is judged, without files -----------------------------------------------------------------------------


def is_claimed(intervals: Intervals, band: float | None, floor: float | None) -> np.ndarray:
    """Return whether each change [*unit] excludes zero and exceeds both limits; nothing is claimed without a band."""
    if band is None:
        return np.zeros(intervals.mean.shape, bool)
    size = np.abs(intervals.mean)
    return intervals.excludes_zero & (size > band) & (size > (floor or 0.0))


def is_task_specific(task: Intervals, control: Intervals) -> np.ndarray:
    """Return whether the end of the task's interval nearer to zero is larger than the farther one of general text's;
    absolute values, [*unit]. The two need not have the same sign."""
    near = np.maximum(np.maximum(task.low, -task.high), 0)
    return near > np.maximum(np.abs(control.low), np.abs(control.high))


def since(intervals: Intervals, steps: Sequence[int]) -> list[int | None]:
    """Return for each unit the first step from which on every interval [step, unit] excludes zero on the same side."""
    side = np.where(intervals.excludes_zero, np.sign(intervals.mean), 0)
    same = (side == side[-1]) & (side[-1] != 0)
    length = np.logical_and.accumulate(same[::-1], axis=0).sum(axis=0)
    return [steps[len(steps) - n] if n else None for n in length]


def verdict(differs: bool, claimed: bool, task_specific: bool | None, causal: bool | None) -> str:
    """The strongest of VERDICTS that holds; only a claimed change can be task-specific or causal."""
    if not claimed:
        return "differs" if differs else "none"
    return "causal" if causal else "task-specific" if task_specific else "claimed"


# --- one run ---------------------------------------------------------------------------------------------------


def claims(m: Measurements) -> dict[str, Any]:
    """Return the content of claims.json: each measure, and the change of each of its units at the last snapshot.

    Numbers have six digits, undefined ones are None.
    """
    steps = m.steps
    notes: dict[str, None] = {}
    names = [measure.name for measure in CLAIMED]
    controls = [f"control_{measure.name}" for measure in CLAIMED if measure.control]
    series = m.series([*names, *controls, "ablation_exact"], notes=notes)
    against = comparisons(m, series.get("ablation_exact"), notes)
    measures, changes = {}, []
    for measure in CLAIMED:
        one, control = series.get(measure.name), series.get(f"control_{measure.name}")
        measures[measure.name], entries = _judge(measure, one, control, against, m)
        changes += entries
    measured = [measure.name for measure in CLAIMED if measure.never_negative and measure.name in series]
    if measured:
        notes[f"{' and '.join(measured)} can't be negative: their intervals say nothing, only the band does."] = None
    return _rounded(
        {
            "schema_version": SCHEMA_VERSION,
            "run": m.paths.run_name,
            "step": steps[-1],
            "steps": steps,
            "confidence": CONFIDENCE,
            "flips": FLIPS,
            "notes": list(notes),
            "measures": measures,
            "changes": changes,
        }
    )


def write_claims(m: Measurements) -> Path:
    """Write claims.json beside the snapshots' manifests; returns its path."""
    path = m.paths.metrics / "claims.json"
    write_json(path, claims(m))
    return path


# --- one measure -----------------------------------------------------------------------------------------------


def _judge(
    measure: Measure,
    series: Series | None,
    control: Series | None,
    against: Comparisons,
    m: Measurements,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (the measure's entry of "measures", those of its units in "changes")."""
    band, floor = against.bands.get(measure.name), against.floors.get(measure.name)
    entry = {
        "unit_axes": list(measure.unit_axes),
        "n_units": 0,
        "n_probes": 0,
        "n_clusters": 0,
        "critical": None,
        "band": band,
        "floor": floor,
        "steps": [] if series is None else series.steps,
        "claimed": 0,
        "why_none": _missing(measure, series, m.steps),
    }
    if entry["why_none"] is not None:
        return entry, []
    assert series is not None  # _missing has said so otherwise
    differences = series.differences()
    family = simultaneous_intervals(differences)
    last = family.at(-1)
    general = None
    if spans(control, m.steps):
        general = simultaneous_intervals(control.differences()).at(-1)
    claimed = is_claimed(last, band, floor)
    entry |= {
        "n_units": last.mean.size,
        "n_probes": int(np.isfinite(series.values[-1] - series.values[0]).any(axis=1).sum()),
        "n_clusters": int(np.isfinite(differences[:, -1]).any(axis=1).sum()),
        "critical": family.critical,
        "claimed": int(claimed.sum()),
    }
    entry["why_none"] = None if claimed.any() else _why_none(entry, last)
    return entry, _entries(series, family, general, claimed, entry, against, m)


def _entries(
    series: Series,
    family: Intervals,
    general: Intervals | None,
    claimed: np.ndarray,
    entry: Mapping[str, Any],
    against: Comparisons,
    m: Measurements,
) -> list[dict[str, Any]]:
    """One entry of "changes" for each unit."""
    measure, last, before = series.measure, family.at(-1), series.before()
    halves, began = series.change_by_half(), since(family, series.steps[1:])
    specific = None if general is None else is_task_specific(last, general)
    ablation = against.ablation if measure.unit_axes == HEAD else None
    seeds = [changes[measure.name] for changes in against.seeds if measure.name in changes]
    reproduced = is_reproduced(np.array([last.mean, *seeds]))
    null = against.null_entry(measure.name)
    labels = {axis: m.labels(axis) for axis in measure.unit_axes}
    sizes = [len(labels[axis]) for axis in measure.unit_axes]
    entries = []
    for i, position in enumerate(np.ndindex(*sizes)):
        is_specific = (
            None if general is None or specific is None or not np.isfinite(general.p[i]) else bool(specific[i])
        )
        cost = None if ablation is None else _ablation_entry(ablation, i)
        is_causal = None if ablation is None or not np.isfinite(ablation[1].p[i]) else _causal(ablation, i)
        entries.append(
            {
                "measure": measure.name,
                "unit": {axis: labels[axis][k] for axis, k in zip(measure.unit_axes, position, strict=True)},
                "step": series.steps[-1],
                "before": before[i],
                "after": before[i] + last.mean[i],
                "change": last.mean[i],
                "low": last.low[i],
                "high": last.high[i],
                "p": last.p[i],
                "change_by_half": None if halves is None else [half[i] for half in halves],
                "band": entry["band"],
                "floor": entry["floor"],
                "control": None if general is None else _range(general, i),
                "ablation": cost,
                "null_run": None if null is None else {**null, "change": null["change"][i]},
                "claimed": bool(claimed[i]),
                "task_specific": is_specific,
                "causal": is_causal,
                "reproduced": None if reproduced is None or np.isnan(last.mean[i]) else bool(reproduced[i]),
                "verdict": verdict(bool(last.excludes_zero[i]), bool(claimed[i]), is_specific, is_causal),
                "since": began[i],
            }
        )
    return entries


def _range(intervals: Intervals, i: int) -> dict[str, float]:
    return {"change": intervals.mean[i], "low": intervals.low[i], "high": intervals.high[i]}


def _ablation_entry(ablation: tuple[np.ndarray, Intervals, Intervals], i: int) -> dict[str, float]:
    before, after, change = ablation
    cost = {"before": before[i], "after": after.mean[i], "low": after.low[i], "high": after.high[i]}
    return cost | {"change": change.mean[i], "change_low": change.low[i], "change_high": change.high[i]}


def _causal(ablation: tuple[np.ndarray, Intervals, Intervals], i: int) -> bool:
    """Return whether taking the head away costs something now, and another amount than at step 0."""
    return bool(ablation[1].excludes_zero[i] and ablation[2].excludes_zero[i])


def _missing(measure: Measure, series: Series | None, steps: list[int]) -> str | None:
    """Return why there is no change to look at; None if there is one."""
    if series is None:
        return f"It was not measured: --measures is without {measure.group}, or this run has nothing to measure it on."
    if series.steps[0] != 0:
        return "There is no snapshot of step 0 to compare with."
    if series.steps[-1] != steps[-1]:
        return f"The last snapshot, of step {steps[-1]}, does not have it intact."
    if len(series.steps) == 1:
        return "There is only one snapshot: nothing can have changed yet."
    defined = np.isfinite(series.values[-1] - series.values[0]).any()
    return None if defined else "It is not defined on any of this run's probes."


def _why_none(entry: Mapping[str, Any], last: Intervals) -> str:
    """Return why no change is claimed: what is missing, else what was found."""
    differ = int(last.excludes_zero.sum())
    if entry["n_clusters"] < FEWEST_TO_TEST:
        return (
            f"The probes form {entry['n_clusters']} clusters; below {FEWEST_TO_TEST} too few patterns of signs "
            f"exist for a test at {1 - CONFIDENCE:.0%}."
        )
    if entry["band"] is None:
        return "Random perturbations of the base were not measured at the last snapshot, so there is no band to exceed."
    if not differ:
        return "No change's interval excludes zero."
    limit = max(entry["band"], entry["floor"] or 0.0)
    return f"{differ} of {entry['n_units']} differ from zero, none by more than the band ({limit:.3g})."


def _rounded(value: Any) -> Any:
    """Six digits of every number: more would depend on how many threads added it up. None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


# --- in words --------------------------------------------------------------------------------------------------


def summary(claims: Mapping[str, Any]) -> list[str]:
    """Lines for the console: of each measure how many units are claimed, or why none is."""
    lines = [f"changes from step 0 to {claims['step']} that may be claimed:"]
    unmeasured = []
    for name, entry in claims["measures"].items():
        units = [change for change in claims["changes"] if change["measure"] == name]
        if not entry["steps"]:
            unmeasured.append(name)
            continue
        said = entry["why_none"]
        if said is None:
            chosen = [unit for unit in units if unit["claimed"]]
            said = f"{len(chosen)} of {entry['n_units']} {_plural(entry)}" if entry["unit_axes"] else "yes"
            more = [
                f"{count} {word}" if entry["unit_axes"] else word
                for key, word in (
                    ("task_specific", "task-specific"),
                    ("causal", "causal"),
                    ("reproduced", "reproduced"),
                )
                if (count := sum(bool(unit[key]) for unit in chosen))
            ]
            said += f" ({', '.join(more)})" if more else ""
        lines.append(f"  {name:22} {said}")
    if unmeasured:
        lines.append(f"  not measured: {', '.join(unmeasured)}")
    return lines


def _plural(entry: Mapping[str, Any]) -> str:
    return {HEAD: "heads", ("hidden_layer",): "layers"}.get(tuple(entry["unit_axes"]), "units")
