"""The page that compares all runs of a folder, task by task."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gpt2_interp.analysis.claims import current_claims
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.other_runs import undeciding
from gpt2_interp.analysis.outputs import SYSTEMS, is_number, read_scores
from gpt2_interp.errors import InputError
from gpt2_interp.figures.draw_png import png_bytes
from gpt2_interp.figures.numbers import Cell, number
from gpt2_interp.figures.panels import BLUE, CATEGORIES, GREY, ORANGE, STYLE, WIDTH
from gpt2_interp.files import write_atomically
from gpt2_interp.report.claims_tables import counted_heads
from gpt2_interp.report.page import template
from gpt2_interp.report.score_tables import COMPARED, SCORE_NAMES, TUNINGS, overlap, score_cell, setting_text
from gpt2_interp.run_paths import RunPaths, measured_runs


def write_overview(root: Path) -> Path | None:
    """visualizations/interpretability_report.html over all measured runs; None if there is no run at all."""
    names = measured_runs(root)
    if not names:
        return None
    runs, unreadable = [], []
    for name in names:
        try:
            runs.append(Measurements(RunPaths(name, root)))
        except (InputError, ValueError, KeyError) as problem:
            unreadable.append((name, str(problem)))
    runs = [m for m in runs if not m.info.get("null_training_of")]  # shown by the run that they belong to
    overview = {
        "tasks": [
            {"name": str(task), **_compare([m for m in runs if m.info.get("task") == task])}
            for task in dict.fromkeys(m.info.get("task") for m in runs)
        ],
        "unreadable": unreadable,
    }
    path = RunPaths(names[0], root).overview_report
    page = template().render(overview=overview, run=None, title="All runs", plotly_js=None)
    write_atomically(path, page.encode())
    return path


def _compare(runs: list[Measurements]) -> dict[str, Any]:
    """Runs of one task: table, pictures, and full fine-tuning against LoRA."""
    scores = {m.paths.run_name: read_scores(m.paths)[0] for m in runs}
    return {
        "rows": [_overview_row(m, scores[m.paths.run_name]) for m in runs],
        "loss_picture": _uri(loss_overlay(runs)),
        "score_picture": _uri(score_dots(scores)),
        "pairs": [
            _tuning_pair(full, lora, scores)
            for full in runs
            for lora in runs
            if full.info.get("tuning") == "full" and lora.info.get("tuning") == "lora" and _same_base(full, lora)
        ],
    }


def _overview_row(m: Measurements, scores: Mapping[str, Any]) -> dict[str, Any]:
    _, losses = m.logged("eval_loss")
    model = m.info.get("model", {})
    finite = losses[np.isfinite(losses)]
    base, tuned = (scores.get(key) if isinstance(scores.get(key), dict) else {} for key in ("base", "tuned"))
    score = "rouge1" if is_number(tuned.get("rouge1")) else "perplexity"
    exists = (m.paths.visualizations / "interpretability_report.html").is_file()
    return {
        "name": m.paths.run_name,
        "link": f"{m.paths.run_name}/interpretability_report.html" if exists else None,
        "tuning": TUNINGS.get(m.info.get("tuning"), str(m.info.get("tuning"))),
        "trained": f"{model['trainable_parameters']:,}" if "trainable_parameters" in model else "?",
        "last_step": m.log[-1]["step"] if m.log else m.steps[-1],
        "snapshots": len(m.steps),
        "eval_loss": number(finite.min()) if len(finite) else "–",
        "score": SCORE_NAMES[score] if tuned else "",
        "base": score_cell(base, score),
        "tuned": score_cell(tuned, score),
        "heads": counted_heads(current_claims(m)),
        "context_gain": _last(m, "context_gain", "{:.2f}".format),
        "twins": _last(m, "twin_right", "{:.0%}".format),
    }


def _last(m: Measurements, name: str, write: Callable[[float], str]) -> Cell:
    """The mean over probes at the last snapshot with its 95% band; a dash where it was not measured."""
    try:
        _, mean, low, high, _ = m.mean_with_band(name)
    except InputError:
        return Cell()
    return Cell(float(mean[-1]), float(low[-1]), float(high[-1]), write)


def _same_base(a: Measurements, b: Measurements) -> bool:
    keys = ("n_layer", "n_head", "n_embd", "vocab_size")
    models = [m.info.get("model", {}) for m in (a, b)]
    return all(models[0].get(key) == models[1].get(key) for key in keys)


def _tuning_pair(full: Measurements, lora: Measurements, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Two runs side by side: scores with intervals, and the settings in which they differ."""
    names = full.paths.run_name, lora.paths.run_name
    tuned = [scores[name].get("tuned") if isinstance(scores[name].get("tuned"), dict) else {} for name in names]
    rows = [
        (
            SCORE_NAMES[score],
            score_cell(tuned[0], score),
            score_cell(tuned[1], score),
            overlap(*tuned, score).removeprefix("; "),
        )
        for score in COMPARED
        if is_number(tuned[0].get(score)) and is_number(tuned[1].get(score))
    ]
    arguments = [m.info.get("arguments", {}) for m in (full, lora)]
    hidden = undeciding(full.info, lora.info, kinds=["nothing"])  # not how a run was trained
    keys = [key for key in dict.fromkeys((*arguments[0], *arguments[1])) if key not in hidden]
    differing = [
        (key, setting_text(arguments[0].get(key, "–")), setting_text(arguments[1].get(key, "–")))
        for key in keys
        if arguments[0].get(key) != arguments[1].get(key)
    ]
    counts = [m.info.get("model", {}).get("trainable_parameters") for m in (full, lora)]
    rows.insert(0, ("trained parameters", *(f"{count:,}" if count is not None else "?" for count in counts), ""))
    return {"full": names[0], "lora": names[1], "rows": rows, "differing": differing}


def loss_overlay(runs: Iterable[Measurements]) -> bytes | None:
    """Evaluation loss of several runs over the step; None if none was logged."""
    curves = [(m, *m.logged("eval_loss")) for m in runs]
    curves = [curve for curve in curves if len(curve[1])]
    if not curves:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3), layout="constrained")
        ax = figure.subplots()
        for i, (m, x, y) in enumerate(curves):
            style = "--" if m.info.get("tuning") == "lora" else "-"
            ax.plot(
                x,
                y,
                style,
                marker="os^Dvx"[i // len(CATEGORIES) % 6],
                markersize=3,
                color=CATEGORIES[i % len(CATEGORIES)],
                label=f"{m.paths.run_name} ({m.info.get('tuning')})",
            )
        ax.set(xlabel="optimizer step", ylabel="evaluation loss [nats/token]")
        ax.legend(ncols=-(-len(curves) // 12))
        return png_bytes(figure)


def score_dots(scores: Mapping[str, Mapping[str, Any]]) -> bytes | None:
    """The headline score of base and fine-tuned model of each run, with 95% intervals; None if nothing is scored."""
    scored = [(name, entry) for name, entry in scores.items() if isinstance(entry.get("tuned"), dict)]
    score = "rouge1" if any(is_number(entry["tuned"].get("rouge1")) for _, entry in scored) else "perplexity"
    scored = [(name, entry) for name, entry in scored if is_number(entry["tuned"].get(score))]
    if not scored:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1 + 0.28 * len(scored)), layout="constrained")
        ax = figure.subplots()
        kinds = (("base", GREY, "o"), ("lead3", ORANGE, "D"), ("tuned", BLUE, "o"))
        for key, color, marker in kinds:
            points = [(row, entry[key]) for row, (_, entry) in enumerate(scored) if isinstance(entry.get(key), dict)]
            points = [(row, entry) for row, entry in points if is_number(entry.get(score))]
            for row, entry in points:
                low, high = entry.get(f"{score}_low"), entry.get(f"{score}_high")
                if is_number(low) and is_number(high):
                    ax.plot([low, high], [row, row], color=color, linewidth=2, alpha=0.6)
            if points:
                ax.plot(
                    [e[score] for _, e in points],
                    [r for r, _ in points],
                    marker,
                    color=color,
                    label=SYSTEMS[key],
                    linestyle="",
                )
        ax.set(
            yticks=range(len(scored)),
            yticklabels=[name for name, _ in scored],
            ylim=(len(scored) - 0.5, -0.5),
            xlabel=f"{SCORE_NAMES[score]}, lines are 95% intervals",
        )
        if score == "perplexity":
            ax.set_xscale("log")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
        return png_bytes(figure)


def _uri(png: bytes | None) -> str | None:
    return None if png is None else f"data:image/png;base64,{base64.b64encode(png).decode()}"
