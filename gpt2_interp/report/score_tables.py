"""Scores and texts that a run wrote under model_outputs/, as tables for the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpt2_interp.analysis.outputs import SYSTEMS, is_number
from gpt2_interp.figures.numbers import Cell, number

SCORE_NAMES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "fact_recall": "facts stated (%)",
    "fact_precision": "values right (%)",
    "rows_right": "rows all right (%)",
    "fact_recall_lenient": "facts in any form (%)",
    "source_precision": "in the source (%)",
    "loss": "loss (nats/token)",
    "perplexity": "perplexity",
    "perplexity_shuffled_prompt": "perplexity, shuffled prompt",
}
COMPARED = tuple(SCORE_NAMES)  # of two runs
QUALITY_OF = {"base": "base model", "tuned": "fine-tuned", "reference": "references"}
QUALITY = {  # what the table says about the texts: {score: (name, how to read it)}
    "words": ("words a text", "mean"),
    "finished": ("ended by themselves", "share; the others were cut at the longest length allowed"),
    "judged_by_base": ("perplexity under the base", "one judge for all; a repeated phrase is likely, too"),
    "judged_by_tuned": (
        "perplexity under the fine-tuned model",
        "of its own texts it falls when they repeat",
    ),
    "repetition_4": ("repetition inside a text", "share of 4-grams that the text had before (rep-4)"),
    "self_bleu": ("sameness of the texts", "self-BLEU, 0 to 1: each text against all others"),
    "distinct_1_equal": ("different words", "distinct-1 at equal size"),
    "distinct_2_equal": ("different bigrams", "distinct-2 at equal size"),
    "distinct_3_equal": ("different trigrams", "distinct-3 at equal size"),
    "distinct_1": ("distinct-1", "of all words written: falls with their number"),
    "distinct_2": ("distinct-2", "likewise"),
    "distinct_3": ("distinct-3", "likewise"),
}
QUALITY_FORMATS = {"words": "{:.1f}".format, "judged_by_base": number, "judged_by_tuned": number}
TUNINGS = {"full": "all weights", "lora": "LoRA"}


def score_table(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return {"columns": names, "rows": [(system, [Cell per column])]}; None without scores."""
    systems = [(key, metrics[key]) for key in SYSTEMS if isinstance(metrics.get(key), dict)]
    if isinstance(metrics.get("reference"), dict) and is_number(metrics["reference"].get("source_precision")):
        systems.append(("reference", metrics["reference"]))
    names = SCORE_NAMES | {score: f"perplexity, {source}" for score, source in _source_scores(metrics).items()}
    columns = [score for score in names if any(is_number(entry.get(score)) for _, entry in systems)]
    if "fact_recall" in columns:
        columns = [score for score in columns if score != "fact_recall_lenient"]  # for runs that have nothing better
    if not columns:
        return None
    rows = [
        (SYSTEMS.get(key, "references"), [*(score_cell(entry, c) for c in columns), Cell(entry.get("n"), write=str)])
        for key, entry in systems
    ]
    return {"columns": [*(names[column] for column in columns), "rows scored"], "rows": rows}


def quality_table(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return {"columns": whose texts, "rows": [(name, how to read it, [Cell per column])], "texts": how many of each};
    None where they were too few, or the run is of a version without these numbers."""
    sets = {key: metrics[key] for key in QUALITY_OF if isinstance(metrics.get(key), Mapping)}
    sets = {key: entry for key, entry in sets.items() if is_number(entry.get("texts"))}
    rows = [
        (name, hint, [score_cell(entry, score, QUALITY_FORMATS.get(score, "{:.3f}".format)) for entry in sets.values()])
        for score, (name, hint) in QUALITY.items()
        if any(is_number(entry.get(score)) for entry in sets.values())
    ]
    if not rows:
        return None
    counts = {entry["texts"] for entry in sets.values()}
    return {
        "columns": [QUALITY_OF[key] for key in sets],
        "rows": rows,
        "texts": " / ".join(str(entry["texts"]) for entry in sets.values()) if len(counts) > 1 else str(counts.pop()),
    }


def _source_scores(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return {"perplexity_wikitext": "wikitext", ...}: the sources of a mixture that the test rows come from."""
    test = metrics.get("test")
    counts = test.get("counts") if isinstance(test, Mapping) else None
    return {f"perplexity_{source}": source for source in counts} if isinstance(counts, Mapping) else {}


def score_cell(entry: Mapping[str, Any], score: str, write: Callable[[float], str] | None = None) -> Cell:
    """One score with its interval, as metrics.json has them; `write`: how to write a number (default: by the score)."""
    value, low, high = (entry.get(f"{score}{end}") for end in ("", "_low", "_high"))
    if not is_number(value):
        return Cell()
    if write is None:
        write = "{:.1f}".format if score.startswith(("rouge", "fact", "rows_right", "source_precision")) else number
    bounds = (low, high) if is_number(low) and is_number(high) else (None, None)
    return Cell(value, *bounds, write)


def score_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Return what fine-tuning changed: the headline scores, with the paired difference or, where a version didn't write
    it, whether the intervals overlap."""
    base, tuned = metrics.get("base"), metrics.get("tuned")
    if not isinstance(base, dict) or not isinstance(tuned, dict):
        return []
    sentences = []
    for score in ("rouge1", "fact_recall", "fact_precision", "source_precision", "perplexity"):
        if is_number(base.get(score)) and is_number(tuned.get(score)):
            name = SCORE_NAMES[score][0].upper() + SCORE_NAMES[score][1:]
            change = f"{name}: base {score_cell(base, score)}, fine-tuned {score_cell(tuned, score)}"
            sentences.append(change + (_difference(metrics, score) or overlap(base, tuned, score)) + ".")
    return sentences


def _difference(metrics: Mapping[str, Any], score: str) -> str:
    """Return "; fine-tuned - base 3.2 (1.1 to 5.2)"; of a perplexity the difference of its logarithm, the loss."""
    paired = metrics.get("tuned_minus_base")
    score, unit = ("loss", " nats/token") if score == "perplexity" else (score, "")
    if not isinstance(paired, Mapping) or not is_number(paired.get(score)):
        return ""
    return f"; fine-tuned - base{' in loss' if unit else ''}, row by row: {score_cell(paired, score)}{unit}"


def overlap(a: Mapping[str, Any], b: Mapping[str, Any], score: str) -> str:
    """Return "; the 95% intervals overlap", or do not; nothing where an interval is missing."""
    bounds = [entry.get(f"{score}_{end}") for entry in (a, b) for end in ("low", "high")]
    if not all(is_number(bound) for bound in bounds):
        return ""
    apart = bounds[1] < bounds[2] or bounds[3] < bounds[0]
    return f"; the 95% intervals {'do not overlap' if apart else 'overlap'}"


def notes_of(record: Mapping[str, Any]) -> list[str]:
    notes = record.get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def setting_text(value: Any) -> str:
    """A nested setting as one readable line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {setting_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(setting_text(item) for item in value)
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
