"""The HTML reports: one self-contained page per run, and one that compares all runs.

Stages write numbers and pictures; this module only reads them. Whatever is missing (training may still be going on)
becomes a sentence. What a definition says comes from the measure table. Imports no torch.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs

from gpt2_interp.animation import head_plotly, latent_plotly
from gpt2_interp.errors import InputError
from gpt2_interp.figures import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    Measurements,
    figure_fragment,
    gradient_plotly,
    png_bytes,
    temporal_plotly,
    weight_plotly,
)
from gpt2_interp.projection import load_projection
from gpt2_interp.run_paths import RunPaths, measured_runs
from gpt2_interp.snapshots import MEASURE, Measure, write_atomically

LARGEST_REPORT = 15_000_000  # bytes
SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum", "fact_recall", "loss", "perplexity", "perplexity_shuffled_prompt")
SCORE_NAMES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "fact_recall": "facts stated (%)",
    "loss": "loss (nats/token)",
    "perplexity": "perplexity",
    "perplexity_shuffled_prompt": "perplexity, shuffled prompt",
}
SYSTEMS = {
    "base": "base model",
    "tuned": "fine-tuned",
    "lead3": "lead-3 (first three sentences)",
    "tuned_shuffled_source": "fine-tuned, another row's article",
}
TUNINGS = {"full": "all weights", "lora": "LoRA"}
SAMPLES_SHOWN = 5
NOT_TRAINING = (
    "run_name",
    "output_dir",
    "logging_dir",
    "overwrite",
    "resume",
)  # say nothing about how a run was trained


@dataclass(frozen=True)
class Chapter:
    """One figure of the report: its picture on disk, the interactive version, and how to read it."""

    name: str
    heading: str
    suffix: str
    measures: tuple[str, ...]
    read: str
    caution: str
    plotly: Callable[[Measurements], go.Figure] | None = None


def _latent_figure(m: Measurements) -> go.Figure:
    projection = load_projection(m.paths.latent / "projection.safetensors")
    n_probe = projection.coordinates.shape[1]
    return latent_plotly(projection, m.probe_ids(n_probe), m.clusters(n_probe), m.paths.run_name)


CHAPTERS = (
    Chapter(
        "temporal_metrics_evolution",
        "What changed, and when",
        ".png",
        ("probe_loss", "attn_entropy", "attn_gini", "attn_distance_ns", "attn_sink", "displacement", "cka_debiased"),
        "Each panel has the optimizer step on its horizontal axis. Thick blue lines are means, their bands 95% "
        "bootstrap intervals over the probes; thin lines are single layers, from dark (first) to light (last). "
        "Attention is measured where the model predicts the target.",
        "A band is the uncertainty of a level, not of the change since step 0: changes are paired by probe and can "
        "be clearer than the bands suggest. Entropy and Gini are nearly one measure. One run says nothing about "
        "another seed.",
        temporal_plotly,
    ),
    Chapter(
        "weight_changes_evolution",
        "Which weights moved",
        ".png",
        ("weight_change_relative",),
        "One panel per kind of matrix, layers from top to bottom, snapshots from left to right. All panels share one "
        "colour scale. c_attn is split into its query, key and value parts.",
        "A large change is not an important one: it depends on the matrix's size, its learning rate and its "
        "gradient's noise. With LoRA, matrices without an adapter stay at exactly 0.",
        weight_plotly,
    ),
    Chapter(
        "gradient_norm_evolution",
        "Gradients",
        ".png",
        ("grad_norm_total", "grad_share"),
        "Above, the norm at every logged step; below, how it divides among the matrices at each snapshot.",
        "Each value comes from one batch. Grey cells have no gradient: step 0 is before training, and what LoRA "
        "freezes has none.",
        gradient_plotly,
    ),
    Chapter(
        "attention_head_evolution",
        "Attention heads",
        ".gif",
        ("attn_entropy",),
        "Left, each head's entropy; right, its change since the first snapshot: blue heads became more focused, red "
        "ones more spread out. The colours mean the same in every frame.",
        "No interval is drawn here, and a changed head is not a head that matters: that takes an ablation.",
        head_plotly,
    ),
    Chapter(
        "attention_weights_evolution",
        "Where the most changed heads look",
        ".gif",
        ("attn_pattern",),
        "Full patterns of one probe. Rows are queries, columns are keys; the thin lines divide source, template and "
        "target; grey cells are later tokens, which a query can't see. The heads shown are those whose entropy, "
        "averaged over all probes, changed most.",
        "One text is an illustration, not evidence. Attention shows where a head reads, not what it does with it.",
    ),
    Chapter(
        "neuron_activations_evolution",
        "Neurons",
        ".gif",
        ("neuron_mean", "neuron_sd"),
        "For each layer the MLP neurons whose mean activation changed most, in units of their spread at the first "
        "snapshot: z = (mean_t - mean_0) / max(sd_0, the layer's 5th percentile of sd_0). Order and colours are the "
        "same in every frame.",
        "The neurons were chosen on the same probes that are shown, so their changes look larger than they are; and "
        "among thousands some always change.",
    ),
    Chapter(
        "latent_space_3d_rotation",
        "The latent space",
        ".gif",
        ("hidden_pooled",),
        "Each point is a probe; colours are clusters of probes. All steps were projected together into one space, so "
        "that movement is movement of the probe. The line under the title says how many neighbourhoods survive the "
        "projection.",
        "UMAP keeps neighbourhoods, not distances: the size of a cluster and the gap between two of them mean little. "
        "Displacement and CKA above are measured in the full space.",
        _latent_figure,
    ),
)


# --- one run ---------------------------------------------------------------------------------------------------


def write_run_report(m: Measurements) -> Path:
    """visualizations/<run>/interpretability_report.html from whatever is there."""
    path = m.paths.visualizations / "interpretability_report.html"
    scores, score_note = read_scores(m.paths)
    page = _template().render(
        overview=None,
        run=m.paths.run_name,
        title=f"Interpretability report: {m.paths.run_name}",
        plotly_js=Markup(get_plotlyjs()),
        summary=summary(m, scores),
        scores=score_table(scores),
        score_note=score_note,
        score_sentences=score_sentences(scores),
        score_notes=_notes(scores),
        probe_notes=_notes(m.probe_set),
        predictions=_jsonl(m.paths.model_outputs / "predictions.jsonl", SAMPLES_SHOWN),
        samples=_spread_samples(_jsonl(m.paths.model_outputs / "samples.jsonl")),
        settings=settings(m.info),
        chapters=_chapters(m),
        warning=_one_step(m),
    )
    write_atomically(path, page.encode())
    return path


FOLDED_AWAY = ("sha256", "counts", "samples")  # of a part of the data: among the settings


def summary(m: Measurements, scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run in a few lines: (name, value)."""
    model, info = m.info.get("model", {}), m.info
    total, trainable = model.get("parameters"), model.get("trainable_parameters")
    rows = [("task", info.get("task")), ("tuning", TUNINGS.get(info.get("tuning"), info.get("tuning")))]
    if total and trainable is not None:
        share = plain(round(100 * trainable / total, 2))
        rows.append(("parameters", f"{total:,}, of which {trainable:,} trained ({share}%)"))
    shape = [f"{key} {model[key]}" for key in ("n_layer", "n_head", "n_embd", "n_positions") if key in model]
    rows.append(("shape", ", ".join(shape)))
    for part, entry in info.get("data", {}).items():
        rows.append((f"data: {part}", plain({k: v for k, v in entry.items() if k not in FOLDED_AWAY})))
    examples, patterns = (len(m.probe_set.get(kind, [])) for kind in ("example", "pattern"))
    rows.append(("probes", f"{examples} fixed examples, {patterns} with full patterns"))
    rows.append(("snapshots", f"{len(m.steps)}, at steps {_list(m.steps)}"))
    rows += [("device", info.get("device")), ("started", info.get("created")), ("git commit", info.get("git_commit"))]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def settings(info: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value) for the tables that are folded away."""
    groups = [
        ("Arguments", info.get("arguments")),
        ("Model", info.get("model")),
        ("Data", info.get("data")),
        ("Versions", info.get("versions")),
    ]
    return [
        (name, [(str(k), plain(v)) for k, v in group.items()]) for name, group in groups if isinstance(group, Mapping)
    ]


def _chapters(m: Measurements) -> list[dict[str, Any]]:
    left = LARGEST_REPORT - len(get_plotlyjs()) - 500_000  # half a megabyte for text and tables
    chapters = []
    for chapter in CHAPTERS:
        picture, picture_note, left = _picture(m.paths.visualizations / f"{chapter.name}{chapter.suffix}", left)
        interactive, interactive_note = None, ""
        if chapter.plotly:
            try:
                interactive = figure_fragment(chapter.plotly(m), f"figure-{chapter.name}")
            except InputError as missing:
                interactive_note = str(missing)
        if interactive and len(interactive) > left:
            interactive, interactive_note = (
                None,
                "The interactive version is too large for this page: open its own file.",
            )
        left -= len(interactive or "")
        chapters.append(
            {
                "chapter": chapter,
                "measures": [_measure(MEASURE[name]) for name in chapter.measures],
                "picture": picture,
                "interactive": Markup(interactive)
                if interactive
                else None,  # plotly writes < and / of its data as \\u003c, \\u002f
                "missing": [note for note in dict.fromkeys((picture_note, interactive_note)) if note],
            }
        )
    return chapters


def _picture(path: Path, left: int) -> tuple[str | None, str, int]:
    """(data URI or None, why not, bytes left)."""
    if not path.is_file():
        script = "analyze_latent_space.py" if path.stem.startswith("latent") else "visualize_metrics.py"
        return None, f"{path.name} has not been drawn yet: run {script} --run_name {path.parent.name}.", left
    data = base64.b64encode(path.read_bytes()).decode()
    if len(data) > left:
        return None, f"{path.name} is too large for this page: open the file itself.", left
    return f"data:image/{path.suffix[1:]};base64,{data}", "", left - len(data)


def _measure(measure: Measure) -> dict[str, str]:
    return {key: getattr(measure, key) for key in ("name", "unit", "meaning", "formula", "source", "caution")}


def _one_step(m: Measurements) -> str:
    return "" if len(m.steps) > 1 else f"There is only one snapshot (step {m.steps[0]}): nothing can have changed yet."


# --- scores and samples ------------------------------------------------------------------------------------------


def read_scores(paths: RunPaths) -> tuple[dict[str, Any], str]:
    """metrics.json as far as it is understood, and a sentence if there is nothing."""
    path = paths.model_outputs / "metrics.json"
    if not path.is_file():
        return {}, "No scores yet: model_outputs/<run>/metrics.json is written when training ends."
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}, f"{path.name} is not readable JSON."
    if not isinstance(metrics, dict) or not any(isinstance(metrics.get(system), dict) for system in SYSTEMS):
        return {}, f"{path.name} holds no scores that this report knows."
    return metrics, ""


def score_table(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """{"columns": names, "rows": [(system, [text per column])]}; None without scores."""
    systems = [(key, metrics[key]) for key in SYSTEMS if isinstance(metrics.get(key), dict)]
    names = SCORE_NAMES | {score: f"perplexity, {source}" for score, source in _source_scores(metrics).items()}
    columns = [score for score in names if any(_is_number(entry.get(score)) for _, entry in systems)]
    if not columns:
        return None
    rows = [(SYSTEMS[key], [*(interval(entry, c) for c in columns), str(entry.get("n", ""))]) for key, entry in systems]
    return {"columns": [*(names[column] for column in columns), "rows scored"], "rows": rows}


def _source_scores(metrics: Mapping[str, Any]) -> dict[str, str]:
    """{"perplexity_wikitext": "wikitext", ...}: the sources of a mixture that the test rows come from."""
    test = metrics.get("test")
    counts = test.get("counts") if isinstance(test, Mapping) else None
    return {f"perplexity_{source}": source for source in counts} if isinstance(counts, Mapping) else {}


def interval(entry: Mapping[str, Any], score: str) -> str:
    """ "40.1 (38.0 to 42.2)", or without bounds where there are none."""
    if not _is_number(entry.get(score)):
        return "–"
    write = "{:.1f}".format if score.startswith(("rouge", "fact")) else number
    low, high = entry.get(f"{score}_low"), entry.get(f"{score}_high")
    bounds = f" ({write(low)} to {write(high)})" if _is_number(low) and _is_number(high) else ""
    return write(entry[score]) + bounds


def score_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """What may be said about fine-tuned against base: the headline score and whether the intervals overlap."""
    base, tuned = metrics.get("base"), metrics.get("tuned")
    if not isinstance(base, dict) or not isinstance(tuned, dict):
        return []
    sentences = []
    for score in ("rouge1", "fact_recall", "perplexity"):
        if _is_number(base.get(score)) and _is_number(tuned.get(score)):
            name = SCORE_NAMES[score][0].upper() + SCORE_NAMES[score][1:]
            change = f"{name}: base {interval(base, score)}, fine-tuned {interval(tuned, score)}"
            sentences.append(change + overlap(base, tuned, score) + ".")
    return sentences


def overlap(a: Mapping[str, Any], b: Mapping[str, Any], score: str) -> str:
    """ "; the 95% intervals overlap", or do not; nothing where an interval is missing."""
    bounds = [entry.get(f"{score}_{end}") for entry in (a, b) for end in ("low", "high")]
    if not all(_is_number(bound) for bound in bounds):
        return ""
    apart = bounds[1] < bounds[2] or bounds[3] < bounds[0]
    return f"; the 95% intervals {'do not overlap' if apart else 'overlap'}"


def _notes(record: Mapping[str, Any]) -> list[str]:
    notes = record.get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _jsonl(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The first lines that are whole JSON objects; a line that is being written is left out."""
    if not path.is_file():
        return []
    rows = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
            if most is not None and len(rows) == most:
                break
    return rows


def _spread_samples(rows: list[dict[str, Any]], most_steps: int = 4, most_ids: int = 2) -> list[dict[str, Any]]:
    """Of the texts written during training: two prompts, each at up to four steps from first to last."""
    shown = []
    for sample_id in list(dict.fromkeys(str(row.get("id")) for row in rows))[:most_ids]:
        texts = [row for row in rows if str(row.get("id")) == sample_id]
        texts.sort(key=lambda row: row["step"] if _is_number(row.get("step")) else -1)
        positions = sorted({round(i * (len(texts) - 1) / max(1, most_steps - 1)) for i in range(most_steps)})
        first = texts[0]
        shown.append(
            {
                "id": sample_id,
                "prompt": str(first.get("prompt", "")),
                "reference": str(first.get("reference", "")),
                "texts": [
                    (texts[i].get("step", "?"), str(texts[i].get("generated", ""))) for i in positions if i < len(texts)
                ],
            }
        )
    return shown


# --- all runs ----------------------------------------------------------------------------------------------------


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
    overview = {
        "tasks": [
            {"name": str(task), **_compare([m for m in runs if m.info.get("task") == task])}
            for task in dict.fromkeys(m.info.get("task") for m in runs)
        ],
        "unreadable": unreadable,
    }
    path = RunPaths(names[0], root).overview_report
    page = _template().render(overview=overview, run=None, title="All runs", plotly_js=None)
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
    score = "rouge1" if _is_number(tuned.get("rouge1")) else "perplexity"
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
        "base": interval(base, score),
        "tuned": interval(tuned, score),
    }


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
            interval(tuned[0], score),
            interval(tuned[1], score),
            overlap(*tuned, score).removeprefix("; "),
        )
        for score in SCORES
        if _is_number(tuned[0].get(score)) and _is_number(tuned[1].get(score))
    ]
    arguments = [m.info.get("arguments", {}) for m in (full, lora)]
    keys = [key for key in dict.fromkeys((*arguments[0], *arguments[1])) if key not in NOT_TRAINING]
    differing = [
        (key, plain(arguments[0].get(key, "–")), plain(arguments[1].get(key, "–")))
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
        figure = Figure(figsize=(9, 4), layout="constrained")
        ax = figure.subplots()
        for i, (m, x, y) in enumerate(curves):
            style = "--" if m.info.get("tuning") == "lora" else "-"
            ax.plot(
                x,
                y,
                style,
                marker="o",
                markersize=3.5,
                color=f"C{i % 10}",
                label=f"{m.paths.run_name} ({m.info.get('tuning')})",
            )
        ax.set(xlabel="optimizer step", ylabel="evaluation loss [nats/token]")
        ax.legend(fontsize=8, ncols=-(-len(curves) // 12))
        return png_bytes(figure)


def score_dots(scores: Mapping[str, Mapping[str, Any]]) -> bytes | None:
    """The headline score of base and fine-tuned model of each run, with 95% intervals; None if nothing is scored."""
    scored = [(name, entry) for name, entry in scores.items() if isinstance(entry.get("tuned"), dict)]
    score = "rouge1" if any(_is_number(entry["tuned"].get("rouge1")) for _, entry in scored) else "perplexity"
    scored = [(name, entry) for name, entry in scored if _is_number(entry["tuned"].get(score))]
    if not scored:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.2 + 0.45 * len(scored)), layout="constrained")
        ax = figure.subplots()
        kinds = (("base", GREY, "o"), ("lead3", ORANGE, "D"), ("tuned", BLUE, "o"))
        for key, color, marker in kinds:
            points = [(row, entry[key]) for row, (_, entry) in enumerate(scored) if isinstance(entry.get(key), dict)]
            points = [(row, entry) for row, entry in points if _is_number(entry.get(score))]
            for row, entry in points:
                low, high = entry.get(f"{score}_low"), entry.get(f"{score}_high")
                if _is_number(low) and _is_number(high):
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
        ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
        return png_bytes(figure)


# --- small things ------------------------------------------------------------------------------------------------


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report_template.html")


def _uri(png: bytes | None) -> str | None:
    return None if png is None else f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: float) -> str:
    """Four significant digits, no exponent for ordinary sizes."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def plain(value: Any) -> str:
    """A nested setting as one readable line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _list(steps: list[int], most: int = 12) -> str:
    shown = [str(step) for step in steps] if len(steps) <= most else [*map(str, steps[: most - 2]), "…", str(steps[-1])]
    return ", ".join(shown)
