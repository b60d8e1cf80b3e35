"""Figures of one run over the optimizer step, from its saved measurements: attention and drift, weights, gradients.

Each figure is first turned into panels (`panels.py`); both drawing libraries draw the same panels, and the tests look
at the panels. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpt2_interp.errors import InputError
from gpt2_interp.measure_table import HEADLINE, MEASURE
from gpt2_interp.measurements import Measurements, bootstrap_band, nan_mean
from gpt2_interp.panels import (
    BLUE,
    GREY,
    ORANGE,
    OUTSIDE,
    STYLE,
    HeatPanel,
    Line,
    LinePanel,
    depth_colors,
    draw_heat_panels,
    draw_lines,
    figure_title,
    heat_height,
    measure_label,
    png_bytes,
    same_steps,
)
from gpt2_interp.plotly_panels import lines_plotly, plain_look, plotly_heat, plotly_title

# --- panels ------------------------------------------------------------------------------------------------------


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


def not_measured(name: str) -> str:
    return f"{name} was not measured."


def loss_panel(m: Measurements) -> LinePanel:
    """What the Trainer logged."""
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


def matrix_panels(names: Sequence[str], steps: Sequence[int], values: np.ndarray) -> list[HeatPanel]:
    """values [step, matrix] -> one panel [layer, step] per kind of matrix, and one for what belongs to no layer."""
    columns = [str(step) for step in steps]
    return [
        HeatPanel(kind, [row for row, _ in rows], columns, values[:, [i for _, i in rows]].T)
        for kind, rows in matrix_kinds(names).items()
    ]


def matrix_kinds(names: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """{kind of matrix: [(layer or name, index into names)]}; what belongs to no layer comes last."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    for i, name in enumerate(names):
        match = re.fullmatch(r"h\.(\d+)\.(.+)", name)
        kind, row = (match[2], match[1]) if match else (OUTSIDE, name)
        kinds.setdefault(kind, []).append((row, i))
    outside = kinds.pop(OUTSIDE, None)
    return {**kinds, OUTSIDE: outside} if outside else kinds


def weight_panels(m: Measurements) -> list[HeatPanel]:
    steps, values = m.stack("weight_change_relative")
    return matrix_panels(m.labels("matrix"), steps, values)


def gradient_panels(m: Measurements) -> tuple[LinePanel, list[HeatPanel]]:
    """The logged norm of every logged step, and the share of each matrix at the snapshots."""
    x, y = m.logged("grad_norm")
    lines = [Line("gradient norm, as logged", x, y, BLUE, wide=False)] if len(x) else []
    limit = m.info.get("arguments", {}).get("max_grad_norm")
    if lines and isinstance(limit, (int, float)) and limit > 0:
        ends = np.array([x.min(), x.max()])
        lines.append(Line(f"clipped above {limit:g}", ends, np.full(2, float(limit)), ORANGE, wide=False, dashed=True))
    finite = y[np.isfinite(y)]
    wide = len(finite) > 0 and finite.min() > 0 and finite.max() > 10 * finite.min()
    norm = LinePanel(
        "Norm of the training gradient, before clipping",
        "grad_norm [norm]",
        lines,
        "" if lines else "No gradient norm has been logged yet.",
        log_y=wide,
    )
    try:
        steps, shares = m.stack("grad_share")
    except InputError:
        return norm, []
    return norm, matrix_panels(m.labels("grad_matrix"), steps, shares)


# --- pictures ----------------------------------------------------------------------------------------------------

TEMPORAL_TITLE = "Attention and hidden states while it learned"
WEIGHT_TITLE = "Relative change of every weight matrix since the base model"


def temporal_png(m: Measurements) -> bytes:
    return lines_png(m, temporal_panels(m), TEMPORAL_TITLE)


def temporal_plotly(m: Measurements) -> go.Figure:
    return lines_plotly(m, temporal_panels(m), TEMPORAL_TITLE)


def lines_png(m: Measurements, panels: Sequence[LinePanel], title: str) -> bytes:
    """Panels over the step, two in a row, with one legend of the layers below."""
    rows = -(-len(panels) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.25 * rows), layout="constrained")
        axes = figure.subplots(rows, 2, squeeze=False).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            draw_lines(ax, panel)
        for ax in axes[len(panels) :]:
            ax.remove()
        same_steps(axes[: len(panels)], panels)
        layer_legend(figure, panels)
        figure.suptitle(figure_title(m, title), fontsize=12)
        return png_bytes(figure)


def layer_legend(figure: Figure, panels: Sequence[LinePanel]) -> None:
    """One legend for all panels with layers: the mean of the heads, and at most ten layers (colours run with depth)."""
    of_layers = [panel for panel in panels if any(line.label.startswith(("layer ", "block ")) for line in panel.lines)]
    lines = {line.label: line for panel in of_layers for line in panel.lines}
    mean = [line for line in lines.values() if line.wide]
    layers = [line for line in lines.values() if not line.wide]
    blocks = [line for line in layers if not line.label.startswith("layer ")] or layers
    every = max(1, -(-len(blocks) // 10))
    chosen = [line for i, line in enumerate(blocks) if i % every == 0 or i == len(blocks) - 1]
    handles = [
        Line2D([], [], color=line.color, linewidth=2.2 if line.wide else 1.1, linestyle="--" if line.dashed else "-")
        for line in mean[:1] + chosen
    ]
    labels = [line.label for line in mean[:1]]
    for line in chosen:
        number = re.match(r"block (\d+)", line.label)  # block 1 is what layer 0 (h.0) hands on
        labels.append(f"layer {int(number[1]) - 1} / {line.label}" if number else line.label)
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def weight_png(m: Measurements) -> bytes:
    panels = weight_panels(m)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, heat_height(panels)), layout="constrained")
        draw_heat_panels(figure, panels, measure_label("weight_change_relative"))
        figure.suptitle(figure_title(m, WEIGHT_TITLE), fontsize=12)
        return png_bytes(figure)


def weight_plotly(m: Measurements) -> go.Figure:
    figure = plotly_heat(weight_panels(m), measure_label("weight_change_relative"))
    return plain_look(figure.update_layout(title=plotly_title(m, WEIGHT_TITLE)))


def gradient_png(m: Measurements) -> bytes:
    norm, shares = gradient_panels(m)
    with matplotlib.rc_context(STYLE):
        height = heat_height(shares) if shares else 0
        figure = Figure(figsize=(12, 3.6 + height), layout="constrained")
        parts = figure.subfigures(2, 1, height_ratios=[3.2, height]) if shares else [figure]
        draw_lines(parts[0].subplots(), norm)
        if shares:
            draw_heat_panels(parts[1], shares, measure_label("grad_share"))
            parts[1].suptitle("Share of each matrix at the snapshots (grey: no gradient yet)", fontsize=10)
        figure.suptitle(figure_title(m, "Gradients"), fontsize=12)
        return png_bytes(figure)


def gradient_plotly(m: Measurements) -> go.Figure:
    norm, shares = gradient_panels(m)
    figure = plotly_heat(shares, measure_label("grad_share"), above=norm)
    figure.update_layout(title=plotly_title(m, "Gradients"), showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"})
    return plain_look(figure)
