"""In how many directions the weights changed: stable rank, singular values of the change, intruders."""

from __future__ import annotations

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from gpt2_interp.errors import InputError
from gpt2_interp.figures import layer_legend, matrix_kinds, matrix_panels, not_measured
from gpt2_interp.measurements import Measurements, nan_mean
from gpt2_interp.measures.intruders import CURVE, EPSILON, intruder_curve, intruders
from gpt2_interp.panels import (
    OUTSIDE,
    STYLE,
    HeatPanel,
    Line,
    LinePanel,
    MapPanel,
    depth_colors,
    draw_heat_panels,
    draw_lines,
    draw_map,
    figure_title,
    heat_height,
    highest,
    measure_label,
    png_bytes,
)
from gpt2_interp.plotly_panels import add_heat, add_map, plain_look, plotly_lines, plotly_title

TITLE = "In how many directions the weights changed"
LINE_COLORS = ("#1f5fa8", "#d1641b", "#2a8a57", "#7a4fa3", "#b0355b", "#8a6d1f", "#777777")


def rank_panels(m: Measurements) -> list[HeatPanel]:
    """Stable rank of the change, [layer, step] for each kind of matrix. Raises InputError if it was not measured."""
    steps, values = m.stack("stable_rank")
    return matrix_panels(m.labels("matrix"), steps, values)


def spectrum_panels(m: Measurements) -> list[LinePanel]:
    """Singular values of the change at the last snapshot that has them: one panel for each kind, one line a layer."""
    try:
        steps, values = m.stack("weight_spectrum")  # [step, matrix, singular]
    except InputError:
        return []
    last = np.where(values[-1] > 0, values[-1], np.nan)  # 0 has no place on a logarithmic axis
    x = np.arange(1, last.shape[1] + 1)
    panels = []
    for kind, rows in matrix_kinds(m.labels("matrix")).items():
        colors = LINE_COLORS if kind == OUTSIDE else depth_colors(len(rows))
        names = [name if kind == OUTSIDE else f"layer {name}" for name, _ in rows]
        lines = [
            Line(name, x, last[i], colors[k % len(colors)], wide=False)
            for k, (name, (_, i)) in enumerate(zip(names, rows, strict=True))
        ]
        changed = np.isfinite(last[[i for _, i in rows]]).any()
        note = "" if changed else "These matrices have not changed."
        title = f"{kind}, step {steps[-1]}"
        label = measure_label("weight_spectrum")
        panels.append(LinePanel(title, label, lines if changed else [], note, log_y=True, x_label="singular value"))
    return panels


def intruder_panels(m: Measurements) -> tuple[MapPanel, LinePanel]:
    """Intruders of every matrix [layer, kind], and their mean number over the threshold, one line for each kind."""
    title, label = f"Intruders (cosine below {EPSILON:g})", "of the top 10"
    curve_label = "intruders, mean of matrices"
    try:
        steps, values = m.stack("intruder_cosine")  # [step, matrix, intruder]
    except InputError:
        note = not_measured("intruder_cosine")
        return MapPanel(title, label, note=note), LinePanel(title, curve_label, note=note, x_label="threshold")
    kinds = matrix_kinds(m.labels("matrix"))
    inside = {kind: rows for kind, rows in kinds.items() if kind != OUTSIDE}
    counts = intruders(values[-1])
    layers = list(dict.fromkeys(row for rows in inside.values() for row, _ in rows))
    grid = np.full((len(layers), len(inside)), np.nan)
    for column, rows in enumerate(inside.values()):
        for layer, i in rows:
            grid[layers.index(layer), column] = counts[i]
    top = max(1.0, float(np.nanmax(grid, initial=0)))
    texts = [["" if np.isnan(value) else f"{value:.0f}" for value in row] for row in grid]
    title = f"{title} at step {steps[-1]}"
    table = MapPanel(title, label, layers, list(inside), grid, (0, top), x_label="", texts=texts)
    lines = []
    for k, (kind, rows) in enumerate(kinds.items()):
        cosines = values[-1][[i for _, i in rows]]
        means = nan_mean(intruder_curve(cosines), axis=0)  # [threshold]
        lines.append(Line(kind, CURVE, means, LINE_COLORS[k % len(LINE_COLORS)], wide=False))
    return table, LinePanel("Intruders over the threshold", curve_label, lines, x_label="threshold on the cosine")


def spectra_png(m: Measurements) -> bytes:
    ranks, spectra, (table, curve) = rank_panels(m), spectrum_panels(m), intruder_panels(m)
    spectra_rows = -(-len(spectra) // 4)
    heights = [heat_height(ranks) + 0.3, 2.6 * spectra_rows + 0.5, max(2.8, 0.2 * len(table.rows) + 1)]
    kept = [i for i, present in enumerate((True, spectra, True)) if present]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, sum(heights[i] for i in kept) + 0.5), layout="constrained")
        parts = dict(zip(kept, figure.subfigures(len(kept), 1, height_ratios=[heights[i] for i in kept]), strict=True))
        draw_heat_panels(parts[0], ranks, measure_label("stable_rank"))
        parts[0].suptitle("Stable rank of the change (grey: nothing has changed)", fontsize=10)
        if spectra:
            axes = parts[1].subplots(spectra_rows, 4, squeeze=False).ravel()
            for ax, panel in zip(axes, spectra, strict=False):
                draw_lines(ax, panel)
            for ax in axes[len(spectra) :]:
                ax.remove()
            parts[1].suptitle("Largest singular values of the change", fontsize=10)
            layer_legend(parts[1], spectra)
        left, right = parts[2].subplots(1, 2)
        draw_map(left, table)
        draw_lines(right, curve)
        figure.suptitle(figure_title(m, TITLE), fontsize=12)
        return png_bytes(figure)


def spectra_plotly(m: Measurements) -> go.Figure:
    ranks, spectra, (table, curve) = rank_panels(m), spectrum_panels(m), intruder_panels(m)
    columns = 3
    cells = [*ranks, *([None] * (-len(ranks) % columns)), *spectra, *([None] * (-len(spectra) % columns)), table, curve]
    rows = -(-len(cells) // columns)
    titles = [_plotly_cell_title(cell) for cell in cells]
    spacing = {"vertical_spacing": 0.3 / rows, "horizontal_spacing": 0.1}
    specs = [[{} if row * columns + col < len(cells) else None for col in range(columns)] for row in range(rows)]
    for i, cell in enumerate(cells):
        if cell is None:
            specs[i // columns][i % columns] = None
    titles = [title for title, cell in zip(titles, cells, strict=True) if cell is not None]
    figure = make_subplots(rows, columns, specs=specs, subplot_titles=titles, **spacing)
    seen: set[str] = set()
    for i, cell in enumerate(cells):
        row, col = i // columns + 1, i % columns + 1
        if isinstance(cell, HeatPanel):
            add_heat(figure, cell, row, col)
        elif isinstance(cell, LinePanel):
            plotly_lines(figure, cell, row, col, seen)
        elif isinstance(cell, MapPanel):
            add_map(figure, cell, row, col)
    top = figure.get_subplot(1, 1).yaxis.domain[1]
    bottom = figure.get_subplot(-(-len(ranks) // columns), 1).yaxis.domain[0]
    title = {"text": measure_label("stable_rank"), "side": "right"}
    bar = {"title": title, "y": (top + bottom) / 2, "len": top - bottom, "thickness": 14}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": 0, "cmax": highest(ranks), "colorbar": bar})
    legend = {"orientation": "h", "y": -0.25 / rows, "yanchor": "top"}
    figure.update_layout(height=290 * rows + 100, title=plotly_title(m, TITLE), margin={"t": 100}, legend=legend)
    return plain_look(figure)


def _plotly_cell_title(cell: HeatPanel | LinePanel | MapPanel | None) -> str:
    if isinstance(cell, HeatPanel):
        return f"stable rank: {cell.title}"
    if isinstance(cell, MapPanel):
        return f"{cell.title} [{cell.unit}]" if cell.values.size else cell.title
    return cell.title if cell else ""
