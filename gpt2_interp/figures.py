"""Figures of one run, drawn from its saved measurements alone: PNG (matplotlib, seaborn) and the same in plotly.

Each figure is first turned into panels (`LinePanel`, `HeatPanel`): plain arrays with their labels and units. Both
drawing libraries draw the same panels, and the tests look at the panels. Imports no torch.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from plotly.subplots import make_subplots

from gpt2_interp.errors import InputError
from gpt2_interp.measures.hidden_states import cka_debiased, displacement
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots import MEASURE, POOLINGS, SnapshotStore

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
}
NO_VALUE = "#c8c8c8"  # undefined (NaN) is grey, never the colour of 0
BLUE, ORANGE, GREY = "#1f5fa8", "#d1641b", "#777777"
DRAWS = 1000
FEWEST_CLUSTERS = 10  # below this, resampling whole clusters says little
ONE_STEP = "Only one snapshot so far: nothing can have changed yet."


# --- what one run has measured ----------------------------------------------------------------------------------


class Measurements:
    """One run's saved measurements, each array read once. Raises InputError if there is no snapshot at all."""

    def __init__(self, paths: RunPaths):
        self.paths = paths
        self.store = SnapshotStore(paths)
        self.info = self.store.run_info()
        self.steps = self.store.steps()
        if not self.steps:
            raise InputError(
                f"run {paths.run_name!r} has no snapshot yet: wait for its first checkpoint, or train it again "
                f"with gpt2_summarization.py --run_name {paths.run_name}."
            )
        self.log = self.store.read_log()
        self.probe_set = self.store.probe_set() if self.store.probe_file.is_file() else {}
        self._stacks: dict[str, tuple[list[int], np.ndarray]] = {}

    def stack(self, name: str) -> tuple[list[int], np.ndarray]:
        """(steps, array [step, *axes]). Raises InputError if no snapshot has it."""
        if name not in self._stacks:
            self._stacks[name] = self.store.stack(name)
        return self._stacks[name]

    def labels(self, axis: str) -> list[str]:
        value = self.info["axes"][axis]
        return [str(i) for i in range(value)] if isinstance(value, int) else [str(label) for label in value]

    def clusters(self, n_example: int) -> list[str]:
        """Cluster of every probe; without a probe set each probe is its own."""
        examples = self.probe_set.get("example", [])
        if len(examples) != n_example:
            return [str(i) for i in range(n_example)]
        return [str(example.get("cluster", i)) for i, example in enumerate(examples)]

    def probe_ids(self, n_example: int) -> list[str]:
        examples = self.probe_set.get("example", [])
        return (
            [str(e.get("id", i)) for i, e in enumerate(examples)]
            if len(examples) == n_example
            else self.clusters(n_example)
        )

    def logged(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of one scalar of the training log; null becomes NaN. Both [line]."""
        lines = [line for line in self.log if key in line]
        values = [np.nan if line[key] is None else line[key] for line in lines]
        return np.array([line["step"] for line in lines], dtype=int), np.array(values, dtype=float)

    def region(self, array: np.ndarray, axis: int, name: str = "Q") -> np.ndarray:
        """`array` at one region."""
        return np.take(array, self.labels("region").index(name), axis=axis)


def nan_mean(array: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean of the defined values; NaN where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(array, axis=axis)


def bootstrap_band(values: np.ndarray, clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Mean over probes with a 95% percentile bootstrap band, probes with equal weight.

    values [step, example] -> mean, low, high [step], and the band's name. Whole clusters are drawn, because the probes
    of one are not independent; with fewer than FEWEST_CLUSTERS of them single probes are, and the name says so.
    """
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    by_cluster = len(names) >= FEWEST_CLUSTERS
    if not by_cluster:
        cluster_of = np.arange(values.shape[1])
    units = cluster_of.max() + 1
    random = np.random.default_rng(0)
    counts = random.multinomial(units, np.full(units, 1 / units), size=DRAWS)  # [draw, unit]
    weights = counts[:, cluster_of].astype(float)  # [draw, example]
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ np.where(defined, values, 0).T) / (weights @ defined.T)  # [draw, step]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    drawn = f"{units} clusters of probes" if by_cluster and units < values.shape[1] else f"{units} probes"
    return nan_mean(values, axis=1), low, high, f"95% bootstrap over {drawn}"


# --- panels: what both libraries draw --------------------------------------------------------------------------


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


@dataclass(frozen=True)
class HeatPanel:
    """values [row, column]; columns are snapshot steps, in order."""

    title: str
    rows: list[str]
    columns: list[str]
    values: np.ndarray


def depth_colors(count: int) -> list[str]:
    """One colour per layer, dark (first) to light (last)."""
    return sns.color_palette("viridis", count + 1).as_hex()[:count]


def measure_label(name: str) -> str:
    return f"{name} [{MEASURE[name].unit}]"


def temporal_panels(m: Measurements) -> list[LinePanel]:
    """Loss, probe loss, attention measures over heads, drift of the hidden states: 8 panels against the step."""
    return [
        _loss_panel(m),
        _probe_loss_panel(m),
        _attention_panel(m, "attn_entropy", "Attention entropy"),
        _attention_panel(m, "attn_gini", "Attention sparsity (Gini)"),
        _attention_panel(m, "attn_distance_ns", "Attention distance"),
        _attention_panel(m, "attn_sink", "Attention on the first token"),
        *_drift_panels(m),
    ]


def _loss_panel(m: Measurements) -> LinePanel:
    lines = []
    for key, label, color in (("loss", "train", GREY), ("eval_loss", "evaluation", ORANGE)):
        x, y = m.logged(key)
        if len(x):
            lines.append(Line(label, x, y, color, wide=key == "eval_loss"))
    return LinePanel("Loss", "loss [nats/token]", lines, "" if lines else "No loss has been logged yet.")


def _probe_loss_panel(m: Measurements) -> LinePanel:
    title, label = "Loss on the probes", measure_label("probe_loss")
    try:
        steps, values = m.stack("probe_loss")
    except InputError:
        return LinePanel(title, label, note="probe_loss was not measured.")
    mean, low, high, band = bootstrap_band(values, m.clusters(values.shape[1]))
    return LinePanel(title, label, [Line(f"mean, {band}", np.array(steps), mean, BLUE, low, high)])


def _attention_panel(m: Measurements, name: str, title: str) -> LinePanel:
    """Mean over all heads with a band over probes, and one thin line per layer; region Q."""
    label = measure_label(name)
    try:
        steps, values = m.stack(name)  # [step, example, region, layer, head]
    except InputError:
        return LinePanel(title, label, note=f"{name} was not measured.")
    values = m.region(values, axis=2)
    x = np.array(steps)
    mean, low, high, band = bootstrap_band(nan_mean(values, axis=(2, 3)), m.clusters(values.shape[1]))
    per_layer = nan_mean(values, axis=(1, 3))  # [step, layer]
    colors = depth_colors(per_layer.shape[1])
    lines = [Line(f"layer {i}", x, per_layer[:, i], color, wide=False) for i, color in enumerate(colors)]
    return LinePanel(title, label, [*lines, Line(f"mean of heads, {band}", x, mean, BLUE, low, high)])


def drift(m: Measurements) -> tuple[list[int], str, dict[str, np.ndarray]]:
    """How far the hidden states are from the first snapshot's: steps, pooling, {measure: [step, hidden_layer]}.

    Target pooling where it is defined. One snapshot is held at a time: they are the largest arrays of the store.
    """
    first, pooling, steps = None, "", []
    result: dict[str, list[np.ndarray]] = {"displacement": [], "cka_debiased": []}
    for step in m.steps:
        try:
            states = m.store.load(step, ["hidden_pooled"]).get(
                "hidden_pooled"
            )  # [example, pooling, hidden_layer, d_model]
        except InputError as damaged:
            warnings.warn(f"step {step} is skipped: {damaged}", stacklevel=2)
            continue
        if states is None:
            continue
        if first is None:
            poolings = m.labels("pooling")
            wanted = [name for name in ("target_mean", *POOLINGS) if name in poolings]
            pooling = next((name for name in wanted if np.isfinite(states[:, poolings.index(name)]).any()), wanted[0])
            first = states[:, poolings.index(pooling)]
        steps.append(step)
        result["displacement"].append(displacement(states[:, poolings.index(pooling)], first))
        result["cka_debiased"].append(cka_debiased(states[:, poolings.index(pooling)], first))
    if not steps:
        raise InputError(f"run {m.paths.run_name!r} has no intact snapshot of its hidden states.")
    return steps, pooling, {name: np.stack(values) for name, values in result.items()}


def _drift_panels(m: Measurements) -> list[LinePanel]:
    titles = {"displacement": "Hidden states: displacement", "cka_debiased": "Hidden states: CKA (debiased)"}
    try:
        steps, pooling, values = drift(m)
    except InputError:
        return [
            LinePanel(title, measure_label(n), note="Hidden states were not measured.") for n, title in titles.items()
        ]
    labels = m.labels("hidden_layer")
    colors = [GREY, *depth_colors(len(labels) - 1)]
    panels = []
    for name, title in titles.items():
        lines = [
            Line(labels[i], np.array(steps), values[name][:, i], colors[i], wide=False, dashed=i == 0)
            for i in range(len(labels))
        ]
        note = "" if np.isfinite(values[name]).any() else "Undefined: fewer than 4 probes have hidden states."
        panels.append(LinePanel(f"{title}, {pooling}, to step {steps[0]}", measure_label(name), lines, note))
    return panels


def matrix_panels(names: Sequence[str], steps: Sequence[int], values: np.ndarray) -> list[HeatPanel]:
    """values [step, matrix] -> one panel [layer, step] per kind of matrix, and one for what belongs to no layer."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    for i, name in enumerate(names):
        match = re.fullmatch(r"h\.(\d+)\.(.+)", name)
        kind, row = (match[2], match[1]) if match else ("outside the layers", name)
        kinds.setdefault(kind, []).append((row, i))
    outside = kinds.pop("outside the layers", None)
    if outside:
        kinds["outside the layers"] = outside
    columns = [str(step) for step in steps]
    return [
        HeatPanel(kind, [row for row, _ in rows], columns, values[:, [i for _, i in rows]].T)
        for kind, rows in kinds.items()
    ]


def weight_panels(m: Measurements) -> list[HeatPanel]:
    steps, values = m.stack("weight_change_relative")
    return matrix_panels(m.labels("matrix"), steps, values)


def gradient_panels(m: Measurements) -> tuple[LinePanel, list[HeatPanel]]:
    """The logged norm of every logged step, and the share of each matrix at the snapshots."""
    x, y = m.logged("grad_norm")
    lines = [Line("gradient norm, as logged", x, y, BLUE, wide=False)] if len(x) else []
    limit = m.info.get("arguments", {}).get("max_grad_norm")
    if lines and isinstance(limit, (int, float)) and limit > 0:
        ends = np.array([x.min(), x.max()])
        lines.append(Line(f"clipped above {limit:g}", ends, np.full(2, float(limit)), ORANGE, wide=False, dashed=True))
    finite = y[np.isfinite(y)]
    wide = len(finite) > 0 and finite.min() > 0 and finite.max() > 10 * finite.min()
    norm = LinePanel(
        "Norm of the training gradient, before clipping",
        "grad_norm [norm]",
        lines,
        "" if lines else "No gradient norm has been logged yet.",
        log_y=wide,
    )
    try:
        steps, shares = m.stack("grad_share")
    except InputError:
        return norm, []
    return norm, matrix_panels(m.labels("grad_matrix"), steps, shares)


# --- matplotlib ------------------------------------------------------------------------------------------------


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """The PNG, without a date or version in it, so that equal data give equal bytes."""
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a token of a script the font lacks becomes a box
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def temporal_png(m: Measurements) -> bytes:
    panels = temporal_panels(m)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 13), layout="constrained")
        axes = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            draw_lines(ax, panel)
        ends = [x for panel in panels for line in panel.lines for x in (line.x.min(), line.x.max())]
        if ends and min(ends) < max(ends):
            margin = 0.02 * (max(ends) - min(ends))
            for ax in axes:
                ax.set_xlim(min(ends) - margin, max(ends) + margin)
        _layer_legend(figure, panels)
        figure.suptitle(_title(m, "What changed while it learned"), fontsize=12)
        return png_bytes(figure)


def weight_png(m: Measurements) -> bytes:
    panels = weight_panels(m)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, _heat_height(panels)), layout="constrained")
        draw_heat_panels(figure, panels, measure_label("weight_change_relative"))
        figure.suptitle(_title(m, "Relative change of every weight matrix since the base model"), fontsize=12)
        return png_bytes(figure)


def gradient_png(m: Measurements) -> bytes:
    norm, shares = gradient_panels(m)
    with matplotlib.rc_context(STYLE):
        heat_height = _heat_height(shares) if shares else 0
        figure = Figure(figsize=(12, 3.6 + heat_height), layout="constrained")
        parts = figure.subfigures(2, 1, height_ratios=[3.2, heat_height]) if shares else [figure]
        draw_lines(parts[0].subplots(), norm)
        if shares:
            draw_heat_panels(parts[1], shares, measure_label("grad_share"))
            parts[1].suptitle("Share of each matrix at the snapshots (grey: no gradient yet)", fontsize=10)
        figure.suptitle(_title(m, "Gradients"), fontsize=12)
        return png_bytes(figure)


def draw_lines(ax: Any, panel: LinePanel) -> None:
    """One line panel on a matplotlib axes; thin lines are layers and stand in the figure's own legend."""
    ax.set_title(panel.title, loc="left")
    ax.set_ylabel(panel.y_label)
    ax.set_xlabel("optimizer step")
    if panel.note:
        ax.text(0.5, 0.5, textwrap.fill(panel.note, 40), ha="center", va="center", transform=ax.transAxes, color=GREY)
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
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    if not any(_is_layer(line) for line in panel.lines):
        ax.legend(fontsize=8, frameon=True, framealpha=0.85)
    if all(len(np.unique(line.x)) < 2 for line in panel.lines):
        ax.text(0.98, 0.04, "only one step so far", transform=ax.transAxes, ha="right", fontsize=8, color=GREY)


def draw_heat_panels(figure: Any, panels: list[HeatPanel], label: str) -> None:
    """Small multiples with one colour range, NaN grey. `figure` is a Figure or SubFigure."""
    columns = min(4, len(panels))
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    top = highest(panels)
    for ax, panel in zip(axes, panels, strict=False):
        ax.set_facecolor(NO_VALUE)
        sns.heatmap(
            panel.values,
            ax=ax,
            mask=~np.isfinite(panel.values),
            cmap="viridis",
            vmin=0,
            vmax=top,
            cbar=False,
            xticklabels=False,
            yticklabels=False,
        )
        ax.grid(False)
        _ticks(ax.set_xticks, panel.columns, 7)
        _ticks(ax.set_yticks, panel.rows, 12)
        ax.tick_params(axis="y", rotation=0)
        ax.set_title(panel.title, loc="left")
        ax.set_xlabel("step (snapshots, in order)")
        ax.set_ylabel("" if panel.title == "outside the layers" else "layer")
    for ax in axes[len(panels) :]:
        ax.remove()
    shown = list(axes[: len(panels)])
    figure.colorbar(shown[0].collections[0], ax=shown, label=label, shrink=0.7, pad=0.01)


def highest(panels: list[HeatPanel]) -> float:
    """The common upper end of the colour range: the largest defined value."""
    values = np.concatenate([panel.values.ravel() for panel in panels])
    values = values[np.isfinite(values)]
    return float(values.max()) if len(values) and values.max() > 0 else 1.0


def _ticks(set_ticks: Any, labels: list[str], most: int) -> None:
    """Label at most `most` cells of a heat map, evenly, the last one among them."""
    every = -(-len(labels) // most)
    shown = list(range(len(labels) - 1, -1, -every))[::-1]
    set_ticks([i + 0.5 for i in shown], [textwrap.fill(labels[i], 14) for i in shown], fontsize=7.5)


def _heat_height(panels: list[HeatPanel]) -> float:
    rows = -(-len(panels) // 4)
    return 0.9 + rows * max(2.2, 0.13 * max(len(panel.rows) for panel in panels) + 0.9)


def _is_layer(line: Line) -> bool:
    return line.label.startswith(("layer ", "embedding", "block "))


def _layer_legend(figure: Figure, panels: list[LinePanel]) -> None:
    """One legend for all panels: the mean of the heads, and at most ten layers, whose colours run with depth."""
    lines = {line.label: line for panel in panels for line in panel.lines if len(panel.lines) > 2}
    mean = [line for line in lines.values() if line.wide]
    layers = [line for line in lines.values() if not line.wide]
    blocks = [line for line in layers if not line.label.startswith("layer ")] or layers
    every = max(1, -(-len(blocks) // 10))
    chosen = [line for i, line in enumerate(blocks) if i % every == 0 or i == len(blocks) - 1]
    handles = [
        Line2D([], [], color=line.color, linewidth=2.2 if line.wide else 1.1, linestyle="--" if line.dashed else "-")
        for line in mean[:1] + chosen
    ]
    labels = [line.label for line in mean[:1]]
    for line in chosen:
        number = re.match(r"block (\d+)", line.label)  # block 1 is what layer 0 (h.0) hands on
        labels.append(f"layer {int(number[1]) - 1} / {line.label}" if number else line.label)
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _title(m: Measurements, text: str) -> str:
    title = f"{text} · run {m.paths.run_name}"
    return f"{title}\n{ONE_STEP}" if len(m.steps) < 2 else title


# --- plotly ----------------------------------------------------------------------------------------------------

# plotly's "Share chart" button would send the run's data to a server
PLOTLY_CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}


def temporal_plotly(m: Measurements) -> go.Figure:
    panels = temporal_panels(m)
    rows = (len(panels) + 1) // 2
    figure = make_subplots(
        rows, 2, subplot_titles=[p.title for p in panels], vertical_spacing=0.07, horizontal_spacing=0.1
    )
    seen: set[str] = set()
    for i, panel in enumerate(panels):
        plotly_lines(figure, panel, i // 2 + 1, i % 2 + 1, seen)
    figure.update_layout(height=300 * rows, title=_plotly_title(m, "What changed while it learned"), margin={"t": 90})
    figure.update_layout(legend={"orientation": "h", "y": -0.05, "yanchor": "top"})
    return _plain(figure)


def weight_plotly(m: Measurements) -> go.Figure:
    panels = weight_panels(m)
    figure = plotly_heat(panels, measure_label("weight_change_relative"))
    figure.update_layout(title=_plotly_title(m, "Relative change of every weight matrix since the base model"))
    return _plain(figure)


def gradient_plotly(m: Measurements) -> go.Figure:
    norm, shares = gradient_panels(m)
    figure = plotly_heat(shares, measure_label("grad_share"), above=norm)
    figure.update_layout(title=_plotly_title(m, "Gradients"), showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"})
    return _plain(figure)


def plotly_lines(figure: go.Figure, panel: LinePanel, row: int, col: int, seen: set[str]) -> None:
    """One line panel as traces; a label that the legend already has is not repeated."""
    for line in panel.lines:
        if line.low is not None:
            figure.add_trace(
                go.Scatter(
                    x=np.concatenate([line.x, line.x[::-1]]),
                    y=np.concatenate([line.high, line.low[::-1]]),
                    fill="toself",
                    mode="lines",
                    fillcolor=_transparent(line.color),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=line.label,
                    name=line.label,
                ),
                row,
                col,
            )
        figure.add_trace(
            go.Scatter(
                x=line.x,
                y=line.y,
                name=line.label,
                legendgroup=line.label,
                showlegend=line.label not in seen,
                mode="lines+markers" if len(line.x) <= 30 and len(line.x) != 2 else "lines",
                marker={"size": 5},
                line={
                    "color": line.color,
                    "width": 3 if line.wide else 1.3,
                    "dash": "dash" if line.dashed else "solid",
                },
                hovertemplate="step %{x}: %{y:.4g}<extra>" + line.label + "</extra>",
            ),
            row,
            col,
        )
        seen.add(line.label)
    figure.update_xaxes(title_text="optimizer step", row=row, col=col)
    figure.update_yaxes(title_text=panel.y_label, type="log" if panel.log_y else "linear", row=row, col=col)
    if panel.note:
        figure.add_annotation(
            text=panel.note, x=0.5, y=0.5, xref="x domain", yref="y domain", showarrow=False, row=row, col=col
        )


def plotly_heat(panels: list[HeatPanel], label: str, above: LinePanel | None = None) -> go.Figure:
    """Heat maps with one colour axis, two in a row; `above` is a line panel over the whole width."""
    columns = 2
    first = 1 if above else 0
    rows = -(-len(panels) // columns) + first
    specs: list[list[Any]] = [[{} for _ in range(columns)] for _ in range(rows)]
    if above:
        specs[0] = [{"colspan": columns}, None]
    titles = ([above.title] if above else []) + [panel.title for panel in panels]
    spacing = {"vertical_spacing": min(0.12, 0.3 / rows), "horizontal_spacing": 0.13}
    figure = make_subplots(rows, columns, specs=specs, subplot_titles=titles, **spacing)
    if above:
        plotly_lines(figure, above, 1, 1, set())
    for i, panel in enumerate(panels):
        row, col = i // columns + 1 + first, i % columns + 1
        figure.add_trace(grey_where_undefined(panel.values, panel.columns, panel.rows), row, col)
        figure.add_trace(
            go.Heatmap(
                z=panel.values,
                x=panel.columns,
                y=panel.rows,
                coloraxis="coloraxis",
                hovertemplate=f"{panel.title}<br>row %{{y}}, step %{{x}}: %{{z:.4g}}<extra></extra>",
            ),
            row,
            col,
        )
        figure.update_xaxes(type="category", title_text="step (snapshots, in order)", row=row, col=col)
        figure.update_yaxes(type="category", autorange="reversed", title_text="layer", row=row, col=col)
        if panel.title == "outside the layers":
            figure.update_yaxes(title_text="", row=row, col=col)
    if panels:
        figure.update_layout(
            coloraxis={
                "colorscale": "Viridis",
                "cmin": 0,
                "cmax": highest(panels),
                "colorbar": {"title": {"text": label, "side": "right"}},
            }
        )
    figure.update_layout(height=310 * rows + 100, margin={"t": 100})
    return figure


def grey_where_undefined(values: np.ndarray, columns: list[str], rows: list[str]) -> go.Heatmap:
    """A grey layer to lie under a heat map; plotly leaves NaN transparent."""
    return go.Heatmap(
        z=np.where(np.isfinite(values), np.nan, 0.0),
        x=columns,
        y=rows,
        colorscale=[[0, NO_VALUE], [1, NO_VALUE]],
        showscale=False,
        hovertemplate="step %{x}: no value<extra></extra>",
    )


def _plotly_title(m: Measurements, text: str) -> dict[str, Any]:
    subtitle = ONE_STEP if len(m.steps) < 2 else ""
    return {"text": f"{text} · run {m.paths.run_name}", "subtitle": {"text": subtitle}}


def _transparent(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"


def _plain(figure: go.Figure) -> go.Figure:
    """The same look for every plotly figure; small titles, so that panels stay legible on a phone."""
    figure.update_layout(template="plotly_white", font={"size": 12})
    figure.update_annotations(font_size=13)
    return figure


def figure_fragment(figure: go.Figure, name: str) -> str:
    """The figure's <div> and its data, for a page that holds plotly.js already."""
    return figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=PLOTLY_CONFIG, auto_play=False)


def figure_page(figure: go.Figure, name: str) -> bytes:
    """A self-contained page with one figure; the fixed id makes equal data give equal bytes."""
    html = figure.to_html(full_html=True, include_plotlyjs=True, div_id=name, config=PLOTLY_CONFIG, auto_play=False)
    return html.replace(
        "<head>", f'<head><title>{name.replace("_", " ")}</title><meta name="viewport" content="width=device-width">', 1
    ).encode()
