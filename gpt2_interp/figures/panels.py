"""Panels: the content of a picture, as plain arrays with labels and units. Layouts: the panels of one picture, placed.

`draw_png.py` and `draw_html.py` draw the same layouts, and the tests look at the panels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.snapshots.table import MEASURE

matplotlib.use("Agg")

STYLE = {
    **sns.axes_style("whitegrid"),
    "font.family": "DejaVu Sans",
    "font.size": 7.5,  # points: pictures are drawn as wide as they are printed, so that none of it shrinks
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 9,
    "axes.edgecolor": "#888888",
    "grid.color": "#e4e4e4",
    "axes.titleweight": "bold",
    "text.parse_math": False,  # a "$" in a token or a run's name is a dollar
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,  # text stays text
}
WIDTH = 16 / 2.54  # of every picture, in inches: a page's text
SMALLEST_TEXT = 7  # points, at that width
NO_VALUE = "#c8c8c8"  # undefined (NaN) is grey, never the colour of 0
WITHIN = "#f0f0f0"  # inside the band: as large as what chance does
FAINT = "#c4c4c4"  # a line among many
# Okabe and Ito (2008), Color Universal Design: told apart also by those who don't see red and green. The yellow is left
# out, which is too pale for lines; lines that need more than these repeat them with other strokes.
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, ORANGE, GREEN, PURPLE, GREY = *CATEGORIES[:4], "#777777"
ONE_STEP = "Only one snapshot so far: nothing can have changed yet."
STEP_AXIS = "optimizer step"
SNAPSHOT_AXIS = "step (snapshots)"
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
    remark: str = ""  # a small line below the title
    end_labels: bool = False  # names stand at the right ends of the lines, and not in a legend


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
    all SHOWN); colors: the name of its scale where it is not diverging; outlined [row, column]; hover, texts
    [row][column]: what pointing at a cell says, what stands in it.
    A panel without values is its note.
    """

    title: str
    unit: str
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    limits: tuple[float, float] = (0.0, 1.0)
    diverging: bool = False
    colors: str = "viridis"
    x_label: str = "head"
    y_label: str = "layer"
    state: np.ndarray | None = None
    outlined: np.ndarray | None = None
    hover: list[list[str]] | None = None
    texts: list[list[str]] | None = None
    note: str = ""

    def cells(self, state: int) -> np.ndarray:
        """Return `values` where the cell has this state, NaN elsewhere."""
        states = np.full(self.values.shape, SHOWN) if self.state is None else self.state
        return np.where(states == state, self.values, np.nan)

    def dark_cells(self) -> np.ndarray:
        """Return where the colour is dark: both ends of a diverging map, the lower half of viridis, the upper half of
        its reverse and of scales from white."""
        low, high = self.limits
        if self.diverging:
            return np.abs(self.values) > 0.6 * max(-low, high)
        if self.colors == "viridis":
            return self.values < low + 0.55 * (high - low)
        return self.values > low + 0.45 * (high - low)


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


# --- layouts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lines:
    """Line panels over the step, two in a row."""

    title: str
    panels: list[LinePanel]


@dataclass(frozen=True)
class Bars:
    """Bar panels beside each other, with the same rows."""

    title: str
    panels: list[BarPanel]


@dataclass(frozen=True)
class Maps:
    """Maps, each with a colour range of its own.

    columns: maps in a row of the PNG; height: of one there, in inches. page_columns, page_height (of
    one map, in pixels) and page_title: the same of the interactive page (page_title: default the title).
    """

    title: str
    panels: list[MapPanel]
    columns: int
    height: float
    page_columns: int
    page_height: int
    page_title: str = ""


@dataclass(frozen=True)
class Heats:
    """Heat maps with one colour range, which `label` names; `above`: a line panel over the whole width.

    caption: a line between the two in the PNG.
    """

    title: str
    panels: list[HeatPanel]
    label: str
    above: LinePanel | None = None
    caption: str = ""


# --- colours and titles ------------------------------------------------------------------------------------------


def depth_colors(count: int) -> list[str]:
    """One colour per layer, dark (first) to light (last)."""
    return sns.color_palette("viridis", count + 1).as_hex()[:count]


UNIT_WORDS = {"0..1": "0 to 1", "0..2": "0 to 2", "-1..1": "-1 to 1", "<= 1": "up to 1", "0 or 1": "share"}


def plain_unit(name: str) -> str:
    """Return the unit of a measure as a reader sees it."""
    return UNIT_WORDS.get(MEASURE[name].unit, MEASURE[name].unit)


def measure_label(name: str) -> str:
    """Return the plain name of a measure with its unit."""
    return f"{MEASURE[name].label or name} [{plain_unit(name)}]"


def heading(name: str) -> str:
    """Return the plain name of a measure as a title."""
    label = MEASURE[name].label or name
    return label[:1].upper() + label[1:]


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


# --- lines -------------------------------------------------------------------------------------------------------


def layer_name(hidden_layer: str) -> str:
    """Return the name of a hidden layer as the layer that hands it on: "block 3 (before ln_f)" comes out of layer 2."""
    number = re.match(r"block (\d+)", hidden_layer)
    return f"layer {int(number[1]) - 1}" if number else hidden_layer


@dataclass(frozen=True)
class StepAxis:
    """The axis of all pictures over the step: 0 and the first snapshot after it lie as far apart as a step and its
    double do, so that log-spaced snapshots are evenly spaced.

    snapshots: their steps, in order; each has a tick.
    """

    snapshots: Sequence[int]

    @property
    def first(self) -> float:
        return float(next((step for step in self.snapshots if step > 0), 1))

    def place(self, step: np.ndarray | float) -> np.ndarray:
        """Return where steps stand: 0 at 0, the first snapshot at 1, its double at 2."""
        share = np.asarray(step, dtype=float) / self.first
        return np.where(share < 1, share, 1 + np.log2(np.maximum(share, 1)))

    def step(self, place: np.ndarray | float) -> np.ndarray:
        """Return the steps at these places: the reverse of `place`."""
        place = np.asarray(place, dtype=float)
        return self.first * np.where(place < 1, place, 2 ** np.maximum(place - 1, 0))

    def labelled(self, most: int) -> list[int]:
        """Return the snapshots whose labels have room: about `most` evenly over the axis, the first and the last among
        them."""
        first, *between, last = self.snapshots
        apart, shown = (self.place(last) - self.place(first)) / most, [last]
        for step in reversed(between):
            if self.place(shown[-1]) - self.place(step) >= apart and self.place(step) - self.place(first) >= apart:
                shown.append(step)
        return [first, *shown[::-1]]


def same_steps(axes: Sequence[Any], panels: Sequence[LinePanel], snapshots: Sequence[int], most: int) -> None:
    """One horizontal axis for all panels over the step, with ticks at the snapshots, at most `most` with a label."""
    axis = StepAxis(snapshots)
    over_steps = [(ax, panel) for ax, panel in zip(axes, panels, strict=True) if panel.x_label == STEP_AXIS]
    ends = [x for _, panel in over_steps for line in panel.lines for x in (line.x.min(), line.x.max())]
    if not ends or min(ends) == max(ends):
        return
    low, high = axis.place(min(ends)), axis.place(max(ends))
    margin = 0.02 * (high - low)
    for ax, panel in over_steps:
        if panel.lines:
            ax.set_xscale("function", functions=(axis.place, axis.step))
            ax.set_xlim(axis.step(max(low - margin, 0)), axis.step(high + margin))
            ax.set_xticks(axis.labelled(most), [str(step) for step in axis.labelled(most)])
            ax.set_xticks(snapshots, minor=True)
            ax.tick_params(which="minor", bottom=True, length=2, color=GREY)


def not_measured(name: str) -> str:
    return f"{name} was not measured."
