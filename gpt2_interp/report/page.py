"""The HTML report of one run: one page that holds everything it shows.

Stages write numbers and pictures; this module only reads them. Whatever is missing (training may still be going on)
becomes a sentence. What a definition says comes from the measure table.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from gpt2_interp.analysis.claim_words import WORDS
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.outputs import read_rows, read_scores, spread_samples
from gpt2_interp.errors import InputError
from gpt2_interp.figures.draw import layout_of
from gpt2_interp.figures.draw_html import draw_html, figure_fragment
from gpt2_interp.figures.registry import PICTURES, SECTIONS, Picture
from gpt2_interp.files import write_atomically
from gpt2_interp.report.claims_tables import ablation_section, claims_section, costs_section
from gpt2_interp.report.fact_tables import fact_errors, facts_missing, facts_of_row
from gpt2_interp.report.score_tables import (
    QUALITY,
    TUNINGS,
    notes_of,
    quality_table,
    score_sentences,
    score_table,
    setting_text,
)
from gpt2_interp.snapshots.scalars import SCORES
from gpt2_interp.snapshots.table import MEASURE, Measure

LARGEST_REPORT = 15_000_000  # bytes
FOR_TEXT = 700_000  # of them, for text and tables
SAMPLES_SHOWN = 5
FOLDED_AWAY = ("sha256", "counts", "samples")  # of a part of the data: among the settings


def write_run_report(m: Measurements) -> Path:
    """Write visualizations/<run>/interpretability_report.html from whatever is there."""
    path = m.paths.visualizations / "interpretability_report.html"
    scores, score_note = read_scores(m.paths)
    page = template().render(
        overview=None,
        run=m.paths.run_name,
        title=f"Interpretability report: {m.paths.run_name}",
        plotly_js=Markup(get_plotlyjs()),
        summary=run_facts(m, scores),
        scores=score_table(scores),
        score_note=score_note,
        score_sentences=score_sentences(scores),
        facts_missing=facts_missing(scores),
        fact_errors=fact_errors(scores),
        facts_of_row=facts_of_row,
        score_notes=notes_of(scores),
        quality=quality_section(m, scores),
        probe_notes=notes_of(m.probe_set),
        predictions=read_rows(m.paths.model_outputs / "predictions.jsonl", SAMPLES_SHOWN),
        samples=spread_samples(read_rows(m.paths.model_outputs / "samples.jsonl")),
        settings=settings(m.info),
        sections=sections(m),
        claims=claims_section(m),
        words=WORDS,
        ablation=ablation_section(m),
        costs=costs_section(m),
        warning=_one_step(m),
    )
    write_atomically(path, page.encode())
    return path


def run_facts(m: Measurements, scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run in a few lines: (name, value)."""
    model, info = m.info.get("model", {}), m.info
    total, trainable = model.get("parameters"), model.get("trainable_parameters")
    rows = [("task", info.get("task")), ("tuning", TUNINGS.get(info.get("tuning"), info.get("tuning")))]
    if total and trainable is not None:
        share = setting_text(round(100 * trainable / total, 2))
        rows.append(("parameters", f"{total:,}, of which {trainable:,} trained ({share}%)"))
    shape = [f"{key} {model[key]}" for key in ("n_layer", "n_head", "n_embd", "n_positions") if key in model]
    rows.append(("shape", ", ".join(shape)))
    for part, entry in info.get("data", {}).items():
        rows.append((f"data: {part}", setting_text({k: v for k, v in entry.items() if k not in FOLDED_AWAY})))
    examples, patterns = (len(m.probe_set.get(kind, [])) for kind in ("example", "pattern"))
    rows.append(("probes", f"{examples} fixed examples, {patterns} with full patterns"))
    rows.append(("snapshots", f"{len(m.steps)}, at steps {_list(m.steps)}"))
    rows += [("device", info.get("device")), ("started", info.get("created")), ("git commit", info.get("git_commit"))]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def quality_section(m: Measurements, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the report shows of the texts themselves: the table, the figure over the checkpoints, and their
    definitions."""
    row = next(picture for picture in PICTURES if picture.section == "quality")
    picture, interactive, note = None, None, ""
    try:
        interactive = Markup(_interactive(m, row))
        picture, note, _ = _still(m, row, FOR_TEXT // 2)
    except InputError as problem:
        note = f"No picture: {problem}"
    return {
        "row": row,
        "table": quality_table(scores),
        "picture": picture,
        "interactive": interactive,
        "note": note,
        "definitions": [score for score in SCORES if re.sub("<.*>", "2", score.name) in (*QUALITY, "texts")],
    }


def settings(info: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value) for the tables that are folded away."""
    groups = [
        ("Arguments", info.get("arguments")),
        ("Model", info.get("model")),
        ("Data", info.get("data")),
        ("Versions", info.get("versions")),
    ]
    return [
        (name, [(str(k), setting_text(v)) for k, v in group.items()])
        for name, group in groups
        if isinstance(group, Mapping)
    ]


def sections(m: Measurements) -> list[dict[str, Any]]:
    """Return every section with its figures, as long as they fit into LARGEST_REPORT."""
    left = LARGEST_REPORT - len(get_plotlyjs()) - FOR_TEXT
    result = []
    for section in SECTIONS:
        chapters = []
        for picture in PICTURES:
            if picture.section == section.name and picture.measures:
                shown, left = _chapter(m, picture, left)
                chapters.append(shown)
        result.append({"section": section, "chapters": chapters})
    return result


PROBES = {
    "example": "held-out probes",
    "few_example": "of the held-out probes",
    "kl_example": "of the held-out probes",
    "training_example": "training rows",
    "control_example": "general texts",
    "sequence": "sequences of random tokens read twice",
    "pair": "pairs of twins, of validation rows",
}


def _probes_shown(m: Measurements, picture: Picture) -> str:
    """Name the probes that a picture shows, with the splits that they are of; "" where it shows none."""
    parts = []
    for axis in dict.fromkeys(MEASURE[name].probe_axis for name in picture.measures if m.has(name)):
        entries = m.probe_set.get(axis, []) if axis else []
        splits = Counter(entry["split"] for entry in entries if "split" in entry)
        named = " and ".join(f"{count} of the {split} split" for split, count in sorted(splits.items(), reverse=True))
        if axis and entries:
            parts.append(f"{len(entries)} {PROBES[axis]}" + (f" ({named})" if named else ""))
    return "; ".join(dict.fromkeys(parts))


def _chapter(m: Measurements, picture: Picture, left: int) -> tuple[dict[str, Any], int]:
    """Return (what the template shows of one picture, bytes left for those that follow)."""
    missing = [name for name in picture.measures if not m.has(name)]
    shown = {
        "picture": picture,
        "measures": [_measure(MEASURE[name]) for name in picture.measures],
        "probes": _probes_shown(m, picture),
        "still": None,
        "interactive": None,
        "measured": any(m.has(name) for name in picture.needs or picture.measures),
        "notes": [_not_measured(m, missing)] if missing else [],
    }
    if not shown["measured"]:
        return shown, left
    still, still_note, left = _still(m, picture, left)
    interactive, interactive_note = "", ""
    if ".html" in picture.formats:
        try:
            interactive = _interactive(m, picture)
        except InputError as problem:
            interactive_note = str(problem)
    if len(interactive) > left:
        interactive, interactive_note = "", "The interactive version is too large for this page: open its own file."
    left -= len(interactive)
    shown["still"] = still
    # plotly writes < and / of its data as \u003c, \u002f
    shown["interactive"] = Markup(interactive) if interactive else None
    shown["notes"] += [note for note in dict.fromkeys((still_note, interactive_note)) if note]
    return shown, left


def _interactive(m: Measurements, picture: Picture) -> str:
    return figure_fragment(draw_html(layout_of(picture, m), m), f"figure-{picture.name}")


def _not_measured(m: Measurements, names: list[str]) -> str:
    """Return which of a figure's measures this run does not have, and why where it is known."""
    left_out = m.info.get("measures", {}).get("left_out", {})
    groups = dict.fromkeys(MEASURE[name].group for name in names)
    reasons = [f"{group}: {left_out[group]}" for group in groups if group in left_out]
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return f"Not measured in this run{why}: {', '.join(names)}."


def _still(m: Measurements, picture: Picture, left: int) -> tuple[str | None, str, int]:
    """Return (data URI or None, why not, bytes left)."""
    path = m.paths.visualizations / picture.still
    if not path.is_file():
        return None, f"{path.name} has not been drawn yet: run {picture.script} --run_name {path.parent.name}.", left
    data = base64.b64encode(path.read_bytes()).decode()
    if len(data) > left:
        return None, f"{path.name} is too large for this page: open the file itself.", left
    return f"data:image/{path.suffix[1:]};base64,{data}", "", left - len(data)


def _measure(measure: Measure) -> dict[str, str]:
    return {key: getattr(measure, key) for key in ("name", "unit", "meaning", "formula", "source", "caution")}


def _one_step(m: Measurements) -> str:
    return "" if len(m.steps) > 1 else f"There is only one snapshot (step {m.steps[0]}): nothing can have changed yet."


def template() -> Any:
    """The page of both reports; everything that is filled in is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report_template.html")


def _list(steps: list[int], most: int = 12) -> str:
    shown = [str(step) for step in steps] if len(steps) <= most else [*map(str, steps[: most - 2]), "…", str(steps[-1])]
    return ", ".join(shown)
