"""Learning over the optimizer step: losses, use of the source, twins, movement of the hidden states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.kinds import kind_panels
from gpt2_interp.figures.over_time import drift_panel, loss_panel
from gpt2_interp.figures.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    Line,
    LinePanel,
    Lines,
    measure_label,
    not_measured,
)
from gpt2_interp.statistics.intervals import bootstrap_band, nan_mean

BAND = "95% bootstrap over "
TITLE = "What was learned (bands: 95% bootstrap)"
FORGOTTEN = 0.1  # nats a token: what a loss may rise without a word
TWIN_CHANCE = 0.25  # both orders of a pair right by two coin flips


def timeline_panels(m: Measurements) -> list[LinePanel]:
    """Loss, context gain and twins, each beside its numbers by kind of token, and displacement on probes and on general
    text."""
    gain = _panel(
        m,
        "Gain from the own source",
        measure_label("context_gain"),
        {
            "context_gain": ("all tokens", BLUE),
            "context_gain_copied": ("copied tokens", ORANGE),
            "context_gain_new": ("new tokens", GREEN),
        },
        at=(0, "no gain"),
    )
    effect = _panel(
        m,
        "Twins: effect of one swapped fact",
        measure_label("twin_effect"),
        {"twin_effect": ("effect", BLUE)},
        at=(0, "no effect"),
    )
    right = _panel(
        m,
        "Twins: both orders right",
        measure_label("twin_right"),
        {"twin_right": ("accuracy", BLUE)},
        at=(TWIN_CHANCE, f"chance {TWIN_CHANCE:g}"),
    )
    loss_by_kind, *losses = kind_panels(m, "probe_loss", "Loss", log_y=True)
    gain_by_kind, *gains = kind_panels(m, "context_gain", "Gain")
    if losses and not gain.lines:  # plain text: it has no source to gain from, and is divided twice
        return [_losses(m), loss_by_kind, gain, *losses, effect, right, *_displacements(m)]
    first = [_losses(m), loss_by_kind, gain, gain_by_kind]
    if len(losses) == len(gains) == 1:  # by slot, beside the twins, which swap a slot's value
        return [*first, effect, losses[0], right, gains[0], *_displacements(m)]
    return [*first, effect, right, *_displacements(m), *losses, *gains]  # a mixture has more divisions


def _displacements(m: Measurements) -> list[LinePanel]:
    """Mean displacement of the probes and of general text, by hidden layer, on one scale."""
    names = {
        "hidden_displacement": "Movement of the hidden states, probes",
        "control_hidden_displacement": "Movement of the hidden states, general text",
    }
    panels = [drift_panel(m, name, title) for name, title in names.items()]
    values = [value for panel in panels for line in panel.lines for value in line.y if np.isfinite(value)]
    if not values or min(values) == max(values):
        return panels
    margin = 0.04 * (max(values) - min(values))
    limits = (float(min(values) - margin), float(max(values) + margin))
    return [replace(panel, y_limits=limits) if panel.lines else panel for panel in panels]


def _losses(m: Measurements) -> LinePanel:
    """The Trainer's losses beside those of the fixed rows: held out, trained on, and general text."""
    logged = loss_panel(m)
    fixed = {
        "probe_loss": ("probes", BLUE),
        "training_probe_loss": ("rows trained on", GREEN),
        "control_probe_loss": ("general text", PURPLE),
    }
    found, bands = _lines(m, fixed)
    lines = [*(replace(line, wide=False) for line in logged.lines), *found]
    remark = "\n".join(filter(None, (general_text(m), bands)))
    note = "" if lines else "No loss has been measured yet."
    return replace(logged, lines=lines, remark=remark, note=note, end_labels=True)


def general_text(m: Measurements) -> str:
    """Return in words what became of general text: how its loss changed, and whether it was forgotten; "" where it was
    not measured twice."""
    name = "control_probe_loss"
    if not m.has(name) or len(values := m.stack(name)[1]) < 2:
        return ""
    mean, low, high, _ = bootstrap_band(values[-1:] - values[0], m.clusters(values.shape[1], "control_example"))
    if low[0] > FORGOTTEN:
        word = "forgotten"
    elif low[0] > -FORGOTTEN and high[0] < FORGOTTEN:
        word = "kept"
    else:
        word = "better" if high[0] < -FORGOTTEN else "not sure to be kept"
    start = float(nan_mean(values[0], axis=0))
    return f"general text: {start:.2f} to {start + mean[0]:.2f} nats/token: {word}"


def _lines(m: Measurements, names: dict[str, tuple[str, str]]) -> tuple[list[Line], str]:
    """One line with its band for each measure that the run has, and what the bands are over; names: {measure: (label,
    colour)}."""
    lines, bands = [], []
    for name, (label, color) in names.items():
        try:
            x, mean, low, high, band = m.mean_with_band(name)
        except InputError:
            continue
        lines.append(Line(label, x, mean, color, low, high))
        bands.append(band.removeprefix(BAND))
    return lines, f"bands over {', '.join(dict.fromkeys(bands))}" if bands else ""


def _panel(
    m: Measurements, title: str, y_label: str, names: dict[str, tuple[str, str]], at: tuple[float, str]
) -> LinePanel:
    """A panel with a dashed line at `at` = (value, its name)."""
    lines, bands = _lines(m, names)
    if not lines:
        return LinePanel(title, y_label, note=not_measured(next(iter(names))))
    x = lines[0].x
    value, label = at
    ends = np.array([x.min(), x.max()])
    level = Line(label, ends, np.full(2, value), GREY, wide=False, dashed=True)
    return LinePanel(title, y_label, [*lines, level], remark=bands, end_labels=True)


def timeline(m: Measurements) -> Lines:
    return Lines(TITLE, timeline_panels(m))
