"""Loss, attention and drift of one run over the optimizer step."""

from __future__ import annotations

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.panels import (
    BLUE,
    GREY,
    ORANGE,
    Line,
    LinePanel,
    Lines,
    depth_colors,
    measure_label,
    not_measured,
)
from gpt2_interp.snapshots.table import HEADLINE, MEASURE
from gpt2_interp.statistics.intervals import bootstrap_band, nan_mean


def temporal_panels(m: Measurements) -> list[LinePanel]:
    """Loss, probe loss, attention measures over heads, drift of the hidden states: 8 panels against the step."""
    return [
        loss_panel(m),
        _probe_loss_panel(m),
        _attention_panel(m, "attn_entropy", "Attention entropy"),
        _attention_panel(m, "attn_gini", "Attention sparsity (Gini)"),
        _attention_panel(m, "attn_distance_ns", "Attention distance"),
        _attention_panel(m, "attn_sink", "Attention on the first token"),
        drift_panel(m, "displacement", "Hidden states: displacement"),
        drift_panel(m, "cka_debiased", "Hidden states: CKA (debiased)"),
    ]


def loss_panel(m: Measurements) -> LinePanel:
    """Return a panel of the loss that the Trainer logged."""
    lines = []
    for key, label, color in (("loss", "train", GREY), ("eval_loss", "evaluation", ORANGE)):
        x, y = m.logged(key)
        if len(x):
            lines.append(Line(label, x, y, color, wide=key == "eval_loss"))
    return LinePanel("Loss", "loss [nats/token]", lines, "" if lines else "No loss has been logged yet.")


def _probe_loss_panel(m: Measurements) -> LinePanel:
    title, label = "Loss on the probes", measure_label("probe_loss")
    try:
        x, mean, low, high, band = m.mean_with_band("probe_loss")
    except InputError:
        return LinePanel(title, label, note=not_measured("probe_loss"))
    return LinePanel(title, label, [Line(f"mean, {band}", x, mean, BLUE, low, high)])


def _attention_panel(m: Measurements, name: str, title: str) -> LinePanel:
    """Mean over all heads with a band over probes, and one thin line per layer; region Q."""
    label = measure_label(name)
    try:
        steps, values = m.headline(name)  # [step, example, layer, head]
    except InputError:
        return LinePanel(title, label, note=not_measured(name))
    x = np.array(steps)
    mean, low, high, band = bootstrap_band(nan_mean(values, axis=(2, 3)), m.clusters(values.shape[1]))
    per_layer = nan_mean(values, axis=(1, 3))  # [step, layer]
    colors = depth_colors(per_layer.shape[1])
    lines = [Line(f"layer {i}", x, per_layer[:, i], color, wide=False) for i, color in enumerate(colors)]
    return LinePanel(title, label, [*lines, Line(f"mean of heads, {band}", x, mean, BLUE, low, high)])


def drift_panel(m: Measurements, name: str, title: str) -> LinePanel:
    """One line per hidden layer: a measure of the hidden states against the base, at the headline pooling."""
    title = f"{title}, {HEADLINE['pooling']}, to step 0"
    try:
        steps, values = m.headline(name)  # [step, (example,) hidden_layer, (reference)]
    except InputError:
        return LinePanel(title, measure_label(name), note=not_measured(name))
    if "reference" in MEASURE[name].axes:
        values = values[..., m.labels("reference").index("step 0")]
    if MEASURE[name].probe_axis:
        values = nan_mean(values, axis=1)
    labels = m.labels("hidden_layer")
    colors = [GREY, *depth_colors(len(labels) - 1)]
    lines = [
        Line(labels[i], np.array(steps), values[:, i], colors[i], wide=False, dashed=i == 0) for i in range(len(labels))
    ]
    note = "" if np.isfinite(values).any() else "Undefined: fewer than 4 probes have hidden states."
    return LinePanel(title, measure_label(name), lines, note)


def temporal(m: Measurements) -> Lines:
    return Lines("Attention and hidden states while it learned", temporal_panels(m))
