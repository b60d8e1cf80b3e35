"""Tests of the changes since step 0, from the snapshot store alone: claims.json.

Every change of every tested measure is judged, unit by unit (a head, a layer, or the model), by each comparison that
the run has (`judged.py`). Which words follow from which comparison: `claim_words.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_interp.analysis.changes import Comparisons, as_entry, comparisons
from gpt2_interp.analysis.claim_words import missing_tests, why_nothing, why_unmeasured, words
from gpt2_interp.analysis.judged import Judged, counted_changes, is_larger_than_general
from gpt2_interp.analysis.measurements import CLAIMS_VERSION, Measurements, Series
from gpt2_interp.analysis.restorations import Restoration, restoration
from gpt2_interp.files import write_json
from gpt2_interp.snapshots.table import CLAIMED, Measure
from gpt2_interp.statistics.simultaneous import CONFIDENCE, Intervals

HEAD = ("layer", "head")


def claims(m: Measurements) -> dict[str, Any]:
    """Return the content of claims.json: each measure, and the change of each of its units at the last snapshot.

    Numbers have six digits, undefined ones are None. `claim_words.FIELDS` describes each key.
    """
    notes: dict[str, None] = {}
    series = m.series([measure.name for measure in CLAIMED], notes=notes)
    against = comparisons(m, notes)
    why = {measure.name: why_unmeasured(measure, series.get(measure.name), m.steps) for measure in CLAIMED}
    tested = {name: Judged(one, against) for name, one in series.items() if why[name] is None}
    counted = counted_changes(tested)
    measures, changes = {}, []
    for measure in CLAIMED:
        if measure.name not in tested:
            measures[measure.name] = _unmeasured(measure, series.get(measure.name), why[measure.name])
            continue
        one = tested[measure.name]
        asked = one.worth_a_cause
        restored = restoration(m, measure.name, asked) if measure.unit_axes == HEAD and asked.any() else None
        entries = [
            _entry(one, i, unit, bool(counted[measure.name][i]), restored, against)
            for i, unit in enumerate(_units(measure, m))
        ]
        measures[measure.name] = _summary(one, entries, restored, against)
        changes += entries
    notes |= _notes(tested)
    return _rounded(
        {
            "schema_version": CLAIMS_VERSION,
            "run": m.paths.run_name,
            "step": m.steps[-1],
            "steps": m.steps,
            "confidence": CONFIDENCE,
            "comparisons": {
                "perturbations": max((len(draws) for draws in against.draws.values()), default=0),
                "training_on_base_text": [run.name for run in against.training],
                "permuted_targets": None if against.style is None else against.style.name,
                "seeds": len(against.seeds) + 1,
            },
            "notes": list(notes),
            "measures": measures,
            "changes": changes,
        }
    )


def write_claims(m: Measurements) -> Path:
    """Write claims.json beside the snapshots' manifests; returns its path."""
    path = m.claims_file
    write_json(path, claims(m))
    return path


def current_claims(m: Measurements) -> dict[str, Any]:
    """Return claims.json of a run; computed anew where there is none, or where another version of the rules wrote
    it."""
    return m.claims or claims(m)


# --- as claims.json has it -------------------------------------------------------------------------------------


def _units(measure: Measure, m: Measurements) -> list[dict[str, str]]:
    """The units of a measure: their labels by axis."""
    labels = [m.labels(axis) for axis in measure.unit_axes]
    sizes = [len(each) for each in labels]
    return [
        {axis: labels[k][place] for k, (axis, place) in enumerate(zip(measure.unit_axes, position, strict=True))}
        for position in np.ndindex(*sizes)
    ]


def _entry(
    one: Judged,
    i: int,
    unit: dict[str, str],
    counted: bool,
    restored: Restoration | None,
    against: Comparisons,
) -> dict[str, Any]:
    """One entry of "changes"."""
    last, half = one.last, one.half
    runs = against.of_training(one.measure.name)
    ablation = against.ablation if one.measure.unit_axes == HEAD else None
    entry: dict[str, Any] = {
        "measure": one.measure.name,
        "unit": unit,
        "step": one.series.steps[-1],
        "before": one.before[i],
        "after": one.before[i] + last.mean[i],
        "change": last.mean[i],
        "low": last.low[i],
        "high": last.high[i],
        "p": last.p[i],
        "change_by_half": None if one.by_half is None else [change[i] for change in one.by_half],
        "times_noise": one.times[i],
        "half_change": {"step": half[0][i], "low": half[1][i], "high": half[2][i]},
        "general_text": None if one.general is None else as_entry(one.general, i),
        "other_article": None if one.own_article is None else as_entry(one.own_article, i),
        "training_on_base_text": None if runs is None else np.abs(runs[:, i]).max(),
        "permuted_targets": None if one.of_style is None else one.of_style[i],
        "ablation": None if ablation is None else _ablation_entry(ablation, i),
        "restoration": None if restored is None or not one.worth_a_cause[i] else restored.entry(i),
        "differs": bool(last.excludes_zero[i]),
        "beyond_noise": bool(one.beyond_noise[i]),
        "large": bool(one.large[i]),
        "counted": counted,
        "beyond_training": _at(one.beyond_training, i, one.beyond_noise[i]),
        "larger_than_on_general_text": _general(one, i),
        "content_specific": _content(one, i),
        "change_matters": None if restored is None or not one.worth_a_cause[i] else restored.word(i),
        "head_matters": _head_matters(ablation, i),
        "reproduced": _at(one.reproduced, i, True),
    }
    return entry | {"words": words(entry)}


def _at(found: np.ndarray | None, i: int, applies: bool | np.bool_) -> bool | None:
    """One unit of an answer; None where the question was not asked, False where what it builds on does not hold."""
    return None if found is None else bool(found[i] and applies)


def _content(one: Judged, i: int) -> bool | None:
    """None also where the difference between the two articles has no interval: that is no word about the format."""
    if one.own_article is None or not np.isfinite(one.own_article.low[i]):
        return None
    return _at(one.content_specific, i, one.beyond_noise[i])


def _general(one: Judged, i: int) -> bool | None:
    if one.general is None or not np.isfinite(one.general.p[i]):
        return None
    return bool(is_larger_than_general(one.last, one.general)[i])


def _ablation_entry(ablation: tuple[np.ndarray, Intervals, Intervals], i: int) -> dict[str, float]:
    before, after, change = ablation
    cost = {"before": before[i], "after": after.mean[i], "low": after.low[i], "high": after.high[i]}
    return cost | {"change": change.mean[i], "change_low": change.low[i], "change_high": change.high[i]}


def _head_matters(ablation: tuple[np.ndarray, Intervals, Intervals] | None, i: int) -> bool | None:
    """Return whether taking the head away changes the loss of the target now."""
    if ablation is None or not np.isfinite(ablation[1].p[i]):
        return None
    return bool(ablation[1].excludes_zero[i])


def _summary(
    one: Judged, entries: list[dict[str, Any]], restored: Restoration | None, against: Comparisons
) -> dict[str, Any]:
    """The entry of a measure in "measures"."""
    values, last = one.series.values, one.last
    counts = {
        key: sum(entry[key] is True for entry in entries)
        for key in ("differs", "beyond_noise", "counted", "beyond_training", "content_specific", "reproduced")
    }
    counts["change_matters"] = sum(entry["change_matters"] in ("helps", "hurts") for entry in entries)
    entry = {
        "unit_axes": list(one.measure.unit_axes),
        "n_units": last.mean.size,
        "n_probes": int(np.isfinite(values[-1] - values[0]).any(axis=1).sum()),
        "n_clusters": int(np.isfinite(one.differences[:, -1]).any(axis=1).sum()),
        "critical": last.critical,
        "patterns": last.patterns,
        "band": one.band,
        "floor": one.floor,
        "smallest": one.measure.smallest,
        "steps": one.series.steps,
        "counts": counts,
        "missing": missing_tests(one, restored, against),
    }
    return entry | {"why_none": why_nothing(entry)}


def _unmeasured(measure: Measure, series: Series | None, why: str | None) -> dict[str, Any]:
    empty = dict.fromkeys(("critical", "band", "floor"))
    return {
        "unit_axes": list(measure.unit_axes),
        **dict.fromkeys(("n_units", "n_probes", "n_clusters", "patterns"), 0),
        **empty,
        "smallest": measure.smallest,
        "steps": [] if series is None else series.steps,
        "counts": {},
        "missing": [],
        "why_none": why,
    }


def _notes(tested: Mapping[str, Judged]) -> dict[str, None]:
    found: dict[str, None] = {}
    signless = [name for name, one in tested.items() if one.measure.never_negative]
    if signless:
        found[f"{' and '.join(signless)} can't be negative: their intervals say nothing, only the band does."] = None
    for name, one in tested.items():
        ruled = int(np.isinf(one.last.high).sum())
        if ruled:
            found[f"{name}: {ruled} units have no interval, because a few clusters decide their change."] = None
    return found


def _rounded(value: Any) -> Any:
    """Six digits of every number: more would depend on how many threads added it up. None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
