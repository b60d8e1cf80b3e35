"""The report's tables of what may be claimed, of ablated heads, and of what measuring cost."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.numbers import Cell, rounded, signed
from gpt2_interp.snapshots.table import MEASURE

VERDICTS = {
    "none": "the interval of the change contains zero.",
    "differs": "the interval excludes zero, but the change is no larger than the band or the floor, or there is no "
    "band; nearly every unit differs after training, so this alone means little.",
    "claimed": "the interval excludes zero, and the change is larger than the largest that random perturbations of the "
    "base, each matrix by as much as training changed it, make to any unit (the band), and than what the precision of "
    "training alone makes (the floor).",
    "task-specific": "claimed, and larger than the same unit's change on general text.",
    "causal": "claimed, and taking the head away now costs something, and another amount than at step 0.",
    "reproduced": "runs with other seeds change it the same way, by more than they differ among each other; it stands "
    "beside the verdict, and only where such runs were given.",
}
PLURALS = {("layer", "head"): "heads", ("hidden_layer",): "hidden layers", (): "number"}
STRONGEST = 3  # of each measure, in the table that is open
MOST_ROWS = 400  # of the table that is folded away
MOST_HEADS = 12  # in the table of ablated heads


def claims_section(m: Measurements) -> dict[str, Any]:
    """Return what the template shows of claims.json: sentence, notes, summary rows, rows of claimed changes."""
    claims = m.claims
    if not claims:
        sentence = "claims.json is missing: run visualize_metrics.py, which tests the changes and writes it."
        empty = dict.fromkeys(("why", "notes", "summary", "strongest", "all"), ())
        return {"sentence": sentence, **empty, "left_out": 0, "has_null": False}
    claimed = [change for change in claims["changes"] if change["claimed"]]
    claimed.sort(key=lambda change: -_times_band(change))
    by_measure = [[c for c in claimed if c["measure"] == name] for name in claims["measures"]]
    ordered = [change for group in by_measure for change in group]
    tested = sum(entry["n_units"] for entry in claims["measures"].values())
    return {
        "sentence": _sentence(claims, len(claimed), tested),
        "why": _reasons(claims) if not claimed else [],
        "notes": [str(note) for note in claims.get("notes", ())],
        "summary": [_summary_row(name, entry, claims) for name, entry in claims["measures"].items()],
        "strongest": [change_row(change) for group in by_measure for change in group[:STRONGEST]],
        "all": [change_row(change) for change in ordered[:MOST_ROWS]],
        "left_out": max(0, len(ordered) - MOST_ROWS),
        "has_null": any(change.get("null_run") for change in ordered),
    }


def _sentence(claims: Mapping[str, Any], n_claimed: int, tested: int) -> str:
    if not n_claimed:
        return f"Nothing is claimed: {tested} changes between step 0 and step {claims['step']} were tested."
    return (
        f"{n_claimed} of {tested} changes between step 0 and step {claims['step']} are claimed. Intervals are "
        f"{claims['confidence']:.0%} and simultaneous over all units and snapshots of one measure, from resampled "
        f"clusters of probes ({claims['flips']:,} sign flips, and the bootstrap where that is wider)."
    )


def _reasons(claims: Mapping[str, Any]) -> list[str]:
    """Each reason once, with the measures that it holds for."""
    names: dict[str, list[str]] = {}
    for name, entry in claims["measures"].items():
        if entry["why_none"]:
            names.setdefault(entry["why_none"], []).append(name)
    return [f"{', '.join(measures)}: {reason}" for reason, measures in names.items()]


def _times_band(change: Mapping[str, Any]) -> float:
    """Return how many times the band a change is."""
    return abs(change["change"] or 0) / change["band"] if change["band"] else 0.0


def _summary_row(name: str, entry: Mapping[str, Any], claims: Mapping[str, Any]) -> dict[str, str]:
    """Return the row of one measure: "x of y heads", and how many of them are more than claimed."""
    claimed = [change for change in claims["changes"] if change["measure"] == name and change["claimed"]]
    unit = PLURALS.get(tuple(entry["unit_axes"]), "units")
    of = f"{entry['claimed']} of {entry['n_units']} {unit}" if entry["unit_axes"] else ("yes" if claimed else "no")
    more = {"task-specific": "task_specific", "causal": "causal", "reproduced": "reproduced"}
    counts = [f"{n} {word}" for word, key in more.items() if (n := sum(bool(change.get(key)) for change in claimed))]
    return {
        "name": name,
        "unit": MEASURE[name].unit,
        "meaning": MEASURE[name].meaning,
        "claimed": of if entry["n_units"] else "–",
        "more": ", ".join(counts),
        "band": rounded(entry["band"]),
        "floor": rounded(entry["floor"]),
        "probes": f"{entry['n_probes']} ({entry['n_clusters']} clusters)" if entry["n_units"] else "–",
        "why": entry["why_none"] or "",
    }


def change_row(change: Mapping[str, Any]) -> dict[str, Any]:
    """One change for the table: texts and cells."""
    ablation, null, control = (change.get(name) for name in ("ablation", "null_run", "control"))
    verdict = change["verdict"] + (", reproduced" if change.get("reproduced") else "")
    return {
        "measure": change["measure"],
        "where": unit_name(change["unit"]),
        "levels": f"{rounded(change['before'])} → {rounded(change['after'])}",
        "change": _cell(change["change"], change),
        "unit": MEASURE[change["measure"]].unit,
        "band": rounded(change["band"]),
        "control": _cell(control["change"], control) if control else Cell(),
        "ablation": _cell(ablation["after"], ablation) if ablation else Cell(),
        "null_run": Cell(null["change"], write=signed, remark=null["run"]) if null else None,
        "verdict": verdict,
        "since": "–" if change.get("since") is None else f"step {change['since']}",
    }


def unit_name(unit: Mapping[str, str]) -> str:
    """Name a unit: "layer 1, head 2"; hidden layers carry their own names; a measure with one value has no unit."""
    parts = [str(label) if axis == "hidden_layer" else f"{axis} {label}" for axis, label in unit.items()]
    return ", ".join(parts) or "all probes"


def _cell(value: float | None, bounds: Mapping[str, Any]) -> Cell:
    """A value with its interval: too few clusters, or a few that decide all, give none."""
    return Cell(value, bounds["low"], bounds["high"], signed, remark="no interval")


def claimed_heads(m: Measurements) -> str:
    """Return "3 of 72": heads with at least one claimed change; a dash where no head was tested."""
    heads: dict[tuple[str, str], bool] = {}
    for change in m.claims.get("changes", ()):
        if set(change["unit"]) == {"layer", "head"}:
            head = change["unit"]["layer"], change["unit"]["head"]
            heads[head] = heads.get(head, False) or change["claimed"]
    return f"{sum(heads.values())} of {len(heads)}" if heads else "–"


# --- causes --------------------------------------------------------------------------------------------------------


def ablation_section(m: Measurements) -> dict[str, Any]:
    """Heads whose removal costs most, by the ablation entries of claims.json: rows, and how many differ from zero."""
    by_head: dict[str, Mapping[str, Any]] = {}
    claimed_for: dict[str, list[str]] = {}
    for change in m.claims.get("changes", ()):
        if change.get("ablation") and change["ablation"]["after"] is not None:
            head = unit_name(change["unit"])
            by_head[head] = change["ablation"]
            if change["claimed"]:
                claimed_for.setdefault(head, []).append(change["measure"])
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
                "claimed": ", ".join(claimed_for.get(head, ())) or "–",
            }
            for head in order[:MOST_HEADS]
        ],
    }


def _excludes_zero(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and (low > 0 or high < 0)


# --- costs ---------------------------------------------------------------------------------------------------------


def costs_section(m: Measurements) -> dict[str, Any]:
    """Seconds of each group of measures over all snapshots, from their manifests, and bytes on disk."""
    manifests = [m.store.manifest(step) for step in m.steps]
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
