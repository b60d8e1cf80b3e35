"""Attention patterns of the heads that changed most, over the steps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.draw_axes import ROW
from gpt2_interp.figures.gif import Canvas, Film, draw_film, only_one, step_durations
from gpt2_interp.figures.heads import HEADS_SHOWN, head_evolution
from gpt2_interp.figures.panels import SMALLEST_TEXT, STYLE, WIDTH, color_map, measure_label
from gpt2_interp.snapshots.patterns import unfold_patterns


@dataclass(frozen=True)
class PatternEvolution:
    """Attention patterns [step, head shown, query, key] of one probe; heads: (layer, head), with their changes in
    entropy; gold: (slot, keys of the value in the source, queries that predict it) of each known answer."""

    steps: list[int]
    probe_id: str
    tokens: list[str]
    boundaries: tuple[int, int]  # where the template and the target begin
    heads: list[tuple[int, int]]
    changes: list[float]
    patterns: np.ndarray
    gold: list[tuple[str, list[int], list[int]]]


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
    gold = [(fact["slot"], fact["value"], fact["queries"]) for fact in probe.get("gold", ())]
    return PatternEvolution(
        steps, probe["id"], [readable(t) for t in probe["tokens"]], boundaries, heads, changes, shown, gold
    )


def readable(token: str) -> str:
    """A token for an axis: GPT-2's Ġ is a space, line breaks get a sign, long ones are cut."""
    text = token.replace("Ġ", " ").replace("Ċ", "\n").replace("\n", "⏎")
    text = text.replace(" ", "·") if not text.strip() else text.strip()
    return text if len(text) <= 12 else text[:11] + "…"


@draw_film.register
def _(data: PatternEvolution, m: Measurements) -> Film:
    n_token = len(data.tokens)
    with matplotlib.rc_context(STYLE):
        columns = min(2, len(data.heads))
        side = (WIDTH - 1.7) / columns
        canvas = Canvas(-(-len(data.heads) // columns) * (side + 0.25) + 1.3)
        axes = canvas.figure.subplots(-(-len(data.heads) // columns), columns, squeeze=False, sharex=True, sharey=True)
        images = []
        for ax, (layer, head), change, first in zip(
            axes.ravel(), data.heads, data.changes, data.patterns[0], strict=False
        ):
            image = ax.imshow(first, cmap=color_map("magma"), norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
            images.append(image)
            ax.set_title(f"layer {layer}, head {head}: {change:+.2f} bits")
            ax.grid(False)
            for boundary in data.boundaries:
                if 0 < boundary < n_token:
                    ax.axhline(boundary - 0.5, color="#7fd4ff", linewidth=0.7)
                    ax.axvline(boundary - 0.5, color="#7fd4ff", linewidth=0.7)
            mark_answers(ax, data.gold)
        for ax in axes.ravel()[len(data.heads) :]:
            ax.remove()
        token_ticks(axes, data.tokens, side, {at for _, keys, queries in data.gold for at in (*keys, *queries)})
        canvas.figure.colorbar(
            images[0],
            ax=axes,
            shrink=0.6,
            ticks=[0, 0.05, 0.25, 0.5, 1],
            label=f"{measure_label('attn_pattern')}, square-root scale",
        )
        title = canvas.figure.suptitle("\n")

        def show(i: int) -> None:
            for image, pattern in zip(images, data.patterns[i], strict=True):
                image.set_data(pattern)
            title.set_text(
                f"{m.paths.run_name} · step {data.steps[i]} · probe {data.probe_id}{only_one(data.steps)}\n"
                f"the heads whose entropy changed most by step {data.steps[-1]} (mean over all probes)"
            )

        return Film(canvas, show, step_durations(len(data.steps)))


ANSWER = "#35e07a"  # green on magma's black, violet, orange and yellow alike


def mark_answers(ax, gold: list[tuple[str, list[int], list[int]]]) -> None:
    """Frame where each value is predicted (queries) and where the source states it (keys), one frame a mention."""
    for _, keys, queries in gold:
        for run in np.split(np.array(keys), np.flatnonzero(np.diff(keys) > 1) + 1):
            width, height = run[-1] - run[0] + 1, queries[-1] - queries[0] + 1
            corner = (run[0] - 0.5, queries[0] - 0.5)
            ax.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=ANSWER, linewidth=0.8))


def token_ticks(axes: np.ndarray, tokens: list[str], side: float, answers: Collection[int] = ()) -> None:
    """Token labels at the outer edges, as many as are legible; those of `answers` first."""
    every = max(1, -(-len(tokens) // int(side / ROW)))
    shown: list[int] = []  # of the tokens of an answer, which stand together, the first
    for at in (*sorted(answers), *range(0, len(tokens), every)):
        if all(abs(at - other) >= every for other in shown):
            shown.append(at)
    shown.sort()
    for ax in axes.ravel():
        if ax.figure is None:  # removed
            continue
        ax.set_xticks(shown, [tokens[i] for i in shown], rotation=90, fontsize=SMALLEST_TEXT)
        ax.set_yticks(shown, [tokens[i] for i in shown], fontsize=SMALLEST_TEXT)
        ax.tick_params(length=0, pad=1)
        for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
            for label, i in zip(labels, shown, strict=False):  # inner panels have no labels
                label.set_color("#0b7a3b" if i in answers else "black")
    for ax in axes[-1]:
        ax.set_xlabel("key (attended to)")
    for ax in axes[:, 0]:
        ax.set_ylabel("query")
