"""Panels drawn with matplotlib, as PNG."""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Sequence
from functools import singledispatch
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.panels import (
    GREY,
    INSIDE,
    NO_BAND,
    NO_VALUE,
    OUTSIDE,
    SHOWN,
    SNAPSHOT_AXIS,
    STEP_AXIS,
    STYLE,
    WITHIN,
    BarPanel,
    Bars,
    HeatPanel,
    Heats,
    Line,
    LinePanel,
    Lines,
    MapPanel,
    Maps,
    color_map,
    figure_title,
    highest,
    is_layer,
    same_steps,
    symmetric_range,
)


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """The PNG, without a date or version in it, so that equal data give equal bytes."""
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a token of a script the font lacks becomes a box
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


# --- whole pictures ----------------------------------------------------------------------------------------------


@singledispatch
def draw_png(layout: object, m: Measurements) -> bytes:
    """Return the PNG of a layout. A layout of one picture alone registers its drawing here."""
    raise TypeError(f"no PNG can be drawn of {type(layout).__name__}.")


@draw_png.register
def _(layout: Lines, m: Measurements) -> bytes:
    rows = -(-len(layout.panels) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.25 * rows), layout="constrained")
        axes = grid(figure, rows, 2, len(layout.panels))
        for ax, panel in zip(axes, layout.panels, strict=True):
            draw_lines(ax, panel)
        same_steps(axes, layout.panels)
        layer_legend(figure, layout.panels)
        figure.suptitle(figure_title(m, layout.title), fontsize=12)
        return png_bytes(figure)


@draw_png.register
def _(layout: Maps, m: Measurements) -> bytes:
    rows, (width, height) = -(-len(layout.panels) // layout.columns), layout.size
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(layout.columns * width, rows * height + 0.6), layout="constrained")
        for ax, panel in zip(grid(figure, rows, layout.columns, len(layout.panels)), layout.panels, strict=True):
            draw_map(ax, panel)
        figure.suptitle(figure_title(m, layout.title), fontsize=12)
        return png_bytes(figure)


@draw_png.register
def _(layout: Bars, m: Measurements) -> bytes:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.21 * len(layout.panels[0].rows) + 1.7), layout="constrained")
        for ax, panel in zip(figure.subplots(1, len(layout.panels), sharey=True), layout.panels, strict=True):
            draw_bars(ax, panel)
        figure.suptitle(figure_title(m, layout.title), fontsize=12)
        return png_bytes(figure)


@draw_png.register
def _(layout: Heats, m: Measurements) -> bytes:
    heats, above = heat_height(layout.panels) if layout.panels else 0.0, 3.6 if layout.above else 0.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, above + heats), layout="constrained")
        both = layout.above and layout.panels
        parts = figure.subfigures(2, 1, height_ratios=[3.2, heats]) if both else [figure, figure]
        if layout.above:
            draw_lines(parts[0].subplots(), layout.above)
        if layout.panels:
            draw_heat_panels(parts[1], layout.panels, layout.label)
        if layout.panels and layout.caption:
            parts[1].suptitle(layout.caption, fontsize=10)
        figure.suptitle(figure_title(m, layout.title), fontsize=12)
        return png_bytes(figure)


def grid(figure: Any, rows: int, columns: int, count: int) -> list[Any]:
    """The first `count` axes of a grid in a Figure or SubFigure; the rest is taken away."""
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.remove()
    return list(axes[:count])


# --- panels ------------------------------------------------------------------------------------------------------


def draw_lines(ax: Any, panel: LinePanel) -> None:
    """One line panel on a matplotlib axes; thin lines are layers and stand in the figure's own legend."""
    ax.set_title(panel.title, loc="left")
    ax.set_ylabel(panel.y_label)
    ax.set_xlabel(panel.x_label)
    if panel.note:
        write_note(ax, panel.note)
    if not panel.lines:
        ax.set_xticks([])
        ax.set_yticks([])
        return
    for line in panel.lines:
        marker = "o" if 3 <= len(line.x) <= 30 or len(line.x) == 1 else None
        ax.plot(
            line.x,
            line.y,
            color=line.color,
            label=line.label,
            linewidth=2.2 if line.wide else 1.1,
            linestyle="--" if line.dashed else "-",
            marker=marker,
            markersize=4 if line.wide else 2.5,
        )
        if line.low is not None:
            ax.fill_between(line.x, line.low, line.high, color=line.color, alpha=0.22, linewidth=0)
    if panel.log_y:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    if panel.y_limits:
        ax.set_ylim(*panel.y_limits)
    if panel.x_label == STEP_AXIS:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        if all(len(np.unique(line.x)) < 2 for line in panel.lines):
            ax.text(0.98, 0.04, "only one step so far", transform=ax.transAxes, ha="right", fontsize=8, color=GREY)
    if panel.end_labels:
        _label_ends(ax, panel.lines)
    elif not any(is_layer(line) for line in panel.lines):
        ax.legend(fontsize=8, frameon=True, framealpha=0.85)


def _label_ends(ax: Any, lines: Sequence[Line]) -> None:
    """The name of each line right of the axes, at the height of its last point or, where another name is there, beside
    it; a thin stroke leads to the point."""
    places = []
    for line in lines:
        defined = np.flatnonzero(np.isfinite(line.y))
        if len(defined):
            point = line.x[defined[-1]], line.y[defined[-1]]
            places.append((ax.transLimits.transform(ax.transScale.transform(point))[1], point, line))
    places.sort(key=lambda place: place[0])
    names = [textwrap.fill(line.label, 18) for _, _, line in places]
    sizes = [0.02 + 0.06 * (name.count("\n") + 1) for name in names]  # in heights of the axes, as are the places
    heights = [min(max(place[0], 0.0), 1.0) for place in places]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + (sizes[i - 1] + sizes[i]) / 2)
    above = 1.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], above)
        above = heights[i] - (sizes[i - 1] + sizes[i]) / 2
    for height, name, (_, point, line) in zip(heights, names, places, strict=True):
        ax.annotate(
            name,
            point,
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=line.color,
            arrowprops={"arrowstyle": "-", "color": line.color, "linewidth": 0.6},
            annotation_clip=False,
        )


def write_note(ax: Any, note: str) -> None:
    ax.text(0.5, 0.5, textwrap.fill(note, 40), ha="center", va="center", transform=ax.transAxes, color=GREY)


def draw_heat_panels(figure: Any, panels: list[HeatPanel], label: str) -> None:
    """Small multiples with one colour range, NaN grey. `figure` is a Figure or SubFigure."""
    columns = min(4, len(panels))
    axes = grid(figure, -(-len(panels) // columns), columns, len(panels))
    top = highest(panels)
    for ax, panel in zip(axes, panels, strict=True):
        image = ax.imshow(panel.values, cmap=color_map("viridis"), vmin=0, vmax=top, aspect="auto")
        ax.grid(False)
        ticks(ax.set_xticks, panel.columns, 7)
        ticks(ax.set_yticks, panel.rows, 12)
        ax.set_title(panel.title, loc="left")
        ax.set_xlabel(SNAPSHOT_AXIS)
        ax.set_ylabel("" if panel.title == OUTSIDE else "layer")
    figure.colorbar(image, ax=axes, label=label, shrink=0.7, pad=0.01)


def ticks(set_ticks: Any, labels: list[str], most: int) -> None:
    """Label at most `most` cells of a heat map, evenly, the last one among them."""
    every = max(1, -(-len(labels) // most))
    shown = list(range(len(labels) - 1, -1, -every))[::-1]
    set_ticks(shown, [textwrap.fill(labels[i], 14) for i in shown], fontsize=7.5)


def heat_height(panels: Sequence[HeatPanel]) -> float:
    rows = -(-len(panels) // 4)
    return 0.9 + rows * max(2.2, 0.13 * max(len(panel.rows) for panel in panels) + 0.9)


def draw_map(ax: Any, panel: MapPanel) -> None:
    """One map with its colour bar: grey undefined, pale within the band, hatched grey where there is no band."""
    ax.set_title(panel.title, loc="left")
    ax.grid(False)
    if not panel.values.size:
        write_note(ax, panel.note)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    n_row, n_column = panel.values.shape
    ax.set_facecolor(NO_VALUE)
    clear = (0, 0, 0, 0)
    colors = matplotlib.colormaps["RdBu_r" if panel.diverging else "viridis"].with_extremes(bad=clear)
    low, high = panel.limits
    image = ax.imshow(panel.cells(SHOWN), cmap=colors, vmin=low, vmax=high, aspect="auto")
    ax.imshow(panel.cells(INSIDE), cmap=ListedColormap([WITHIN]).with_extremes(bad=clear), aspect="auto")
    unknown = panel.cells(NO_BAND)
    if np.isfinite(unknown).any():
        greys = matplotlib.colormaps["Greys"].with_extremes(bad=clear)
        grey = ax.imshow(np.abs(unknown), cmap=greys, vmin=0, vmax=1.6 * symmetric_range(unknown), aspect="auto")
        image = image if np.isfinite(panel.cells(SHOWN)).any() else grey
        for row, column in np.argwhere(np.isfinite(unknown)):
            box = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#9a9a9a", linewidth=0)
            ax.add_patch(box)
    for row, column in np.argwhere(panel.outlined) if panel.outlined is not None else ():
        ax.add_patch(Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, fill=False, edgecolor="black", linewidth=1.3))
    _write_cells(ax, panel)
    ax.set(xlim=(-0.5, n_column - 0.5), ylim=(n_row - 0.5, -0.5), xlabel=panel.x_label, ylabel=panel.y_label)
    ticks(ax.set_xticks, panel.columns, 12 if panel.x_label == "head" else 7)
    ticks(ax.set_yticks, panel.rows, 13)
    if panel.note:
        ax.set_title(f"{panel.title}\n", loc="left")
        ax.text(0, 1.01, panel.note, transform=ax.transAxes, fontsize=7, color=GREY, va="bottom")
    if panel.outlined is not None:  # cells that are pale all over would run into one
        ax.set_xticks(np.arange(0.5, n_column - 1), minor=True)
        ax.set_yticks(np.arange(0.5, n_row - 1), minor=True)
        ax.grid(which="minor", color="white", linewidth=0.8)
        ax.tick_params(which="minor", length=0)
    bar = ax.figure.colorbar(image, ax=ax, label=panel.unit, pad=0.02)
    bar.outline.set_visible(False)


def _write_cells(ax: Any, panel: MapPanel) -> None:
    """The cells' own texts, light on dark colours."""
    if panel.texts is None:
        return
    dark = panel.dark_cells()
    for row, column in np.ndindex(panel.values.shape):
        color = "white" if dark[row, column] else "#222222"
        ax.text(column, row, panel.texts[row][column], ha="center", va="center", fontsize=6.8, color=color)


def draw_bars(ax: Any, panel: BarPanel) -> None:
    """Horizontal bars from the top down, thin lines are the band."""
    at = np.arange(len(panel.rows))
    ax.barh(at, panel.values, color=panel.color, alpha=0.85, height=0.7)
    ax.hlines(at, panel.low, panel.high, color="#222222", linewidth=1)
    ax.axvline(0, color="#555555", linewidth=0.8)
    ax.set(yticks=at, yticklabels=panel.rows, ylim=(len(at) - 0.4, -0.6), xlabel=panel.x_label)
    ax.set_title(panel.title, loc="left")
    ax.grid(axis="y", visible=False)


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
