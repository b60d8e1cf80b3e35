"""The latent space over the steps: a page with a slider, and a GIF whose camera turns."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.projection import Projection, load_projection
from gpt2_interp.figures.draw_html import draw_html, step_slider
from gpt2_interp.figures.gif import Canvas, Film, draw_film
from gpt2_interp.figures.panels import BLUE, CATEGORIES, GREY, SMALLEST_TEXT, STYLE, layer_name

SHAPES = ("circle", "diamond")  # names of plotly
MARKERS = {"circle": "o", "diamond": "D"}  # and of matplotlib
MOST_CLUSTERS = len(CATEGORIES) * len(SHAPES)  # more can't be told apart
TURN_FRAMES = 36  # one full turn of the camera


@dataclass(frozen=True)
class Group:
    """Probes drawn in one colour and shape; members are indices of examples."""

    label: str
    color: str
    shape: str
    members: list[int]


@dataclass(frozen=True)
class LatentSpace:
    """probe_ids, clusters: one for each example of the projection."""

    projection: Projection
    probe_ids: Sequence[str]
    clusters: Sequence[str]


def latent_space(m: Measurements) -> LatentSpace:
    """The saved projection. Raises InputError if analyze_latent_space.py has not written it."""
    projection = load_projection(m.paths.latent / "projection.safetensors")
    n_probe = projection.coordinates.shape[1]
    return LatentSpace(projection, m.probe_ids(n_probe), m.clusters(n_probe))


def color_groups(clusters: Sequence[str], defined: np.ndarray) -> list[Group]:
    """A colour and a shape for each cluster, or one for all where there are more clusters than can be told apart."""
    members = np.flatnonzero(defined).tolist()
    sizes = Counter(clusters[i] for i in members)
    if len(sizes) > MOST_CLUSTERS:
        return [Group(f"probes of {len(sizes)} clusters", BLUE, SHAPES[0], members)]
    looks = [(color, shape) for shape in SHAPES for color in CATEGORIES]
    return [
        Group(name, *look, [i for i in members if clusters[i] == name])
        for name, look in zip(sorted(sizes, key=natural_order), looks, strict=False)
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
    """Return how far the picture can be trusted, in one line."""
    trust, kept = projection.trustworthiness, projection.neighbours_kept
    chance = projection.info.get("neighbours_kept_chance", float("nan"))
    return (
        f"trustworthiness {trust.min():.2f} to {trust.max():.2f}, neighbours kept {100 * kept.min():.0f} to "
        f"{100 * kept.max():.0f}% (chance {100 * chance:.0f}%)"
    )


@draw_html.register
def _(space: LatentSpace, m: Measurements) -> go.Figure:
    """Slider over the steps, one trace per cluster, the same axis ranges throughout."""
    projection, probe_ids, clusters = space.projection, space.probe_ids, space.clusters
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
                marker={"size": 3.5, "symbol": group.shape, "color": group.color, "opacity": 0.85},
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
        title={"text": f"Hidden states of the probes · run {m.paths.run_name}", "subtitle": {"text": subtitle}},
        **(step_slider(projection.steps) if len(projection.steps) > 1 else {}),
    )
    return figure


def latent_description(projection: Projection) -> str:
    info = projection.info
    method = {"pca": "PCA", "aligned_umap": "AlignedUMAP"}.get(info.get("method"), str(info.get("method")))
    layer, pooling = layer_name(str(info.get("layer", "layer ?"))), str(info.get("pooling", "?")).replace("_", " ")
    return f"{method} of all steps together, {layer}, {pooling}"


@draw_film.register
def _(space: LatentSpace, m: Measurements) -> Film:
    """The camera makes one turn while the steps advance; limits fixed over all frames."""
    projection, clusters = space.projection, space.clusters
    groups = color_groups(clusters, np.isfinite(projection.coordinates).all(axis=(0, 2)))
    n_step = len(projection.steps)
    per_step = max(1, round(TURN_FRAMES / n_step))
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(4.8, layout=None)
        ax = canvas.figure.add_axes((0.02, 0.03, 0.76, 0.86), projection="3d")
        clouds = []  # one artist for each shape and not for each cluster: 3 x faster
        for shape in dict.fromkeys(group.shape for group in groups):
            alike = [group for group in groups if group.shape == shape]
            members = [i for group in alike for i in group.members]
            colors = [group.color for group in alike for _ in group.members]
            look = {"s": 14, "c": colors, "linewidths": 0, "marker": MARKERS[shape]}
            clouds.append((ax.scatter(*projection.coordinates[0, members].T, **look), members))
        ranges = equal_ranges(projection.coordinates)
        ax.set(xlim=ranges[0], ylim=ranges[1], zlim=ranges[2], box_aspect=(1, 1, 1))
        for set_label, name in zip((ax.set_xlabel, ax.set_ylabel, ax.set_zlabel), axis_names(projection), strict=True):
            set_label(name, labelpad=-6)
        ax.tick_params(labelsize=SMALLEST_TEXT, pad=-1)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_major_locator(MaxNLocator(5))
        handles = [
            Line2D(
                [], [], marker=MARKERS[group.shape], linestyle="", color=group.color, label=group.label, markersize=4
            )
            for group in groups
        ]
        canvas.figure.legend(handles=handles, loc="center right", frameon=False)
        canvas.figure.text(
            0.5,
            0.925,
            f"{latent_description(projection)}\n{quality_sentence(projection)}",
            ha="center",
            va="top",
            fontsize=SMALLEST_TEXT,
            color=GREY,
        )
        title = canvas.figure.suptitle("", y=0.98)

        def show(i: int) -> None:
            at = i // per_step
            for points, members in clouds:
                points._offsets3d = tuple(projection.coordinates[at, members].T)  # matplotlib has no public setter
            ax.view_init(elev=22, azim=-60 + 360 * i / (n_step * per_step))
            title.set_text(f"{m.paths.run_name} · step {projection.steps[at]}")

    return Film(canvas, show, [110] * (n_step * per_step - 1) + [1200])
