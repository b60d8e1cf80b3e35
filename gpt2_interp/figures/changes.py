"""Attention heads that changed by more than chance: maps of the changes in claims.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.kinds import ablation_maps
from gpt2_interp.figures.numbers import Cell, rounded, signed
from gpt2_interp.figures.panels import (
    INSIDE,
    NO_BAND,
    SHOWN,
    MapPanel,
    Maps,
    heading,
    measure_label,
    not_measured,
    plain_unit,
    symmetric_range,
)
from gpt2_interp.figures.registry import HEAD_MEASURES
from gpt2_interp.snapshots.table import MEASURE
from gpt2_interp.statistics.intervals import nan_mean

SUBJECT = "Change of every attention head since step 0"
TITLE = f"{SUBJECT} (framed and counted: beyond noise over all measures; pale: within noise, or too small)"


MARKS = {"helps": "+", "hurts": "-"}  # words have no room in a cell


def head_change_panels(m: Measurements) -> list[MapPanel]:
    """One map [layer, head] for each claimed measure of heads, and one of the exact ablation.

    Raises InputError if claims.json has no change of a head, and says why.
    """
    if not any(change["measure"] in HEAD_MEASURES for change in m.claims.get("changes", ())):
        entries = [m.claims["measures"].get(name, {}) for name in HEAD_MEASURES] if m.claims else []
        reasons = dict.fromkeys(entry["why_none"] for entry in entries if entry.get("why_none"))
        why = " ".join(reasons) or "claims.json is missing; visualize_metrics.py writes it."
        raise InputError(f"run {m.paths.run_name!r} has no tested changes of attention heads: {why}")
    return [*(_change_map(m, name) for name in HEAD_MEASURES), _ablation_map(m)]


def head_changes(m: Measurements, name: str) -> list[tuple[tuple[int, int], dict[str, Any]]]:
    """Return ((layer, head), change) of one measure, as claims.json has it."""
    layers, heads = m.labels("layer"), m.labels("head")
    return [
        ((layers.index(change["unit"]["layer"]), heads.index(change["unit"]["head"])), change)
        for change in m.claims.get("changes", ())
        if change["measure"] == name
    ]


def _change_map(m: Measurements, name: str) -> MapPanel:
    """Return a map that is coloured only where the change exceeds the band; without a band nothing is."""
    changes = head_changes(m, name)
    if not changes:
        why = m.claims["measures"].get(name, {}).get("why_none")
        return MapPanel(heading(name), measure_label(name), note=why or not_measured(name))
    shape = len(m.labels("layer")), len(m.labels("head"))
    values, outlined = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    state = np.full(shape, NO_BAND)
    hover = [[f"layer {i}, head {j}: no value" for j in range(shape[1])] for i in range(shape[0])]
    texts = [[""] * shape[1] for _ in range(shape[0])]
    for (i, j), change in changes:
        values[i, j] = np.nan if change["change"] is None else change["change"]
        state[i, j] = cell_state(change)
        outlined[i, j] = change["counted"]
        texts[i][j] = MARKS.get(change["change_matters"], "")
        hover[i][j] = f"layer {i}, head {j}<br>" + "<br>".join(describe(change, MEASURE[name].unit))
    smallest = 0.0 if MEASURE[name].as_factor else MEASURE[name].smallest
    half = max(symmetric_range(values), smallest)  # nothing too small to matter looks like much
    return MapPanel(
        f"{heading(name)}: {outlined.sum()} of {outlined.size}",
        plain_unit(name),
        m.labels("layer"),
        m.labels("head"),
        values,
        (0.0, half) if MEASURE[name].never_negative else (-half, half),
        diverging=not MEASURE[name].never_negative,
        colors="Reds",
        state=state,
        outlined=outlined,
        hover=hover,
        texts=texts if any(map(any, texts)) else None,
        note="no band was measured (size in grey)" if (state == NO_BAND).all() else "",
    )


def cell_state(change: dict[str, Any]) -> int:
    """Return SHOWN for a change beyond noise that is no smaller than the smallest effect of interest, INSIDE for less,
    NO_BAND where there is no band."""
    if change["times_noise"] is None:
        return NO_BAND
    return SHOWN if change["beyond_noise"] and change["large"] else INSIDE


def describe(change: dict[str, Any], unit: str) -> list[str]:
    """One change in a few short lines."""
    lines = [
        f"{Cell(change['change'], change['low'], change['high'], signed)} {unit}",
        f"from {rounded(change['before'])} to {rounded(change['after'])}",
        "no band" if change["times_noise"] is None else f"{change['times_noise']:.1f} times its noise",
        ", ".join(change["words"]) or "no difference",
    ]
    if change["half_change"]["step"] is not None:
        lines[-1] += f", half of it by step {change['half_change']['step']:.0f}"
    return lines


def _ablation_map(m: Measurements) -> MapPanel:
    """Mean cost of taking each head away at the last snapshot that measured it; pale where the interval holds 0."""
    name = "ablation_exact"
    try:
        steps, values = m.stack(name)  # [step, few_example, layer, head]
    except InputError:
        return MapPanel(heading(name), measure_label(name), note=not_measured(name))
    mean = nan_mean(values[-1], axis=0)
    state, outlined = np.full(mean.shape, NO_BAND), np.zeros(mean.shape, dtype=bool)
    hover = [[f"layer {i}, head {j}: {signed(mean[i, j])}" for j in range(mean.shape[1])] for i in range(len(mean))]
    for measure in HEAD_MEASURES:
        for (i, j), change in head_changes(m, measure):
            bounds = change.get("ablation")
            if not bounds or bounds["low"] is None:
                continue
            state[i, j] = SHOWN if bounds["low"] > 0 or bounds["high"] < 0 else INSIDE
            outlined[i, j] = bool(change["head_matters"])
            hover[i][j] = (
                f"layer {i}, head {j}: {Cell(mean[i, j], bounds['low'], bounds['high'], signed)}"
                f" nats/token<br>before training {signed(bounds['before'])}"
            )
    half = symmetric_range(mean)
    return MapPanel(
        f"{heading(name)}, step {steps[-1]}",
        plain_unit(name),
        m.labels("layer"),
        m.labels("head"),
        mean,
        (-half, half),
        diverging=True,
        state=state,
        outlined=outlined,
        hover=hover,
        note="no interval was computed (size in grey)"
        if (state == NO_BAND).all()
        else "framed: the head matters now" + ("; hatched: no interval" if (state == NO_BAND).any() else ""),
    )


def head_changes_layout(m: Measurements) -> Maps:
    panels = [*head_change_panels(m), *ablation_maps(m)]
    n_layer = len(m.labels("layer"))
    height = max(1.6, 0.125 * n_layer + 0.9)
    return Maps(TITLE, panels, 3, height, 3, max(300, 17 * n_layer + 140), page_title=SUBJECT)
