"""Pictures that move with the optimizer step: heads, attention patterns, neurons, and the latent space.

What is drawn is computed first for all steps (`HeadEvolution`, `PatternEvolution`, ...), together with one colour range
over all of them: a colour means the same in every frame. Imports no torch.
"""

from __future__ import annotations

import html
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import imageio.v3 as imageio
import matplotlib
import numpy as np
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from plotly.subplots import make_subplots

from gpt2_interp.errors import InputError
from gpt2_interp.figures import GREY, NO_VALUE, STYLE, Measurements, measure_label, nan_mean
from gpt2_interp.projection import Projection

FRAME_MS = 900
LAST_FRAME_MS = 2500
HEADS_SHOWN = 4
NEURONS_PER_LAYER = 16
MOST_CLUSTERS = 14  # more colours than this can't be told apart
TURN_FRAMES = 36  # one full turn of the camera


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


def color_map(name: str) -> Any:
    return matplotlib.colormaps[name].with_extremes(bad=NO_VALUE)


def symmetric_range(values: np.ndarray) -> float:
    """Half-width of a colour range centred on 0 that holds every defined value."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if len(finite) and finite.max() > 0 else 1.0


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
    steps, values = m.stack("attn_entropy")  # [step, example, region, layer, head]
    entropy = nan_mean(m.region(values, axis=2), axis=1)
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
    steps, patterns = m.stack("attn_pattern")  # [step, pattern_example, layer, head, query, key]
    probes = m.probe_set.get("pattern", [])
    if not probes:
        raise InputError(f"run {m.paths.run_name!r} has no probe with full attention patterns.")
    at = min(range(len(probes)), key=lambda i: len(probes[i]["tokens"]))
    probe, size = probes[at], len(probes[at]["tokens"])
    change = head_evolution(m).change[-1]  # [layer, head]
    order = np.argsort(-np.abs(np.nan_to_num(change)), axis=None, kind="stable")[:HEADS_SHOWN]
    heads = [(int(i // change.shape[1]), int(i % change.shape[1])) for i in order]
    shown = np.stack([patterns[:, at, layer, head, :size, :size] for layer, head in heads], axis=1).astype(np.float32)
    shown[..., np.triu(np.ones((size, size), dtype=bool), 1)] = np.nan  # a query can't see later keys: no value, not 0
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
        _token_ticks(axes, data.tokens, side)
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


def _token_ticks(axes: np.ndarray, tokens: list[str], side: float) -> None:
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


# --- neurons ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NeuronEvolution:
    """z [step, layer, rank]: change of the mean activation; neurons [layer, rank] says which neuron stands where."""

    steps: list[int]
    neurons: np.ndarray
    z: np.ndarray
    z_range: float


def neuron_evolution(m: Measurements, per_layer: int = NEURONS_PER_LAYER) -> NeuronEvolution:
    """z = (mean_t - mean_0) / max(sd_0, the layer's 5th percentile of sd_0).

    Those that are largest at the last step, in that order.
    """
    steps, mean = m.stack("neuron_mean")  # [step, region, layer, d_mlp]
    _, sd = m.stack("neuron_sd")
    mean, sd_0 = m.region(mean, axis=1), m.region(sd, axis=1)[0]  # [step, layer, d_mlp], [layer, d_mlp]
    floor = np.nanpercentile(sd_0, 5, axis=1, keepdims=True)  # a nearly constant neuron would divide by nearly nothing
    scale = np.maximum(sd_0, floor)
    z = np.divide(mean - mean[0], scale, out=np.full(mean.shape, np.nan), where=scale > 0)
    order = np.argsort(-np.abs(np.nan_to_num(z[-1])), axis=1, kind="stable")[:, :per_layer]  # [layer, rank]
    shown = np.take_along_axis(z, order[None], axis=2)
    return NeuronEvolution(steps, order, shown, symmetric_range(shown))


def neuron_gif(m: Measurements) -> bytes:
    data = neuron_evolution(m)
    n_layer, n_rank = data.neurons.shape
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(0.5 * n_rank + 2.2, max(3.2, 0.36 * n_layer + 1.7))
        ax = canvas.figure.subplots()
        image = ax.imshow(data.z[0], cmap=color_map("RdBu_r"), vmin=-data.z_range, vmax=data.z_range, aspect="auto")
        ax.set(
            xlabel="rank by change at the last step (the number in a cell is the neuron)",
            ylabel="layer",
            xticks=range(n_rank),
            xticklabels=range(1, n_rank + 1),
            yticks=range(n_layer),
        )
        ax.grid(False)
        cells = [(layer, rank) for layer in range(n_layer) for rank in range(n_rank)]
        numbers = [
            ax.text(rank, layer, str(data.neurons[layer, rank]), ha="center", va="center", fontsize=6.5)
            for layer, rank in cells
        ]
        canvas.figure.colorbar(image, ax=ax, label="z of neuron_mean [standard deviations at step 0]")
        title = canvas.figure.suptitle("\n", fontsize=10)
        frames = []
        for i, step in enumerate(data.steps):
            image.set_data(data.z[i])
            for cell, number in zip(cells, numbers, strict=True):
                number.set_color("white" if abs(data.z[i][cell]) > 0.55 * data.z_range else "#333333")
            title.set_text(
                f"{m.paths.run_name} · step {step}{only_one(data.steps)}\n"
                "MLP neurons of each layer whose mean activation changed most"
            )
            frames.append(canvas.frame())
    return gif_bytes(frames, step_durations(len(frames)))


# --- the latent space ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Probes drawn in one colour; members are indices of examples."""

    label: str
    color: str
    members: list[int]


def color_groups(clusters: Sequence[str], defined: np.ndarray) -> list[Group]:
    """One colour per cluster, or one for all where there are more clusters than colours can tell apart."""
    members = np.flatnonzero(defined).tolist()
    sizes = Counter(clusters[i] for i in members)
    if len(sizes) > MOST_CLUSTERS:
        return [Group(f"probes of {len(sizes)} clusters", "#1f5fa8", members)]
    colors = sns.color_palette("husl", len(sizes), desat=0.85).as_hex()
    return [
        Group(name, color, [i for i in members if clusters[i] == name])
        for name, color in zip(sorted(sizes, key=natural_order), colors, strict=True)
    ]


def natural_order(text: str) -> list[Any]:
    """A sorting key that puts "event 2" before "event 10"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text)]


def equal_ranges(coordinates: np.ndarray) -> list[tuple[float, float]]:
    """One range per axis over all steps, all of the same length, so that distances look the same in every direction."""
    points = coordinates[np.isfinite(coordinates).all(axis=-1)]  # [point, 3]
    centre = (points.max(axis=0) + points.min(axis=0)) / 2
    half = max(float((points.max(axis=0) - points.min(axis=0)).max()) * 0.53, 1e-6)
    return [(float(c - half), float(c + half)) for c in centre]


def axis_names(projection: Projection) -> list[str]:
    if projection.info.get("method") == "pca":
        shares = projection.info.get("variance_explained", [])
        return [f"PC {i} ({100 * share:.0f}% of variance)" for i, share in enumerate(shares, start=1)]
    return ["UMAP 1", "UMAP 2", "UMAP 3"]


def quality_sentence(projection: Projection) -> str:
    """How far the picture can be trusted, in one line."""
    trust, kept = projection.trustworthiness, projection.knn_overlap
    chance = projection.info.get("knn_overlap_chance", float("nan"))
    return (
        f"trustworthiness {trust.min():.2f} to {trust.max():.2f}, neighbours kept {100 * kept.min():.0f} to "
        f"{100 * kept.max():.0f}% (chance {100 * chance:.0f}%)"
    )


def latent_plotly(
    projection: Projection, probe_ids: Sequence[str], clusters: Sequence[str], run_name: str
) -> go.Figure:
    """Slider over the steps, one trace per cluster, the same axis ranges throughout."""
    groups = color_groups(clusters, np.isfinite(projection.coordinates).all(axis=(0, 2)))
    names = axis_names(projection)

    def points(step: int, group: Group) -> dict[str, Any]:
        x, y, z = projection.coordinates[step, group.members].T.round(4).tolist()
        return {"x": x, "y": y, "z": z}

    figure = go.Figure(
        [
            go.Scatter3d(
                **points(0, group),
                mode="markers",
                name=html.escape(group.label),
                marker={"size": 3.5, "color": group.color, "opacity": 0.85},
                text=[f"{html.escape(probe_ids[i])}<br>{html.escape(clusters[i])}" for i in group.members],
                hovertemplate="%{text}<extra></extra>",
            )
            for group in groups
        ]
    )
    figure.frames = [
        go.Frame(
            data=[go.Scatter3d(**points(i, group)) for group in groups], traces=list(range(len(groups))), name=str(step)
        )
        for i, step in enumerate(projection.steps)
    ]
    axes = {
        f"{letter}axis": {"range": limits, "title": {"text": name}, "autorange": False}
        for letter, limits, name in zip("xyz", equal_ranges(projection.coordinates), names, strict=True)
    }
    subtitle = f"{latent_description(projection)}; {quality_sentence(projection)}"
    figure.update_layout(
        template="plotly_white",
        height=720,
        margin={"l": 10, "r": 10, "b": 40, "t": 80},
        scene={**axes, "aspectmode": "cube"},
        legend={"itemsizing": "constant"},
        title={"text": f"Hidden states of the probes · run {run_name}", "subtitle": {"text": subtitle}},
        **(step_slider(projection.steps) if len(projection.steps) > 1 else {}),
    )
    return figure


def latent_description(projection: Projection) -> str:
    info = projection.info
    method = {"pca": "PCA", "aligned_umap": "AlignedUMAP"}.get(info.get("method"), str(info.get("method")))
    return f"{method} of all steps together, {info.get('layer', 'layer ?')}, {info.get('pooling', '?')}"


def latent_gif(projection: Projection, clusters: Sequence[str], run_name: str) -> bytes:
    """The camera makes one turn while the steps advance; limits fixed over all frames."""
    groups = color_groups(clusters, np.isfinite(projection.coordinates).all(axis=(0, 2)))
    n_step = len(projection.steps)
    per_step = max(1, round(TURN_FRAMES / n_step))
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(7.6, 5.8, dpi=80, layout=None)
        ax = canvas.figure.add_axes((0.02, 0.03, 0.76, 0.86), projection="3d")
        members = [i for group in groups for i in group.members]
        colors = [group.color for group in groups for _ in group.members]
        points = ax.scatter(
            *projection.coordinates[0, members].T, s=14, c=colors, linewidths=0
        )  # one artist: 3 x faster
        ranges = equal_ranges(projection.coordinates)
        ax.set(xlim=ranges[0], ylim=ranges[1], zlim=ranges[2], box_aspect=(1, 1, 1))
        for set_label, name in zip((ax.set_xlabel, ax.set_ylabel, ax.set_zlabel), axis_names(projection), strict=True):
            set_label(name, fontsize=8, labelpad=-4)
        ax.tick_params(labelsize=6, pad=0)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_major_locator(MaxNLocator(5))
        handles = [Line2D([], [], marker="o", linestyle="", color=group.color, label=group.label) for group in groups]
        canvas.figure.legend(handles=handles, loc="center right", fontsize=7.5, frameon=False)
        canvas.figure.text(
            0.5,
            0.925,
            f"{latent_description(projection)}; {quality_sentence(projection)}",
            ha="center",
            va="top",
            fontsize=7,
            color=GREY,
        )
        title = canvas.figure.suptitle("", fontsize=12, y=0.98)
        frames = []
        for i in range(n_step * per_step):
            at = i // per_step
            points._offsets3d = tuple(projection.coordinates[at, members].T)  # matplotlib has no public setter
            ax.view_init(elev=22, azim=-60 + 360 * i / (n_step * per_step))
            title.set_text(f"{run_name} · step {projection.steps[at]}")
            frames.append(canvas.frame())
    return gif_bytes(frames, [110] * (len(frames) - 1) + [1200])
