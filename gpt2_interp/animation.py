"""Pictures that move with the optimizer step: heads and attention patterns; and how frames become a GIF.

What is drawn is computed first for all steps (`HeadEvolution`, `PatternEvolution`, ...), together with one colour range
over all of them: a colour means the same in every frame. Imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import imageio.v3 as imageio
import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image
from plotly.subplots import make_subplots

from gpt2_interp.errors import InputError
from gpt2_interp.measurements import Measurements, nan_mean
from gpt2_interp.measures.patterns import unfold_patterns
from gpt2_interp.panels import NO_VALUE, STYLE, color_map, measure_label, symmetric_range

FRAME_MS = 900
LAST_FRAME_MS = 2500
HEADS_SHOWN = 4


# --- GIF ---------------------------------------------------------------------------------------------------------


def gif_bytes(frames: Sequence[np.ndarray], duration_ms: Sequence[int]) -> bytes:
    """frames: RGB uint8 [height, width, 3], all of one size; one duration in milliseconds per frame; loops for ever.

    Each frame must differ from its neighbours (they carry their step): the format merges identical ones.
    """
    durations = list(duration_ms) if len(frames) > 1 else duration_ms[0]  # Pillow wants a number for a single frame
    shared = with_shared_palette(frames)
    return imageio.imwrite("<bytes>", np.stack(shared), extension=".gif", plugin="pillow", duration=durations, loop=0)


def with_shared_palette(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The frames in 256 colours that are the same for all, else a colour would drift from frame to frame.

    Maximum coverage keeps the rare colours: the usual median cut spends its colours on the background, and colour bars
    come out up to 57 of 255 off; this way it is 7.
    """
    sample = [frames[i] for i in sorted({0, len(frames) // 3, 2 * len(frames) // 3, len(frames) - 1})]
    palette = Image.fromarray(np.concatenate(sample)).quantize(256, method=Image.Quantize.MAXCOVERAGE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    return [np.asarray(image.convert("RGB")) for image in images]


def step_durations(n_frames: int) -> list[int]:
    """Milliseconds per frame; the last frame stays longer, so that one sees where the run ended."""
    return [FRAME_MS] * (n_frames - 1) + [LAST_FRAME_MS]


def only_one(steps: Sequence[int]) -> str:
    """What a title adds when there is nothing to compare yet."""
    return "" if len(steps) > 1 else " · only one snapshot so far: nothing can have changed yet"


class Canvas:
    """A matplotlib figure that is drawn again and again into RGB arrays."""

    def __init__(self, width: float, height: float, dpi: int = 90, layout: str | None = "constrained"):
        self.figure = Figure(figsize=(width, height), dpi=dpi, layout=layout)
        self._canvas = FigureCanvasAgg(self.figure)

    def frame(self) -> np.ndarray:
        """[height, width, 3] uint8."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            self._canvas.draw()
        if self.figure.get_layout_engine() is not None:
            self.figure.set_layout_engine("none")  # laid out once: frames must not jitter, and later ones are faster
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


# --- attention heads -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadEvolution:
    """entropy, change: [step, layer, head], means over probes at region Q; change is against the first step."""

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


def head_gif(m: Measurements) -> bytes:
    data = head_evolution(m)
    n_layer, n_head = data.entropy.shape[1:]
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(max(8.0, 0.55 * n_head * 2 + 2.5), max(3.4, 0.3 * n_layer + 1.6))
        axes = canvas.figure.subplots(1, 2)
        low, high = data.entropy_range
        images = [
            axes[0].imshow(data.entropy[0], cmap=color_map("viridis"), vmin=low, vmax=high, aspect="auto"),
            axes[1].imshow(
                data.change[0], cmap=color_map("RdBu_r"), vmin=-data.change_range, vmax=data.change_range, aspect="auto"
            ),
        ]
        titles = ("Attention entropy", f"Change since step {data.steps[0]}")
        for ax, image, title in zip(axes, images, titles, strict=True):
            ax.set(title=title, xlabel="head", ylabel="layer", xticks=range(n_head), yticks=range(n_layer))
            ax.grid(False)
            canvas.figure.colorbar(image, ax=ax, label=measure_label("attn_entropy"))
        title = canvas.figure.suptitle(f"step {data.steps[0]}")
        frames = []
        for i, step in enumerate(data.steps):
            images[0].set_data(data.entropy[i])
            images[1].set_data(data.change[i])
            title.set_text(f"{m.paths.run_name} · step {step}{only_one(data.steps)}")
            frames.append(canvas.frame())
    return gif_bytes(frames, step_durations(len(frames)))


def head_plotly(m: Measurements) -> go.Figure:
    """Both heat maps with a slider over the steps; colour ranges fixed over all of them."""
    data = head_evolution(m)
    low, high = data.entropy_range
    figure = make_subplots(
        1, 2, horizontal_spacing=0.2, subplot_titles=["Attention entropy", f"Change since step {data.steps[0]}"]
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
            "text": f"Attention entropy of every head · run {m.paths.run_name}",
            "subtitle": {"text": "queries that predict the target, mean over probes" + only_one(data.steps)},
        },
        **step_slider(data.steps),
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return figure


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


# --- attention patterns ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatternEvolution:
    """patterns: [step, head shown, query, key] of one probe; heads: (layer, head), with their changes in entropy."""

    steps: list[int]
    probe_id: str
    tokens: list[str]
    boundaries: tuple[int, int]  # where the template and the target begin
    heads: list[tuple[int, int]]
    changes: list[float]
    patterns: np.ndarray


def pattern_evolution(m: Measurements) -> PatternEvolution:
    """The shortest pattern probe, the heads whose mean entropy over all probes changed most."""
    steps, patterns = m.stack("attn_pattern")  # [step, pattern_example, layer, head, query_key]
    probes = m.probe_set.get("pattern", [])
    if not probes:
        raise InputError(f"run {m.paths.run_name!r} has no probe with full attention patterns.")
    at = min(range(len(probes)), key=lambda i: len(probes[i]["tokens"]))
    probe, size = probes[at], len(probes[at]["tokens"])
    change = head_evolution(m).change[-1]  # [layer, head]
    order = np.argsort(-np.abs(np.nan_to_num(change)), axis=None, kind="stable")[:HEADS_SHOWN]
    heads = [(int(i // change.shape[1]), int(i % change.shape[1])) for i in order]
    chosen = np.stack([patterns[:, at, layer, head] for layer, head in heads], axis=1)
    shown = unfold_patterns(chosen)[..., :size, :size]
    boundaries = (probe["n_source"], probe["n_source"] + probe["n_template"])
    changes = [float(change[head]) for head in heads]
    return PatternEvolution(
        steps, probe["id"], [readable(t) for t in probe["tokens"]], boundaries, heads, changes, shown
    )


def readable(token: str) -> str:
    """A token for an axis: GPT-2's Ġ is a space, line breaks get a sign, long ones are cut."""
    text = token.replace("Ġ", " ").replace("Ċ", "\n").replace("\n", "⏎")
    text = text.replace(" ", "·") if not text.strip() else text.strip()
    return text if len(text) <= 12 else text[:11] + "…"


def pattern_gif(m: Measurements) -> bytes:
    data = pattern_evolution(m)
    n_token = len(data.tokens)
    with matplotlib.rc_context(STYLE):
        side = float(np.clip(0.095 * n_token, 3.0, 5.6))
        columns = min(2, len(data.heads))
        canvas = Canvas(columns * side + 2.2, -(-len(data.heads) // columns) * side + 1.6, dpi=80)
        axes = canvas.figure.subplots(-(-len(data.heads) // columns), columns, squeeze=False, sharex=True, sharey=True)
        images = []
        for ax, (layer, head), change, first in zip(
            axes.ravel(), data.heads, data.changes, data.patterns[0], strict=False
        ):
            image = ax.imshow(first, cmap=color_map("magma"), norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
            images.append(image)
            ax.set_title(f"layer {layer}, head {head}: {change:+.2f} bits", fontsize=9)
            ax.grid(False)
            for boundary in data.boundaries:
                if 0 < boundary < n_token:
                    ax.axhline(boundary - 0.5, color="#7fd4ff", linewidth=0.7)
                    ax.axvline(boundary - 0.5, color="#7fd4ff", linewidth=0.7)
        for ax in axes.ravel()[len(data.heads) :]:
            ax.remove()
        token_ticks(axes, data.tokens, side)
        canvas.figure.colorbar(
            images[0],
            ax=axes,
            shrink=0.6,
            ticks=[0, 0.05, 0.25, 0.5, 1],
            label=f"{measure_label('attn_pattern')}, square-root scale",
        )
        title = canvas.figure.suptitle("\n", fontsize=10)
        frames = []
        for i, step in enumerate(data.steps):
            for image, pattern in zip(images, data.patterns[i], strict=True):
                image.set_data(pattern)
            title.set_text(
                f"{m.paths.run_name} · step {step} · probe {data.probe_id}{only_one(data.steps)}\n"
                f"the heads whose entropy changed most by step {data.steps[-1]} (mean over all probes)"
            )
            frames.append(canvas.frame())
    return gif_bytes(frames, step_durations(len(frames)))


def token_ticks(axes: np.ndarray, tokens: list[str], side: float) -> None:
    """Token labels at the outer edges, as many as are legible."""
    every = max(1, -(-len(tokens) // int(side * 14)))
    shown = range(0, len(tokens), every)
    size = float(np.clip(side * 60 / len(tokens) * every, 4.5, 8))
    for ax in axes.ravel():
        if ax.figure is None:  # removed
            continue
        ax.set_xticks(shown, [tokens[i] for i in shown], rotation=90, fontsize=size)
        ax.set_yticks(shown, [tokens[i] for i in shown], fontsize=size)
        ax.tick_params(length=0, pad=1)
    for ax in axes[-1]:
        ax.set_xlabel("key (attended to)")
    for ax in axes[:, 0]:
        ax.set_ylabel("query")
