"""Panels: what a figure shows, as plain arrays with labels and units; and how matplotlib draws them.

`plotly_panels.py` draws the same panels, and the tests look at them. Imports no torch.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from gpt2_interp.measure_table import MEASURE
from gpt2_interp.measurements import Measurements

matplotlib.use("Agg")

STYLE = {
    **sns.axes_style("whitegrid"),
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": "#888888",
    "grid.color": "#e4e4e4",
    "axes.titleweight": "bold",
    "text.parse_math": False,  # a "$" in a token or a run's name is a dollar
    "hatch.linewidth": 0.6,
}
NO_VALUE = "#c8c8c8"  # undefined (NaN) is grey, never the colour of 0
WITHIN = "#f0f0f0"  # inside the band: as large as what chance does
BLUE, ORANGE, GREEN, PURPLE, GREY = "#1f5fa8", "#d1641b", "#2a8a57", "#7a4fa3", "#777777"
ONE_STEP = "Only one snapshot so far: nothing can have changed yet."
STEP_AXIS = "optimizer step"
SNAPSHOT_AXIS = "step (snapshots, in order)"
OUTSIDE = "outside the layers"
SHOWN, INSIDE, NO_BAND = 0, 1, 2  # what a cell of a MapPanel is: coloured, within the band, or without a band


@dataclass(frozen=True)
class Line:
    """x, y [point]; low, high [point] bound a band."""

    label: str
    x: np.ndarray
    y: np.ndarray
    color: str
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    wide: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class LinePanel:
    title: str
    y_label: str
    lines: list[Line] = field(default_factory=list)
    note: str = ""
    log_y: bool = False
    x_label: str = STEP_AXIS
    y_limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class HeatPanel:
    """values [row, column], one colour range with the figure's other panels; columns are snapshot steps, in order."""

    title: str
    rows: list[str]
    columns: list[str]
    values: np.ndarray


@dataclass(frozen=True)
class MapPanel:
    """A heat map with a colour range of its own.

    values [row, column]; limits: the ends of the colour range; state [row, column]: SHOWN, INSIDE or NO_BAND (None:
    all SHOWN); outlined [row, column]; hover, texts [row][column]: what pointing at a cell says, what stands in it.
    A panel without values is its note.
    """

    title: str
    unit: str
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    limits: tuple[float, float] = (0.0, 1.0)
    diverging: bool = False
    x_label: str = "head"
    y_label: str = "layer"
    state: np.ndarray | None = None
    outlined: np.ndarray | None = None
    hover: list[list[str]] | None = None
    texts: list[list[str]] | None = None
    note: str = ""

    def cells(self, state: int) -> np.ndarray:
        """`values` where the cell has this state, NaN elsewhere."""
        states = np.full(self.values.shape, SHOWN) if self.state is None else self.state
        return np.where(states == state, self.values, np.nan)

    def dark_cells(self) -> np.ndarray:
        """Where the colour is dark: both ends of a diverging map, the lower half of the other."""
        low, high = self.limits
        if self.diverging:
            return np.abs(self.values) > 0.6 * max(-low, high)
        return self.values < low + 0.55 * (high - low)


@dataclass(frozen=True)
class BarPanel:
    """One horizontal bar a row; values, low, high [row]."""

    title: str
    x_label: str
    rows: list[str]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    color: str = BLUE


def depth_colors(count: int) -> list[str]:
    """One colour per layer, dark (first) to light (last)."""
    return sns.color_palette("viridis", count + 1).as_hex()[:count]


def measure_label(name: str) -> str:
    return f"{name} [{MEASURE[name].unit}]"


def color_map(name: str) -> Any:
    return matplotlib.colormaps[name].with_extremes(bad=NO_VALUE)


def symmetric_range(values: np.ndarray) -> float:
    """Half-width of a colour range centred on 0 that holds every defined value."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if len(finite) and finite.max() > 0 else 1.0


def highest(panels: Sequence[HeatPanel]) -> float:
    """The common upper end of the colour range: the largest defined value."""
    values = np.concatenate([panel.values.ravel() for panel in panels])
    values = values[np.isfinite(values)]
    return float(values.max()) if len(values) and values.max() > 0 else 1.0


def figure_title(m: Measurements, text: str) -> str:
    title = f"{text} · run {m.paths.run_name}"
    return f"{title}\n{ONE_STEP}" if len(m.steps) < 2 else title


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """The PNG, without a date or version in it, so that equal data give equal bytes."""
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a token of a script the font lacks becomes a box
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


# --- lines -------------------------------------------------------------------------------------------------------


def is_layer(line: Line) -> bool:
    return line.label.startswith(("layer ", "embedding", "block "))


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
    if not any(is_layer(line) for line in panel.lines):
        ax.legend(fontsize=8, frameon=True, framealpha=0.85)


def write_note(ax: Any, note: str) -> None:
    ax.text(0.5, 0.5, textwrap.fill(note, 40), ha="center", va="center", transform=ax.transAxes, color=GREY)


def same_steps(axes: Sequence[Any], panels: Sequence[LinePanel]) -> None:
    """One horizontal range for all panels over the step."""
    ends = [x for panel in panels for line in panel.lines for x in (line.x.min(), line.x.max())]
    if ends and min(ends) < max(ends):
        margin = 0.02 * (max(ends) - min(ends))
        for ax in axes:
            ax.set_xlim(min(ends) - margin, max(ends) + margin)


# --- heat maps ---------------------------------------------------------------------------------------------------


def draw_heat_panels(figure: Any, panels: list[HeatPanel], label: str) -> None:
    """Small multiples with one colour range, NaN grey. `figure` is a Figure or SubFigure."""
    columns = min(4, len(panels))
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    top = highest(panels)
    for ax, panel in zip(axes, panels, strict=False):
        image = ax.imshow(panel.values, cmap=color_map("viridis"), vmin=0, vmax=top, aspect="auto")
        ax.grid(False)
        ticks(ax.set_xticks, panel.columns, 7)
        ticks(ax.set_yticks, panel.rows, 12)
        ax.set_title(panel.title, loc="left")
        ax.set_xlabel(SNAPSHOT_AXIS)
        ax.set_ylabel("" if panel.title == OUTSIDE else "layer")
    for ax in axes[len(panels) :]:
        ax.remove()
    figure.colorbar(image, ax=list(axes[: len(panels)]), label=label, shrink=0.7, pad=0.01)


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


def maps_png(title: str, panels: Sequence[MapPanel], columns: int, width: float, height: float) -> bytes:
    """All maps in one picture, `columns` in a row; width and height of one map in inches."""
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(columns * width, rows * height + 0.6), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            draw_map(ax, panel)
        for ax in axes[len(panels) :]:
            ax.remove()
        figure.suptitle(title, fontsize=12)
        return png_bytes(figure)


# --- bars --------------------------------------------------------------------------------------------------------


def draw_bars(ax: Any, panel: BarPanel) -> None:
    """Horizontal bars from the top down, thin lines are the band."""
    at = np.arange(len(panel.rows))
    ax.barh(at, panel.values, color=panel.color, alpha=0.85, height=0.7)
    ax.hlines(at, panel.low, panel.high, color="#222222", linewidth=1)
    ax.axvline(0, color="#555555", linewidth=0.8)
    ax.set(yticks=at, yticklabels=panel.rows, ylim=(len(at) - 0.4, -0.6), xlabel=panel.x_label)
    ax.set_title(panel.title, loc="left")
    ax.grid(axis="y", visible=False)
