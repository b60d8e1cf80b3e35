"""Figures of weights and gradients: the matrices that moved, how far, and in how many directions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from gpt2_interp.analysis.derived import CURVE, EPSILON, intruder_curve, intruders
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.draw_axes import draw_heat_panels, draw_lines, draw_map, grid, heat_height, name_lines
from gpt2_interp.figures.draw_html import add_heat, add_map, draw_html, plain_look, plotly_lines, plotly_title
from gpt2_interp.figures.draw_png import draw_figure, write_figure_title
from gpt2_interp.figures.panels import (
    BLUE,
    CATEGORIES,
    ORANGE,
    OUTSIDE,
    STYLE,
    WIDTH,
    HeatPanel,
    Heats,
    Line,
    LinePanel,
    MapPanel,
    depth_colors,
    highest,
    measure_label,
    not_measured,
)
from gpt2_interp.statistics.intervals import nan_mean


def matrix_panels(names: Sequence[str], steps: Sequence[int], values: np.ndarray) -> list[HeatPanel]:
    """values [step, matrix] -> one panel [layer, step] per kind of matrix, and one for what belongs to no layer."""
    columns = [str(step) for step in steps]
    return [
        HeatPanel(kind, [row for row, _ in rows], columns, values[:, [i for _, i in rows]].T)
        for kind, rows in matrix_kinds(names).items()
    ]


def matrix_kinds(names: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Return {kind of matrix: [(layer or name, index into names)]}; what belongs to no layer comes last."""
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
        measure_label("grad_norm_total"),
        lines,
        "" if lines else "No gradient norm has been logged yet.",
        log_y=wide,
    )
    try:
        steps, shares = m.stack("grad_share")
    except InputError:
        return norm, []
    return norm, matrix_panels(m.labels("grad_matrix"), steps, shares)


def weight_changes(m: Measurements) -> Heats:
    title = "Relative change of every weight matrix since the base model"
    return Heats(title, weight_panels(m), measure_label("weight_change_relative"))


def gradients(m: Measurements) -> Heats:
    norm, shares = gradient_panels(m)
    caption = "Share of each matrix at the snapshots (grey: no gradient yet)"
    return Heats("Gradients", shares, measure_label("grad_share"), above=norm, caption=caption)


SPECTRA_TITLE = "In how many directions the weights changed"


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
        colors = CATEGORIES if kind == OUTSIDE else depth_colors(len(rows))
        names = [name if kind == OUTSIDE else f"layer {name}" for name, _ in rows]
        lines = [
            Line(name, x, last[i], colors[k % len(colors)], wide=False)
            for k, (name, (_, i)) in enumerate(zip(names, rows, strict=True))
        ]
        changed = np.isfinite(last[[i for _, i in rows]]).any()
        note = "" if changed else "These matrices have not changed."
        title = f"{kind}, step {steps[-1]}"
        label = measure_label("weight_spectrum")
        panels.append(
            LinePanel(
                title, label, lines if changed else [], note, log_y=True, x_label="singular value", end_labels=True
            )
        )
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
        lines.append(Line(kind, CURVE, means, CATEGORIES[k % len(CATEGORIES)], wide=False))
    return table, LinePanel("Intruders over the threshold", curve_label, lines, x_label="threshold on the cosine")


@dataclass(frozen=True)
class Spectra:
    """Stable ranks, spectra, and intruders with their curve: three blocks of one picture."""

    ranks: list[HeatPanel]
    spectra: list[LinePanel]
    intruders: MapPanel
    curve: LinePanel


def spectra(m: Measurements) -> Spectra:
    return Spectra(rank_panels(m), spectrum_panels(m), *intruder_panels(m))


@draw_figure.register
def _(layout: Spectra, m: Measurements) -> Figure:
    ranks, spectra, table, curve = layout.ranks, layout.spectra, layout.intruders, layout.curve
    spectra_rows, table_height = -(-len(spectra) // 3), max(2.3, 0.14 * len(table.rows) + 1.3)
    heights = [heat_height(ranks) + 0.2, 1.8 * spectra_rows + 0.2, table_height]
    kept = [i for i, present in enumerate((True, spectra, True)) if present]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights[i] for i in kept) + 0.4), layout="constrained")
        parts = dict(zip(kept, figure.subfigures(len(kept), 1, height_ratios=[heights[i] for i in kept]), strict=True))
        draw_heat_panels(parts[0], ranks, measure_label("stable_rank"))
        parts[0].suptitle("Stable rank of the change (grey: nothing has changed)", fontsize=8)
        if spectra:
            for ax, panel in zip(grid(parts[1], spectra_rows, 3, len(spectra)), spectra, strict=True):
                draw_lines(ax, panel, columns=3)
                name_lines(ax, panel)
            parts[1].suptitle("Largest singular values of the change", fontsize=8)
        left, right = parts[2].subplots(1, 2)
        draw_map(left, table, 2, table_height)
        draw_lines(right, curve)
        name_lines(right, curve)
        write_figure_title(figure, m, SPECTRA_TITLE)
    return figure


@draw_html.register
def _(layout: Spectra, m: Measurements) -> go.Figure:
    ranks, spectra, table, curve = layout.ranks, layout.spectra, layout.intruders, layout.curve
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
    figure.update_layout(
        height=290 * rows + 100, title=plotly_title(m, SPECTRA_TITLE), margin={"t": 100}, legend=legend
    )
    return plain_look(figure)


def _plotly_cell_title(cell: HeatPanel | LinePanel | MapPanel | None) -> str:
    if isinstance(cell, HeatPanel):
        return f"stable rank: {cell.title}"
    if isinstance(cell, MapPanel):
        return f"{cell.title} [{cell.unit}]" if cell.values.size else cell.title
    return cell.title if cell else ""
