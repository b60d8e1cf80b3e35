"""Learning over the optimizer step: losses, use of the source, twins, movement of the hidden states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.kinds import kind_panels
from gpt2_interp.figures.over_time import drift_panel, loss_panel
from gpt2_interp.figures.panels import BLUE, GREEN, GREY, ORANGE, PURPLE, Line, LinePanel, Lines, not_measured

BAND = "95% bootstrap over "
TITLE = f"What was learned (bands: {BAND}the probes in brackets)"
TWIN_CHANCE = 0.25  # both orders of a pair right by two coin flips


def timeline_panels(m: Measurements) -> list[LinePanel]:
    """Loss, context gain and twins, each beside its numbers by kind of token, and displacement on probes and on general
    text."""
    gain = _panel(
        m,
        "Gain from the own source",
        "NLL other - own source [nats/token]",
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
        "twin_effect [nats]",
        {"twin_effect": ("effect", BLUE)},
        at=(0, "no effect"),
    )
    right = _panel(
        m,
        "Twins: both orders right",
        "twin_right [share of pairs]",
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
    names = {"hidden_displacement": "Displacement, probes", "control_hidden_displacement": "Displacement, general text"}
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
    lines = [*(replace(line, wide=False) for line in logged.lines), *_lines(m, fixed)]
    return replace(logged, lines=lines, note="" if lines else "No loss has been measured yet.")


def _lines(m: Measurements, names: dict[str, tuple[str, str]]) -> list[Line]:
    """One line with its band for each measure that the run has; names: {measure: (label, colour)}."""
    lines = []
    for name, (label, color) in names.items():
        try:
            x, mean, low, high, band = m.mean_with_band(name)
        except InputError:
            continue
        lines.append(Line(f"{label} ({band.removeprefix(BAND)})", x, mean, color, low, high))
    return lines


def _panel(
    m: Measurements, title: str, y_label: str, names: dict[str, tuple[str, str]], at: tuple[float, str]
) -> LinePanel:
    """A panel with a dashed line at `at` = (value, its name)."""
    lines = _lines(m, names)
    if not lines:
        return LinePanel(title, y_label, note=not_measured(next(iter(names))))
    x = lines[0].x
    value, label = at
    ends = np.array([x.min(), x.max()])
    return LinePanel(title, y_label, [*lines, Line(label, ends, np.full(2, value), GREY, wide=False, dashed=True)])


def timeline(m: Measurements) -> Lines:
    return Lines(TITLE, timeline_panels(m))
