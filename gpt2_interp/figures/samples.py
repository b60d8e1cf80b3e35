"""Quality of the samples of a run's checkpoints, beside the base's and the references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.outputs import is_number, read_rows
from gpt2_interp.errors import InputError
from gpt2_interp.figures.panels import BLUE, GREY, ORANGE, Line, LinePanel, Lines
from gpt2_interp.statistics.intervals import interval, share_interval
from gpt2_interp.statistics.ratios import bounded
from gpt2_interp.statistics.texts import FEWEST_TEXTS, REPEATED, compare_texts, equal_size

REFERENCE_TEXTS = "reference"  # beside the steps
SAMPLES, BASE, REFERENCES = "samples", "base (step 0)", "references"
UNRECORDED = "Not recorded by the version that trained this run."

Bounded = tuple[float, float, float]  # value, low, high; NaN where there is none
NO_NUMBER: Bounded = (np.nan, np.nan, np.nan)


def sample_panels(m: Measurements) -> tuple[list[LinePanel], int]:
    """Return (panels over the checkpoints, texts at each). Raises InputError if there are too few texts for any
    number."""
    steps = _by_step(m)
    n = len(next(iter(steps.values())))
    references = _references(steps)
    texts = {step: [row["generated"] for row in rows] for step, rows in steps.items()}
    scores = compare_texts(texts | ({REFERENCE_TEXTS: references} if references else {}))
    size = equal_size([*texts.values(), *([references] if references else [])], 2)

    def of_texts(name: str, key: Any) -> Bounded:
        entry = scores.get(key, {})
        return tuple(entry.get(f"{name}{end}", np.nan) for end in ("", "_low", "_high"))

    def panel(title: str, y_label: str, name: str, note: str = "") -> LinePanel:
        return _panel(title, y_label, steps, lambda step: of_texts(name, step), of_texts(name, REFERENCE_TEXTS), note)

    among = f"of {size} bigrams" if size else "of bigrams"
    return [
        _perplexity_panel(steps),
        panel("Different bigrams, at equal size", f"distinct-2 [share {among}]", "distinct_2_equal", "Too few words."),
        panel("Sameness of the texts", "self-BLEU [0 to 1]", "self_bleu"),
        panel("Repetition inside a text", f"rep-{REPEATED} [share of {REPEATED}-grams]", f"repetition_{REPEATED}"),
        panel("Length", "words a text", "words"),
        _finished_panel(steps),
        *_facts_panel(steps),
    ], n


def _by_step(m: Measurements) -> dict[int, list[dict[str, Any]]]:
    """The lines of samples.jsonl by step, those steps that have all texts: some numbers depend on how many."""
    steps: dict[int, list[dict[str, Any]]] = {}
    for row in read_rows(m.paths.model_outputs / "samples.jsonl"):
        if isinstance(row.get("step"), int) and isinstance(row.get("generated"), str):
            steps.setdefault(row["step"], []).append(row)
    most = max(map(len, steps.values()), default=0)
    if not most:
        raise InputError("no samples yet: model_outputs/<run>/samples.jsonl is written during training.")
    if most < FEWEST_TEXTS:
        raise InputError(
            f"{most} text(s) a checkpoint say nothing about a model: train with --samples_per_checkpoint {FEWEST_TEXTS}"
            " or more."
        )
    return {step: steps[step] for step in sorted(steps) if len(steps[step]) == most}


def _references(steps: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The references as far as a sample may reach; [] in a run of a version that did not write them so."""
    texts = [row.get("reference_cut") for row in next(iter(steps.values()))]
    return texts if all(isinstance(text, str) for text in texts) else []


# --- panels ------------------------------------------------------------------------------------------------------


def _panel(
    title: str,
    y_label: str,
    steps: Mapping[int, Sequence[Mapping[str, Any]]],
    value: Callable[[int], Bounded],
    references: Bounded,
    note: str = UNRECORDED,
) -> LinePanel:
    """The samples with their band, and the base's and the references' number as dashed lines."""
    y, low, high = np.array([value(step) for step in steps]).T
    if not np.isfinite(y).any():
        return LinePanel(title, y_label, note=note)
    x = np.array(list(steps))
    lines = [Line(SAMPLES, x, y, BLUE, *((low, high) if np.isfinite(low).any() else ()))]
    if x[0] == 0 and np.isfinite(y[0]):
        lines.append(_level(BASE, x, y[0], GREY))
    if np.isfinite(references[0]):
        lines.append(_level(REFERENCES, x, references[0], ORANGE))
    return LinePanel(title, y_label, lines)


def _level(label: str, x: np.ndarray, value: float, color: str) -> Line:
    return Line(label, np.array([x[0], x[-1]]), np.full(2, value), color, wide=False, dashed=True)


def _perplexity_panel(steps: Mapping[int, Sequence[Mapping[str, Any]]]) -> LinePanel:
    """Samples and references under the checkpoint that wrote the samples: both change from step to step."""
    panel = _panel(
        "Perplexity under the checkpoint itself",
        "perplexity",
        steps,
        lambda step: _perplexity(steps[step], ""),
        NO_NUMBER,
    )
    y = np.array([_perplexity(rows, "reference_")[0] for rows in steps.values()])
    if not panel.lines or not np.isfinite(y).any():
        return panel
    lines = [*panel.lines, Line(REFERENCES, np.array(list(steps)), y, ORANGE, wide=False, dashed=True)]
    values = np.concatenate([line.y for line in lines])
    wide = np.nanmax(values) > 10 * np.nanmin(values)
    return LinePanel(panel.title, panel.y_label, lines, log_y=bool(wide))


def _perplexity(rows: Sequence[Mapping[str, Any]], prefix: str) -> Bounded:
    """Return exp(summed nll / tokens), with bounds from resampling texts."""
    pairs = [(row.get(f"{prefix}nll"), row.get(f"{prefix}tokens")) for row in rows]
    if not all(is_number(value) for pair in pairs for value in pair) or not sum(tokens for _, tokens in pairs):
        return NO_NUMBER
    total, tokens = np.array(pairs, dtype=float).T
    low, high = interval(lambda t, n, axis: t.sum(axis=axis) / n.sum(axis=axis), total, tokens)
    return tuple(float(np.exp(loss)) for loss in (total.sum() / tokens.sum(), low, high))


def _finished_panel(steps: Mapping[int, Sequence[Mapping[str, Any]]]) -> LinePanel:
    def share(step: int) -> Bounded:
        ends = [row.get("finished") for row in steps[step]]
        if not all(isinstance(end, bool) for end in ends):
            return NO_NUMBER
        return (sum(ends) / len(ends), *share_interval(sum(ends), len(ends)))

    first = next(iter(steps.values()))
    fits = [row.get("reference_finished") for row in first]
    references = (sum(fits) / len(fits), np.nan, np.nan) if all(isinstance(fit, bool) for fit in fits) else NO_NUMBER
    panel = _panel("Ended by themselves", "share of the texts", steps, share, references)
    return LinePanel(panel.title, panel.y_label, panel.lines, panel.note, y_limits=(-0.03, 1.03))


FACTS = (
    ("facts_stated", "facts", "facts stated (recall)", BLUE),
    ("values_right", "values_written", "values that are right (precision)", ORANGE),
)


def _facts_panel(steps: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[LinePanel]:
    """Strict recall and precision of the samples, in percent; none for a run without known facts."""
    lines = []
    for part, whole, label, color in FACTS:
        numbers = [[(row.get(part), row.get(whole)) for row in rows] for rows in steps.values()]
        if not all(is_number(value) for rows in numbers for pair in rows for value in pair):
            return []
        found = [_share(np.array(rows, dtype=float)) for rows in numbers]
        y, low, high = np.array(found).T
        lines.append(Line(label, np.array(list(steps)), y, color, low, high))
    return [LinePanel("Facts", "% of facts, % of values", lines, y_limits=(-3, 103))]


def _share(rows: np.ndarray) -> Bounded:
    """Percentage with bounds from resampling texts; rows [text, (part, whole)]."""
    found = bounded({"share": (100 * rows[:, 0], rows[:, 1])})
    value = found.get("share", np.nan)
    return value, found.get("share_low", value), found.get("share_high", value)


def sample_quality(m: Measurements) -> Lines:
    panels, n = sample_panels(m)
    title = f"Quality of the samples: {n} texts a checkpoint, the same prompts; bands: 95% over texts"
    return Lines(title, panels)
