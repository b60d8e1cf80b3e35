"""Panels: the content of a picture, as plain arrays with labels and units. Layouts: the panels of one picture, placed.

`draw_png.py` and `draw_html.py` draw the same layouts, and the tests look at the panels.
"""

from __future__ import annotations

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
        """Return `values` where the cell has this state, NaN elsewhere."""
        states = np.full(self.values.shape, SHOWN) if self.state is None else self.state
        return np.where(states == state, self.values, np.nan)

    def dark_cells(self) -> np.ndarray:
        """Return where the colour is dark: both ends of a diverging map, the lower half of the other."""
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


# --- layouts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lines:
    """Line panels over the step, two in a row, with one legend of the layers below."""

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

    columns: maps in a row of the PNG; size: width and height of one there, in inches. page_columns, page_height (of
    one map, in pixels) and page_title: the same of the interactive page (page_title: default the title).
    """

    title: str
    panels: list[MapPanel]
    columns: int
    size: tuple[float, float]
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


# --- lines -------------------------------------------------------------------------------------------------------


def is_layer(line: Line) -> bool:
    return line.label.startswith(("layer ", "embedding", "block "))


def same_steps(axes: Sequence[Any], panels: Sequence[LinePanel]) -> None:
    """One horizontal range for all panels over the step."""
    ends = [x for panel in panels for line in panel.lines for x in (line.x.min(), line.x.max())]
    if ends and min(ends) < max(ends):
        margin = 0.02 * (max(ends) - min(ends))
        for ax in axes:
            ax.set_xlim(min(ends) - margin, max(ends) + margin)


def not_measured(name: str) -> str:
    return f"{name} was not measured."
