"""The report's tables of what may be claimed, of ablated heads, and of what measuring cost."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from statistics import median
from typing import Any

from gpt2_interp.analysis.claim_words import COUNTED_WORDS, unit_plural
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.numbers import Cell, rounded, signed
from gpt2_interp.snapshots.table import MEASURE

STRONGEST = 3  # of each measure, in the table that is open
MOST_ROWS = 400  # of the table that is folded away
MOST_HEADS = 12  # in the table of ablated heads


def claims_section(m: Measurements) -> dict[str, Any]:
    """Return what the template shows of claims.json: sentence, notes, summary rows, rows of changes beyond noise."""
    claims = m.claims
    if not claims:
        sentence = "claims.json is missing: run visualize_metrics.py, which tests the changes and writes it."
        empty = dict.fromkeys(("why", "missing", "notes", "summary", "strongest", "all"), ())
        return {"sentence": sentence, **empty, "left_out": 0}
    found = [change for change in claims["changes"] if change["beyond_noise"]]
    by_measure = [sorted((c for c in found if c["measure"] == name), key=_choice) for name in claims["measures"]]
    ordered = [change for group in by_measure for change in group]
    return {
        "sentence": _sentence(claims),
        "why": _by_sentence({name: [entry["why_none"]] for name, entry in claims["measures"].items()})
        if not found
        else [],
        "missing": _by_sentence({name: entry["missing"] for name, entry in claims["measures"].items()}),
        "notes": [str(note) for note in claims.get("notes", ())],
        "summary": [_summary_row(name, entry) for name, entry in claims["measures"].items()],
        "strongest": [change_row(change) for group in by_measure for change in group[:STRONGEST]],
        "all": [change_row(change) for change in ordered[:MOST_ROWS]],
        "left_out": max(0, len(ordered) - MOST_ROWS),
    }


def _sentence(claims: Mapping[str, Any]) -> str:
    tested = sum(entry["n_units"] for entry in claims["measures"].values())
    found, counted = (
        sum(entry["counts"].get(key, 0) for entry in claims["measures"].values()) for key in ("beyond_noise", "counted")
    )
    what = f"of {tested} changes between step 0 and step {claims['step']}"
    if not found:
        return f"None {what} is beyond noise."
    patterns = sorted({entry["patterns"] for entry in claims["measures"].values() if entry["patterns"]})
    compared = " to ".join(f"{count:,}" for count in dict.fromkeys((patterns[0], patterns[-1])))
    return (
        f"{counted} {what} count: they are beyond noise with one error rate over all measures, and no smaller than the "
        f"smallest effect of interest. {found} are beyond noise measure by measure. Intervals are "
        f"{claims['confidence']:.0%} and simultaneous over the units of one measure, from resampled clusters of probes "
        f"({compared} patterns of signs, and the bootstrap where that is wider)."
    )


def _by_sentence(sentences: Mapping[str, list[str | None]]) -> list[str]:
    """Each sentence once, with the measures that it holds for."""
    names: dict[str, list[str]] = {}
    for name, of_measure in sentences.items():
        for sentence in of_measure:
            if sentence:
                names.setdefault(sentence, []).append(name)
    every = len(sentences)
    return [
        sentence if len(measures) == every else f"{', '.join(measures)}: {sentence}"
        for sentence, measures in names.items()
    ]


def _choice(change: Mapping[str, Any]) -> float:
    """Sorts the strongest first, by the first half of the probes alone, in multiples of the unit's noise: the second
    half, which is shown, had no say."""
    halves, times = change["change_by_half"], change["times_noise"]
    if not halves or halves[0] is None or not times or not change["change"]:
        return 0.0
    return -abs(halves[0]) * times / abs(change["change"])


def _summary_row(name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the row of one measure: "x of y heads", and what else holds of how many of them."""
    counts = entry["counts"]
    of = f"{counts.get('beyond_noise', 0)} of {entry['n_units']} {unit_plural(entry['unit_axes'])}"
    if not entry["unit_axes"]:
        of = "yes" if counts.get("beyond_noise") else "no"
    smallest = f"x {entry['smallest']:g}" if MEASURE[name].as_factor else f"{entry['smallest']:g}"
    return {
        "name": name,
        "unit": MEASURE[name].unit,
        "meaning": MEASURE[name].meaning,
        "found": of if entry["n_units"] else "–",
        "more": ", ".join(f"{counts[key]} {word}" for word, key in COUNTED_WORDS.items() if counts.get(key)),
        "band": "–" if entry["band"] is None else f"{entry['band']:.1f}",
        "smallest": smallest,
        "probes": f"{entry['n_probes']} ({entry['n_clusters']} clusters)" if entry["n_units"] else "–",
        "why": entry["why_none"] or "",
    }


def change_row(change: Mapping[str, Any]) -> dict[str, Any]:
    """One change for the table: texts and cells."""
    halves, half, restored = change["change_by_half"], change["half_change"], change["restoration"]
    return {
        "measure": change["measure"],
        "where": unit_name(change["unit"]),
        "words": ", ".join(change["words"]),
        "levels": f"{rounded(change['before'])} → {rounded(change['after'])}",
        "change": _cell(change["change"], change),
        "unit": MEASURE[change["measure"]].unit,
        "second_half": "–" if not halves else signed(halves[1]),
        "times_noise": "–" if change["times_noise"] is None else f"{change['times_noise']:.1f}",
        "general": _of(change["general_text"]),
        "other": _of(change["other_article"]),
        "restored": _cell(restored["needed"], restored) if restored else Cell(),
        "restored_kind": restored["kind"].replace("_", " ") if restored and restored["needed"] is not None else "",
        "ablation": _cell(change["ablation"]["after"], change["ablation"]) if change["ablation"] else Cell(),
        "half": _steps(half) if half["step"] is not None else "–",
    }


def _of(entry: Mapping[str, Any] | None) -> Cell:
    return _cell(entry["change"], entry) if entry else Cell()


def _steps(half: Mapping[str, float | None]) -> str:
    """ "step 8", with its interval where there is one and it has a width."""
    at = f"step {half['step']:.0f}"
    if half["low"] is None or half["high"] is None or half["low"] == half["high"]:
        return at
    return f"{at} ({half['low']:.0f} to {half['high']:.0f})"


def unit_name(unit: Mapping[str, str]) -> str:
    """Name a unit: "layer 1, head 2"; hidden layers carry their own names; a measure with one value has no unit."""
    parts = [str(label) if axis == "hidden_layer" else f"{axis} {label}" for axis, label in unit.items()]
    return ", ".join(parts) or "all probes"


def _cell(value: float | None, bounds: Mapping[str, Any]) -> Cell:
    """A value with its interval: too few clusters, or a few that decide all, give none."""
    return Cell(value, bounds["low"], bounds["high"], signed, remark="no interval")


def counted_heads(claims: Mapping[str, Any]) -> str:
    """Return "3 of 72": heads with at least one change that counts over measures; a dash where no head was tested."""
    heads: dict[tuple[str, str], bool] = {}
    for change in claims["changes"]:
        if set(change["unit"]) == {"layer", "head"}:
            head = change["unit"]["layer"], change["unit"]["head"]
            heads[head] = heads.get(head, False) or change["counted"]
    return f"{sum(heads.values())} of {len(heads)}" if heads else "–"


# --- causes --------------------------------------------------------------------------------------------------------


def ablation_section(m: Measurements) -> dict[str, Any]:
    """Heads whose removal costs most, by the ablation entries of claims.json: rows, and how many differ from zero."""
    by_head: dict[str, Mapping[str, Any]] = {}
    changed: dict[str, list[str]] = {}
    for change in m.claims.get("changes", ()):
        if change.get("ablation") and change["ablation"]["after"] is not None:
            head = unit_name(change["unit"])
            by_head[head] = change["ablation"]
            if change["beyond_noise"]:
                changed.setdefault(head, []).append(change["measure"])
    order = sorted(by_head, key=lambda head: -abs(by_head[head]["after"]))
    now = [head for head, entry in by_head.items() if _excludes_zero(entry["low"], entry["high"])]
    other = [head for head in now if _excludes_zero(by_head[head]["change_low"], by_head[head]["change_high"])]
    return {
        "n_heads": len(by_head),
        "n_cost": len(now),
        "n_changed": len(other),
        "rows": [
            {
                "head": head,
                "before": signed(by_head[head]["before"]),
                "after": _cell(by_head[head]["after"], by_head[head]),
                "changed": ", ".join(changed.get(head, ())) or "–",
            }
            for head in order[:MOST_HEADS]
        ],
    }


def _excludes_zero(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and (low > 0 or high < 0)


# --- costs ---------------------------------------------------------------------------------------------------------


def costs_section(m: Measurements) -> dict[str, Any]:
    """Seconds of each group of measures over all snapshots, from their manifests, and bytes on disk."""
    manifests = []
    for step in m.steps:
        with suppress(InputError):  # a damaged one: the claims' notes name it
            manifests.append(m.store.manifest(step))
    groups: dict[str, list[float]] = {}
    for manifest in manifests:
        for group, seconds in (manifest.get("seconds_by_group") or {}).items():
            groups.setdefault(group, []).append(float(seconds))
    in_groups = sum(sum(seconds) for seconds in groups.values())
    size = sum(entry["bytes"] for manifest in manifests for entry in manifest["files"].values())
    return {
        "seconds": f"{sum(float(manifest.get('seconds') or 0) for manifest in manifests):,.1f}",
        "snapshots": len(manifests),
        "megabytes": f"{size / 1e6:,.1f}",
        "rows": [
            {
                "group": group,
                "snapshots": len(seconds),
                "each": f"{median(seconds):.2f}",
                "total": f"{sum(seconds):,.1f}",
                "share": f"{sum(seconds) / in_groups:.0%}" if in_groups else "–",
            }
            for group, seconds in sorted(groups.items(), key=lambda item: -sum(item[1]))
        ],
        "tiers": [(manifest["step"], ", ".join(manifest["tier"])) for manifest in manifests if manifest.get("tier")],
    }
