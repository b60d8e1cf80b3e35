"""Pictures drawn with matplotlib, as wide as a page's text: PNG to look at, PDF to print."""

from __future__ import annotations

import textwrap
import warnings
from functools import singledispatch
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw_axes import (
    draw_bars,
    draw_heat_panels,
    draw_lines,
    draw_map,
    grid,
    heat_height,
    name_lines,
)
from gpt2_interp.figures.panels import STYLE, WIDTH, Bars, Heats, Lines, Maps, figure_title, same_steps

DPI = 200
PANEL = 2.15  # inches: height of a line panel


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """The PNG, without a date or version in it, so that equal data give equal bytes."""
    return _saved(figure, "png", dpi=dpi, metadata={"Software": None})


def pdf_bytes(figure: Figure) -> bytes:
    """The PDF, in which text stays text and lines stay lines; without a date, so that equal data give equal bytes."""
    with matplotlib.rc_context(STYLE):
        return _saved(figure, "pdf", dpi=DPI, metadata={"CreationDate": None})


def _saved(figure: Figure, suffix: str, **settings: Any) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a token of a script the font lacks becomes a box
        figure.savefig(buffer, format=suffix, **settings)
    return buffer.getvalue()


def draw_png(layout: object, m: Measurements) -> bytes:
    """Return the PNG of a layout."""
    return png_bytes(draw_figure(layout, m))


@singledispatch
def draw_figure(layout: object, m: Measurements) -> Figure:
    """Return the figure of a layout. A layout of one picture alone registers its drawing here."""
    raise TypeError(f"no figure can be drawn of {type(layout).__name__}.")


def write_figure_title(figure: Figure, m: Measurements, title: str) -> None:
    """The title above the whole figure, in as many lines as it needs."""
    lines = figure_title(m, title).split("\n")
    figure.suptitle("\n".join(textwrap.fill(line, 88) for line in lines))


@draw_figure.register
def _(layout: Lines, m: Measurements) -> Figure:
    rows = -(-len(layout.panels) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, PANEL * rows + 0.4), layout="constrained")
        axes = grid(figure, rows, 2, len(layout.panels))
        for ax, panel in zip(axes, layout.panels, strict=True):
            draw_lines(ax, panel)
        same_steps(axes, layout.panels, m.steps, 7)
        for ax, panel in zip(axes, layout.panels, strict=True):
            name_lines(ax, panel)
        write_figure_title(figure, m, layout.title)
    return figure


@draw_figure.register
def _(layout: Maps, m: Measurements) -> Figure:
    rows = -(-len(layout.panels) // layout.columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, rows * layout.height + 0.5), layout="constrained")
        for ax, panel in zip(grid(figure, rows, layout.columns, len(layout.panels)), layout.panels, strict=True):
            draw_map(ax, panel, layout.columns, layout.height)
        write_figure_title(figure, m, layout.title)
    return figure


@draw_figure.register
def _(layout: Bars, m: Measurements) -> Figure:
    columns = len(layout.panels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.17 * len(layout.panels[0].rows) + 1.4), layout="constrained")
        for ax, panel in zip(figure.subplots(1, columns, sharey=True), layout.panels, strict=True):
            draw_bars(ax, panel, columns)
        write_figure_title(figure, m, layout.title)
    return figure


@draw_figure.register
def _(layout: Heats, m: Measurements) -> Figure:
    heats, above = heat_height(layout.panels) if layout.panels else 0.0, PANEL if layout.above else 0.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, above + heats + 0.3), layout="constrained")
        both = layout.above and layout.panels
        parts = figure.subfigures(2, 1, height_ratios=[above, heats]) if both else [figure, figure]
        if layout.above:
            ax = parts[0].subplots()
            draw_lines(ax, layout.above, columns=1)
            same_steps([ax], [layout.above], m.steps, 12)
            name_lines(ax, layout.above)
        if layout.panels:
            draw_heat_panels(parts[1], layout.panels, layout.label)
        if layout.panels and layout.caption:
            parts[1].suptitle(layout.caption, fontsize=8)
        write_figure_title(figure, m, layout.title)
    return figure
