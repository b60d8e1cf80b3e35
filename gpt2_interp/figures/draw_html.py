"""Panels drawn with plotly, as pages that hold everything they need."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.gif import FRAME_MS
from gpt2_interp.figures.panels import (
    GREY,
    INSIDE,
    NO_BAND,
    NO_VALUE,
    ONE_STEP,
    OUTSIDE,
    SHOWN,
    SNAPSHOT_AXIS,
    STEP_AXIS,
    WITHIN,
    Bars,
    HeatPanel,
    Heats,
    LinePanel,
    Lines,
    MapPanel,
    Maps,
    StepAxis,
    highest,
    symmetric_range,
)

# plotly's "Share chart" button would send the run's data to a server
PLOTLY_CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}


def plotly_title(m: Measurements, text: str) -> dict[str, Any]:
    subtitle = ONE_STEP if len(m.steps) < 2 else ""
    return {"text": f"{text} · run {m.paths.run_name}", "subtitle": {"text": subtitle}}


def plain_look(figure: go.Figure) -> go.Figure:
    """Give every plotly figure the same look; small titles, so that panels stay legible on a phone."""
    figure.update_layout(template="plotly_white", font={"size": 12})
    figure.update_annotations(font_size=13)
    return figure


@singledispatch
def draw_html(layout: object, m: Measurements) -> go.Figure:
    """Return the interactive figure of a layout. A layout of one picture alone registers its drawing here."""
    raise TypeError(f"no page can be drawn of {type(layout).__name__}.")


# --- lines and bars ----------------------------------------------------------------------------------------------


@draw_html.register
def _(layout: Lines, m: Measurements) -> go.Figure:
    panels = layout.panels
    rows = -(-len(panels) // 2)
    titles = [panel.title + (f"<br><sup>{panel.remark}</sup>" if panel.remark else "") for panel in panels]
    figure = make_subplots(rows, 2, subplot_titles=titles, vertical_spacing=0.28 / rows, horizontal_spacing=0.1)
    seen: set[str] = set()
    for i, panel in enumerate(panels):
        plotly_lines(figure, panel, i // 2 + 1, i % 2 + 1, seen, m.steps)
    figure.update_layout(height=300 * rows, title=plotly_title(m, layout.title), margin={"t": 90})
    figure.update_layout(legend={"orientation": "h", "y": -0.2 / rows, "yanchor": "top"})
    return plain_look(figure)


def plotly_lines(
    figure: go.Figure, panel: LinePanel, row: int, col: int, seen: set[str], snapshots: Sequence[int] = ()
) -> None:
    """One line panel as traces; a label that the legend already has is not repeated.

    snapshots: of the run, for a panel over the step.
    """
    axis = StepAxis(snapshots) if panel.x_label == STEP_AXIS and len(snapshots) > 1 else None
    for line in panel.lines:
        x = line.x if axis is None else axis.place(line.x)
        if line.low is not None:
            band = go.Scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([line.high, line.low[::-1]]),
                fill="toself",
                mode="lines",
                fillcolor=_transparent(line.color),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=line.label,
                name=line.label,
            )
            figure.add_trace(band, row, col)
        trace = go.Scatter(
            x=x,
            y=line.y,
            customdata=line.x,
            name=line.label,
            legendgroup=line.label,
            showlegend=bool(line.label) and line.label not in seen,
            mode="lines+markers" if len(line.x) <= 30 and len(line.x) != 2 else "lines",
            marker={"size": 5},
            line={"color": line.color, "width": 3 if line.wide else 1.3, "dash": "dash" if line.dashed else "solid"},
            hovertemplate=f"{panel.x_label} %{{customdata}}: %{{y:.4g}}<extra>{line.label}</extra>",
        )
        figure.add_trace(trace, row, col)
        seen.add(line.label)
    figure.update_xaxes(title_text=panel.x_label, row=row, col=col)
    if axis is not None:
        shown = axis.labelled(9)
        figure.update_xaxes(tickvals=axis.place(np.array(shown)), ticktext=[str(s) for s in shown], row=row, col=col)
    figure.update_yaxes(title_text=panel.y_label, type="log" if panel.log_y else "linear", row=row, col=col)
    if panel.y_limits:
        figure.update_yaxes(range=panel.y_limits, row=row, col=col)
    if panel.note:
        write_note(figure, panel.note, row, col)


def write_note(figure: go.Figure, note: str, row: int, col: int) -> None:
    """A sentence in the middle of an empty panel."""
    at = {"x": 0.5, "y": 0.5, "xref": "x domain", "yref": "y domain", "showarrow": False}
    figure.add_annotation(text=note, font={"color": GREY}, row=row, col=col, **at)


def _transparent(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"


@draw_html.register
def _(layout: Bars, m: Measurements) -> go.Figure:
    panels = layout.panels
    titles = [panel.title for panel in panels]
    figure = make_subplots(1, len(panels), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.05)
    for col, panel in enumerate(panels, start=1):
        above, below = panel.high - panel.values, panel.values - panel.low
        trace = go.Bar(
            x=panel.values,
            y=panel.rows,
            orientation="h",
            marker={"color": panel.color},
            error_x={"type": "data", "array": above, "arrayminus": below, "thickness": 1, "width": 2},
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        )
        figure.add_trace(trace, 1, col)
        figure.update_xaxes(title_text=panel.x_label.replace("\n", "<br>"), row=1, col=col)
    figure.update_yaxes(type="category", autorange="reversed")
    height = 22 * len(panels[0].rows) + 200
    figure.update_layout(height=height, showlegend=False, title=plotly_title(m, layout.title), margin={"t": 100})
    return plain_look(figure)


# --- heat maps with one colour range -----------------------------------------------------------------------------


@draw_html.register
def _(layout: Heats, m: Measurements) -> go.Figure:
    panels, above, columns = layout.panels, layout.above, 2
    first = 1 if above else 0
    rows = -(-len(panels) // columns) + first
    specs: list[list[Any]] = [[{} for _ in range(columns)] for _ in range(rows)]
    if above:
        specs[0] = [{"colspan": columns}, None]
    titles = ([above.title] if above else []) + [panel.title for panel in panels]
    spacing = {"vertical_spacing": min(0.12, 0.3 / rows), "horizontal_spacing": 0.13}
    figure = make_subplots(rows, columns, specs=specs, subplot_titles=titles, **spacing)
    if above:
        plotly_lines(figure, above, 1, 1, set(), m.steps)
    for i, panel in enumerate(panels):
        row, col = i // columns + 1 + first, i % columns + 1
        add_heat(figure, panel, row, col)
    if panels:
        bar = {"title": {"text": layout.label, "side": "right"}}
        axis = {"colorscale": "Viridis", "cmin": 0, "cmax": highest(panels), "colorbar": bar}
        figure.update_layout(coloraxis=axis)
    figure.update_layout(height=310 * rows + 100, margin={"t": 100}, title=plotly_title(m, layout.title))
    if above:
        legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"}
        figure.update_layout(showlegend=True, legend=legend)
    return plain_look(figure)


def add_heat(figure: go.Figure, panel: HeatPanel, row: int, col: int) -> None:
    """One heat map on the figure's common colour axis."""
    figure.add_trace(grey_where_undefined(panel.values, panel.columns, panel.rows), row, col)
    trace = go.Heatmap(
        z=panel.values,
        x=panel.columns,
        y=panel.rows,
        coloraxis="coloraxis",
        hovertemplate=f"{panel.title}<br>row %{{y}}, step %{{x}}: %{{z:.4g}}<extra></extra>",
    )
    figure.add_trace(trace, row, col)
    figure.update_xaxes(type="category", title_text=SNAPSHOT_AXIS, row=row, col=col)
    y_title = "" if panel.title == OUTSIDE else "layer"
    figure.update_yaxes(type="category", autorange="reversed", title_text=y_title, row=row, col=col)


def grey_where_undefined(values: np.ndarray, columns: list[str], rows: list[str]) -> go.Heatmap:
    """A grey layer to lie under a heat map; plotly leaves NaN transparent."""
    z = np.where(np.isfinite(values), np.nan, 0.0)
    return _one_color(z, columns, rows, NO_VALUE, hovertemplate="%{y}, %{x}: no value<extra></extra>")


def _one_color(z: np.ndarray, columns: list[str], rows: list[str], color: str, **more: Any) -> go.Heatmap:
    return go.Heatmap(z=z, x=columns, y=rows, colorscale=[[0, color], [1, color]], showscale=False, **more)


# --- maps with a colour range each -------------------------------------------------------------------------------


@draw_html.register
def _(layout: Maps, m: Measurements) -> go.Figure:
    panels, columns, title = layout.panels, layout.page_columns, layout.page_title or layout.title
    rows = -(-len(panels) // columns)
    longest = max((len(row) for panel in panels for row in panel.rows), default=0)  # row labels need their room
    spacing = {"vertical_spacing": 0.28 / rows, "horizontal_spacing": (0.3 + 0.006 * longest) / columns**1.2}
    titles = [_map_title(panel) for panel in panels]
    figure = make_subplots(rows, columns, subplot_titles=titles, **spacing)
    for i, panel in enumerate(panels):
        add_map(figure, panel, i // columns + 1, i % columns + 1)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_layout(height=layout.page_height * rows + 110, title=plotly_title(m, title), margin={"t": 110})
    return plain_look(figure)


def _map_title(panel: MapPanel) -> str:
    """Return the title with its unit, which has no room beside the colour bar."""
    if not panel.values.size:
        return panel.title
    return f"{panel.title} [{panel.unit}]" + (f"<br><sup>{panel.note}</sup>" if panel.note else "")


def add_map(figure: go.Figure, panel: MapPanel, row: int, col: int) -> None:
    """One map as layers: no value, within the band, without a band, coloured; claimed cells outlined."""
    if not panel.values.size:
        write_note(figure, panel.note, row, col)
        figure.update_xaxes(visible=False, row=row, col=col)
        figure.update_yaxes(visible=False, row=row, col=col)
        return
    x, y = panel.columns, panel.rows
    plain_hover = f"{panel.y_label} %{{y}}, {panel.x_label} %{{x}}: %{{z:.4g}}<extra></extra>"
    said = {"hovertemplate": "%{text}<extra></extra>" if panel.hover else plain_hover}
    said |= {"text": panel.hover} if panel.hover else {}
    figure.add_trace(grey_where_undefined(panel.values, x, y), row, col)
    shown, within, unknown = (panel.cells(state) for state in (SHOWN, INSIDE, NO_BAND))
    gaps = {"xgap": 1, "ygap": 1} if panel.outlined is not None else {}  # else pale cells would run into one
    said |= gaps
    if np.isfinite(within).any():
        figure.add_trace(_one_color(within, x, y, WITHIN, **said), row, col)
    if np.isfinite(unknown).any():
        top = 1.6 * symmetric_range(unknown)
        greys = go.Heatmap(z=np.abs(unknown), x=x, y=y, colorscale="Greys", zmin=0, zmax=top, showscale=False, **said)
        figure.add_trace(greys, row, col)
    subplot = figure.get_subplot(row, col)
    bar = {
        "thickness": 10,
        "x": subplot.xaxis.domain[1] + 0.005,
        "xanchor": "left",
        "y": sum(subplot.yaxis.domain) / 2,
        "len": subplot.yaxis.domain[1] - subplot.yaxis.domain[0],
    }
    colors = {"colorscale": "RdBu", "reversescale": True} if panel.diverging else {"colorscale": panel.colors}
    low, high = panel.limits
    figure.add_trace(go.Heatmap(z=shown, x=x, y=y, zmin=low, zmax=high, colorbar=bar, **colors, **said), row, col)
    _outline(figure, panel, row, col)
    figure.update_xaxes(type="category", title_text=panel.x_label, title_standoff=4, row=row, col=col)
    figure.update_yaxes(type="category", autorange="reversed", title_text=panel.y_label, row=row, col=col)
    _write_cells(figure, panel, row, col)


def _outline(figure: go.Figure, panel: MapPanel, row: int, col: int) -> None:
    for i, j in np.argwhere(panel.outlined) if panel.outlined is not None else ():
        corners = {"x0": j - 0.45, "x1": j + 0.45, "y0": i - 0.45, "y1": i + 0.45}
        figure.add_shape(type="rect", line={"color": "black", "width": 1.5}, row=row, col=col, **corners)


def _write_cells(figure: go.Figure, panel: MapPanel, row: int, col: int) -> None:
    if panel.texts is None:
        return
    x, y = np.meshgrid(panel.columns, panel.rows)
    texts = [html.escape(text).replace("\n", "<br>") for line in panel.texts for text in line]
    colors = ["white" if is_dark else "#222222" for is_dark in panel.dark_cells().ravel()]
    written = go.Scatter(
        x=x.ravel(),
        y=y.ravel(),
        mode="text",
        text=texts,
        textfont={"size": 9, "color": colors},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_trace(written, row, col)


# --- pages -------------------------------------------------------------------------------------------------------


def figure_fragment(figure: go.Figure, name: str) -> str:
    """The figure's <div> and its data, for a page that holds plotly.js already."""
    return figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=PLOTLY_CONFIG, auto_play=False)


def figure_page(figure: go.Figure, name: str) -> bytes:
    """A self-contained page with one figure; the fixed id makes equal data give equal bytes."""
    page = figure.to_html(full_html=True, include_plotlyjs=True, div_id=name, config=PLOTLY_CONFIG, auto_play=False)
    title = f'<title>{name.replace("_", " ")}</title><meta name="viewport" content="width=device-width">'
    return page.replace("<head>", f"<head>{title}", 1).encode()


def step_slider(steps: Sequence[int]) -> dict[str, Any]:
    """Layout with a slider over the steps and a play button."""
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    play = {"frame": {"duration": FRAME_MS, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True}
    return {
        "sliders": [
            {
                "currentvalue": {"prefix": "step "},
                "pad": {"t": 45, "b": 10},
                "x": 0.12,
                "len": 0.88,
                "steps": [{"label": str(step), "method": "animate", "args": [[str(step)], jump]} for step in steps],
            }
        ],
        "updatemenus": [
            {
                "type": "buttons",
                "showactive": False,
                "x": 0,
                "y": 0,
                "xanchor": "left",
                "yanchor": "top",
                "pad": {"t": 55},
                "buttons": [{"label": "play", "method": "animate", "args": [None, play]}],
            }
        ],
    }
