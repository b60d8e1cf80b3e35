"""Loss, attention and drift of one run over the optimizer step."""

from __future__ import annotations

import numpy as np

from gpt2_interp.analysis.derived import most_sink
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.panels import (
    BLUE,
    CATEGORIES,
    FAINT,
    GREY,
    ORANGE,
    Line,
    LinePanel,
    Lines,
    depth_colors,
    heading,
    layer_name,
    measure_label,
    not_measured,
)
from gpt2_interp.snapshots.table import MEASURE
from gpt2_interp.statistics.intervals import bootstrap_band, nan_mean

NAMED_HEADS = 3  # of a panel: those that changed most
MOST_LINES = 48  # heads up to which each has its line


def temporal_panels(m: Measurements) -> list[LinePanel]:
    """Loss, probe loss, changes of attention head by head, drift of the hidden states: 8 panels against the step."""
    likeness = "cka_within_clusters" if _is_defined(m, "cka_within_clusters") else "cka_debiased"
    return [
        loss_panel(m),
        _probe_loss_panel(m),
        *(change_panel(m, name) for name in ("attn_entropy_norm_ns", "attn_source_ns", "attn_distance_ns")),
        _sink_panel(m),
        drift_panel(m, "displacement", heading("displacement")),
        drift_panel(m, likeness, heading(likeness)),
    ]


def _is_defined(m: Measurements, name: str) -> bool:
    return m.has(name) and bool(np.isfinite(m.headline(name)[1]).any())


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


def change_panel(m: Measurements, name: str) -> LinePanel:
    """Return the change of an attention measure since step 0, head by head; region Q.

    The heads that changed most have names and the 95% band of their change, paired by probe; all others are thin, and
    the grey band holds the middle 80% of all heads.
    """
    title = f"{heading(name)}: change since step 0"
    try:
        steps, values = m.headline(name)  # [step, example, layer, head]
    except InputError:
        return LinePanel(title, measure_label(name), note=not_measured(name))
    x, change = np.array(steps), values - values[:1]
    mean = nan_mean(change, axis=1).reshape(len(steps), -1)  # [step, head of all layers]
    if not np.isfinite(mean).any():
        return LinePanel(title, measure_label(name), note="Not defined on any of the probes.")
    heads = [f"L{layer}·H{head}" for layer, head in np.ndindex(change.shape[2:])]
    order = np.argsort(-np.abs(np.nan_to_num(mean[-1])), kind="stable")
    middle, low, high = (np.nanquantile(mean, share, axis=1) for share in (0.5, 0.1, 0.9))
    lines = [Line("half of the heads", x, middle, GREY, low, high, wide=False, dashed=True)]
    if len(heads) <= MOST_LINES:
        lines += [Line("", x, mean[:, i], FAINT, wide=False) for i in order[NAMED_HEADS:]]
    clusters = m.clusters(change.shape[1])
    for i, color in zip(order[:NAMED_HEADS], CATEGORIES, strict=False):
        of_head = change.reshape(*change.shape[:2], -1)[..., i]  # [step, example]
        head_mean, head_low, head_high, _ = bootstrap_band(of_head, clusters)
        lines.append(Line(heads[i], x, head_mean, color, head_low, head_high))
    start = nan_mean(values[0], axis=0)
    remark = f"at step 0: {np.nanmin(start):.2g} to {np.nanmax(start):.2g} over the heads"
    return LinePanel(title, measure_label(name), lines, remark=remark, end_labels=True)


def _sink_panel(m: Measurements) -> LinePanel:
    """The change of attention to the first token, or a sentence where no head rests on it."""
    panel, name = change_panel(m, "attn_sink"), "attn_sink"
    if panel.lines and (most := most_sink(m.headline(name)[1])) < MEASURE[name].smallest:
        note = f"This model has no attention sink: no head gives the first token more than {most:.2g} of its attention."
        return LinePanel(heading(name), measure_label(name), note=note)
    return panel


def drift_panel(m: Measurements, name: str, title: str) -> LinePanel:
    """One line per hidden layer: a measure of the hidden states against the base, at the headline pooling."""
    try:
        steps, values = m.headline(name)  # [step, (example,) hidden_layer, (reference)]
    except InputError:
        return LinePanel(title, measure_label(name), note=not_measured(name))
    if "reference" in MEASURE[name].axes:
        values = values[..., m.labels("reference").index("step 0")]
    if MEASURE[name].probe_axis:
        values = nan_mean(values, axis=1)
    labels = [layer_name(label) for label in m.labels("hidden_layer")]
    colors = [GREY, *depth_colors(len(labels) - 1)]
    lines = [
        Line(labels[i], np.array(steps), values[:, i], colors[i], wide=False, dashed=i == 0) for i in range(len(labels))
    ]
    note = "" if np.isfinite(values).any() else "Undefined: fewer than 4 probes have hidden states."
    return LinePanel(title, measure_label(name), lines, note, end_labels=True)


def temporal(m: Measurements) -> Lines:
    return Lines("Attention and hidden states while it learned", temporal_panels(m))
