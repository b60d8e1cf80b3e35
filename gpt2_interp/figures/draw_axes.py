"""Panels drawn on matplotlib axes: lines, bars, and maps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from gpt2_interp.figures.panels import (
    GREY,
    INSIDE,
    NO_BAND,
    NO_VALUE,
    OUTSIDE,
    SHOWN,
    SMALLEST_TEXT,
    SNAPSHOT_AXIS,
    STEP_AXIS,
    WIDTH,
    WITHIN,
    BarPanel,
    HeatPanel,
    Line,
    LinePanel,
    MapPanel,
    color_map,
    highest,
    symmetric_range,
)

LETTER = 0.062  # inches: width of a letter of the smallest text
ROW = 0.125  # inches: height of a line of it
BESIDE = 0.95  # inches of a map that its labels and its colour bar take
BELOW = 0.75  # inches of a panel that its title and its labels take
CLOSE = 0.06  # heights of an axes: names at line ends can't stand closer
MOST_NAMES = 7  # lines up to which each has its name in full


def grid(figure: Any, rows: int, columns: int, count: int) -> list[Any]:
    """The first `count` axes of a grid in a Figure or SubFigure; the rest is taken away."""
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.remove()
    return list(axes[:count])


def write_title(ax: Any, title: str, remark: str = "", columns: int = 2) -> None:
    """The title of a panel, `columns` of which stand beside each other, and a small line below it."""
    width = WIDTH / columns - 0.45
    title = "\n".join(textwrap.fill(line, int(width / 0.073)) for line in title.split("\n"))
    remark = "\n".join(textwrap.fill(line, int(width / LETTER * 1.1)) for line in remark.split("\n"))
    below = "\n" * (remark.count("\n") + 1) if remark else ""
    ax.set_title(f"{title}{below}", loc="left")
    if remark:
        _beside(ax.text(0, 1.01, remark, transform=ax.transAxes, fontsize=SMALLEST_TEXT, color=GREY, va="bottom"))


def write_note(ax: Any, note: str, columns: int = 2) -> None:
    """A sentence in the middle of an empty panel."""
    text = textwrap.fill(note, int((WIDTH / columns - 0.85 - 0.25 * (columns < 3)) / LETTER))
    _beside(ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=GREY))


def _beside(artist: Any) -> None:
    """Let an artist take no room of the axes, which would shrink to make some."""
    artist.set_in_layout(False)


def _without_ticks(ax: Any) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


# --- lines and bars ----------------------------------------------------------------------------------------------


def draw_lines(ax: Any, panel: LinePanel, columns: int = 2) -> None:
    """One line panel, `columns` of which stand beside each other."""
    write_title(ax, panel.title, panel.remark, columns)
    ax.set_ylabel("\n".join(textwrap.fill(part, 30) for part in panel.y_label.replace(" [", "\n[").split("\n")))
    ax.set_xlabel(panel.x_label)
    if panel.note:
        write_note(ax, panel.note, columns)
    if not panel.lines:
        _without_ticks(ax)
        return
    for line in panel.lines:
        marker = "o" if 3 <= len(line.x) <= 30 or len(line.x) == 1 else None
        ax.plot(
            line.x,
            line.y,
            color=line.color,
            label=line.label,
            linewidth=1.7 if line.wide else 0.9,
            linestyle="--" if line.dashed else "-",
            marker=marker,
            markersize=3 if line.wide else 1.8,
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
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if all(len(np.unique(line.x)) < 2 for line in panel.lines):
            _beside(ax.text(0.98, 0.04, "only one step so far", transform=ax.transAxes, ha="right", color=GREY))


def name_lines(ax: Any, panel: LinePanel) -> None:
    """The names of a panel's lines: at their ends, or in a legend. To be called when the axes has its limits."""
    if panel.end_labels:
        _label_ends(ax, panel.lines)
    elif panel.lines:
        handles, labels = ax.get_legend_handles_labels()
        names = [textwrap.fill(label, 30) for label in labels]
        _beside(ax.legend(handles, names, framealpha=0.85, handlelength=1.4, borderpad=0.3, labelspacing=0.25))


def _label_ends(ax: Any, lines: Sequence[Line]) -> None:
    """The name of each line right of the axes, at the height of its last point or, where another name is there, beside
    it; a thin stroke leads to the point. Of many layers only the numbers, and of more than have room each second."""
    named = _shortened([line for line in lines if line.label])
    places = []
    for name, line in named:
        defined = np.flatnonzero(np.isfinite(line.y))
        if len(defined):
            point = line.x[defined[-1]], line.y[defined[-1]]
            places.append((ax.transLimits.transform(ax.transScale.transform(point))[1], point, name, line))
    places.sort(key=lambda place: place[0])
    names = [textwrap.fill(name, 16) for _, _, name, _ in places]
    sizes = [0.01 + 0.08 * (name.count("\n") + 1) for name in names]  # in heights of the axes, as are the places
    heights = [min(max(place[0], 0.0), 1.0) for place in places]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + (sizes[i - 1] + sizes[i]) / 2)
    above = 1.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], above)
        above = heights[i] - (sizes[i - 1] + sizes[i]) / 2
    for height, name, (_, point, _, line) in zip(heights, names, places, strict=True):
        ax.annotate(
            name,
            point,
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALLEST_TEXT,
            color=line.color,
            arrowprops={"arrowstyle": "-", "color": line.color, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 0},
            annotation_clip=False,
        )


def _shortened(lines: Sequence[Line]) -> list[tuple[str, Line]]:
    """The lines that are named, with their names."""
    if len(lines) <= MOST_NAMES:
        return [(line.label, line) for line in lines]
    every = -(-len(lines) // 12)
    shown = [line for i, line in enumerate(lines) if (len(lines) - 1 - i) % every == 0]
    return [(line.label if line is shown[-1] else line.label.removeprefix("layer "), line) for line in shown]


def draw_bars(ax: Any, panel: BarPanel, columns: int = 2) -> None:
    """Horizontal bars from the top down, thin lines are the band."""
    at = np.arange(len(panel.rows))
    ax.barh(at, panel.values, color=panel.color, alpha=0.85, height=0.7)
    ax.hlines(at, panel.low, panel.high, color="#222222", linewidth=1)
    ax.axvline(0, color="#555555", linewidth=0.8)
    ax.set(yticks=at, yticklabels=panel.rows, ylim=(len(at) - 0.4, -0.6))
    ax.set_xlabel("\n".join(textwrap.fill(line, int(WIDTH / columns / 0.075)) for line in panel.x_label.split("\n")))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
    write_title(ax, panel.title, columns=columns)
    ax.grid(axis="y", visible=False)


# --- maps --------------------------------------------------------------------------------------------------------


def draw_heat_panels(figure: Any, panels: list[HeatPanel], label: str, columns: int = 3) -> None:
    """Small multiples with one colour range, NaN grey. `figure` is a Figure or SubFigure."""
    columns = min(columns, len(panels))
    axes = grid(figure, -(-len(panels) // columns), columns, len(panels))
    top = highest(panels)
    for ax, panel in zip(axes, panels, strict=True):
        image = ax.imshow(panel.values, cmap=color_map("viridis"), vmin=0, vmax=top, aspect="auto")
        ax.grid(False)
        column_ticks(ax, panel.columns, WIDTH / columns - 0.6)
        row_ticks(ax, panel.rows, heat_height([panel], columns) - 1.3)
        write_title(ax, panel.title, columns=columns)
        ax.set_xlabel(SNAPSHOT_AXIS)
        ax.set_ylabel("" if panel.title == OUTSIDE else "layer")
    figure.colorbar(image, ax=axes, label=label, shrink=0.7, pad=0.01)


def heat_height(panels: Sequence[HeatPanel], columns: int = 3) -> float:
    """Return the height of a figure of these panels, in inches."""
    rows = -(-len(panels) // columns)
    return 0.4 + rows * max(1.5, ROW * max(len(panel.rows) for panel in panels) + 0.8)


def column_ticks(ax: Any, labels: Sequence[str], width: float) -> None:
    """Labels below the columns of a map that is `width` inches wide: every one, words slanted where they need it; of
    numbers that are too many each second, third ..., the last among them."""
    longest = max(map(len, labels), default=1)
    if all(label.isdigit() for label in labels):
        shown = _evenly(len(labels), width / (LETTER * longest + 0.06))
        ax.set_xticks(shown, [labels[i] for i in shown])
    elif longest * LETTER > width / max(len(labels), 1):
        at = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(range(len(labels)), [textwrap.fill(label, 16) for label in labels], **at)
    else:
        ax.set_xticks(range(len(labels)), labels)


def row_ticks(ax: Any, labels: Sequence[str], height: float) -> None:
    """Labels beside the rows of a map that is `height` inches high: as many as have room, the last one among them."""
    shown = _evenly(len(labels), height / ROW)
    ax.set_yticks(shown, [labels[i] for i in shown])


def _evenly(count: int, most: float) -> list[int]:
    every = max(1, int(np.ceil(count / max(1.0, most))))
    return list(range(count - 1, -1, -every))[::-1]


def draw_map(ax: Any, panel: MapPanel, columns: int, height: float) -> None:
    """One map with its colour bar: grey undefined, pale within the band, hatched grey where there is no band.

    columns: how many maps stand beside each other; height: of one, in inches.
    """
    write_title(ax, panel.title, panel.note if panel.values.size else "", columns)
    ax.grid(False)
    if not panel.values.size:
        write_note(ax, panel.note, columns)
        _without_ticks(ax)
        return
    n_row, n_column = panel.values.shape
    ax.set_facecolor(NO_VALUE)
    clear = (0, 0, 0, 0)
    colors = matplotlib.colormaps["RdBu_r" if panel.diverging else panel.colors].with_extremes(bad=clear)
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
        ax.add_patch(Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, fill=False, edgecolor="black", linewidth=1))
    ax.set(xlim=(-0.5, n_column - 0.5), ylim=(n_row - 0.5, -0.5), xlabel=panel.x_label, ylabel=panel.y_label)
    width = WIDTH / columns - BESIDE
    _write_cells(ax, panel, width, height - BELOW)
    column_ticks(ax, panel.columns, width)
    row_ticks(ax, panel.rows, height - BELOW)
    if panel.outlined is not None:  # cells that are pale all over would run into one
        ax.set_xticks(np.arange(0.5, n_column - 1), minor=True)
        ax.set_yticks(np.arange(0.5, n_row - 1), minor=True)
        ax.grid(which="minor", color="white", linewidth=0.8)
        ax.tick_params(which="minor", length=0)
    bar = ax.figure.colorbar(image, ax=ax, label=panel.unit, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _write_cells(ax: Any, panel: MapPanel, width: float, height: float) -> None:
    """The cells' own texts, light on dark colours: where they have room, or at every second, third ... snapshot."""
    if panel.texts is None:
        return
    n_row, n_column = panel.values.shape
    lines = [line for row in panel.texts for text in row for line in text.split("\n")]
    widths = [LETTER * (len(line) - 0.45 * sum(letter in "-." for letter in line)) + 0.02 for line in lines]
    every = int(np.ceil(max(widths, default=LETTER) / (width / n_column)))
    if every > 1 and panel.x_label != SNAPSHOT_AXIS or height / n_row < 0.1:
        return
    dark = panel.dark_cells()
    for row in range(n_row):
        for column in range(n_column - 1, -1, -every):
            color = "white" if dark[row, column] else "#222222"
            at = {"ha": "center", "va": "center", "fontsize": SMALLEST_TEXT, "color": color}
            ax.text(column, row, panel.texts[row][column], **at)
