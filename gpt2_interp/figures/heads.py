"""Entropy of every attention head, step by step.

What is drawn is computed first for all steps, together with one colour range over all of them: a colour means the same
in every frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw_axes import BESIDE, column_ticks, row_ticks
from gpt2_interp.figures.draw_html import draw_html, step_slider
from gpt2_interp.figures.gif import Canvas, Film, draw_film, only_one, step_durations
from gpt2_interp.figures.panels import NO_VALUE, STYLE, WIDTH, color_map, heading, measure_label, symmetric_range
from gpt2_interp.statistics.intervals import nan_mean

HEADS_SHOWN = 4


@dataclass(frozen=True)
class HeadEvolution:
    """Entropy and its change against the first step, each [step, layer, head]: means over probes at region Q."""

    steps: list[int]
    entropy: np.ndarray
    change: np.ndarray
    entropy_range: tuple[float, float]
    change_range: float


def head_evolution(m: Measurements) -> HeadEvolution:
    steps, values = m.headline("attn_entropy")  # [step, example, layer, head]
    entropy = nan_mean(values, axis=1)
    change = entropy - entropy[0]
    finite = entropy[np.isfinite(entropy)]
    limits = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return HeadEvolution(steps, entropy, change, limits, symmetric_range(change))


@draw_film.register
def _(data: HeadEvolution, m: Measurements) -> Film:
    n_layer = data.entropy.shape[1]
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(max(2.4, 0.16 * n_layer + 1.1))
        axes = canvas.figure.subplots(1, 2)
        low, high = data.entropy_range
        images = [
            axes[0].imshow(data.entropy[0], cmap=color_map("viridis"), vmin=low, vmax=high, aspect="auto"),
            axes[1].imshow(
                data.change[0], cmap=color_map("RdBu_r"), vmin=-data.change_range, vmax=data.change_range, aspect="auto"
            ),
        ]
        titles = (heading("attn_entropy"), f"Change since step {data.steps[0]}")
        for ax, image, title in zip(axes, images, titles, strict=True):
            ax.set(title=title, xlabel="head", ylabel="layer")
            column_ticks(ax, m.labels("head"), WIDTH / 2 - BESIDE)
            row_ticks(ax, m.labels("layer"), max(1.3, 0.16 * n_layer))
            ax.grid(False)
            canvas.figure.colorbar(image, ax=ax, label=measure_label("attn_entropy"))
        title = canvas.figure.suptitle(f"step {data.steps[0]}")

        def show(i: int) -> None:
            images[0].set_data(data.entropy[i])
            images[1].set_data(data.change[i])
            title.set_text(f"{m.paths.run_name} · step {data.steps[i]}{only_one(data.steps)}")

        return Film(canvas, show, step_durations(len(data.steps)))


@draw_html.register
def _(data: HeadEvolution, m: Measurements) -> go.Figure:
    """Draw both heat maps with a slider over the steps; colour ranges fixed over all of them."""
    low, high = data.entropy_range
    figure = make_subplots(
        1, 2, horizontal_spacing=0.2, subplot_titles=[heading("attn_entropy"), f"Change since step {data.steps[0]}"]
    )
    figure.update_annotations(font_size=13)

    def maps(i: int) -> list[go.Heatmap]:
        hover = "layer %{y}, head %{x}: %{z:.3f} bits<extra></extra>"
        bar = {"title": {"text": measure_label("attn_entropy"), "side": "right"}, "thickness": 14}
        return [
            go.Heatmap(
                z=data.entropy[i],
                zmin=low,
                zmax=high,
                colorscale="Viridis",
                colorbar={**bar, "x": 0.4},
                hovertemplate=hover,
            ),
            go.Heatmap(
                z=data.change[i],
                zmin=-data.change_range,
                zmax=data.change_range,
                colorscale="RdBu",
                reversescale=True,
                colorbar={**bar, "x": 1.0},
                hovertemplate=hover,
            ),
        ]

    for column, trace in enumerate(maps(0), start=1):
        figure.add_trace(trace, 1, column)
    figure.frames = [go.Frame(data=maps(i), traces=[0, 1], name=str(step)) for i, step in enumerate(data.steps)]
    figure.update_xaxes(title_text="head", dtick=1)
    figure.update_yaxes(title_text="layer", dtick=1, autorange="reversed")
    figure.update_layout(
        template="plotly_white",
        height=max(420, 28 * data.entropy.shape[1] + 250),
        plot_bgcolor=NO_VALUE,
        margin={"t": 110},
        title={
            "text": f"{heading('attn_entropy')} of every head · run {m.paths.run_name}",
            "subtitle": {"text": "queries that predict the target, mean over probes" + only_one(data.steps)},
        },
        **step_slider(data.steps),
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return figure
