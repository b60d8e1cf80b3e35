"""Facts in a run's outputs, as tables for the reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt2_interp.analysis.outputs import is_number
from gpt2_interp.report.score_tables import score_cell


def facts_missing(metrics: Mapping[str, Any]) -> str:
    """Return a sentence about scores of facts that an older version did not write; "" if they are there."""
    tuned = metrics.get("tuned")
    if not isinstance(tuned, Mapping) or "fact_recall_lenient" not in tuned or "fact_recall" in tuned:
        return ""
    return (
        "An older version scored this run: fact_recall (strict), fact_precision and rows_right are missing. "
        "Facts in any form count a surname behind a wrong first name, and a right value beside a wrong one."
    )


FACT_COLUMNS = {
    "fact_recall": "facts stated",
    "fact_precision": "values right",
    "fact_distractor": "another value of the article",
    "fact_blend": "a blend of two",
    "fact_made_up": "made up",
}


def fact_errors(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return {"columns", "rows": [(kind of fact, [Cell per column])]} of the fine-tuned model; None without facts."""
    tuned = metrics.get("tuned")
    if not isinstance(tuned, Mapping) or not is_number(tuned.get("fact_made_up")):
        return None
    slots = [key.removeprefix("fact_made_up_") for key in tuned if key.startswith("fact_made_up_")]
    slots = [slot for slot in slots if not slot.endswith(("low", "high"))]
    rows = [("all", [score_cell(tuned, score) for score in FACT_COLUMNS])]
    rows += [(_plain(slot), [score_cell(tuned, f"{score}_{slot}") for score in FACT_COLUMNS]) for slot in slots]
    return {"columns": [f"{name} (%)" for name in FACT_COLUMNS.values()], "rows": rows}


def facts_of_row(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return {"columns", "rows": [(slot, [text])]} of a line of predictions.jsonl: the reference's values, and what
    each system writes in their place. None without facts."""
    facts, values = row.get("facts"), row.get("values")
    if not isinstance(facts, list) or not facts or not all(isinstance(fact, Mapping) for fact in facts):
        return None
    systems = {"tuned": "fine-tuned", "base": "base", "lead3": "lead-3"}
    if not isinstance(values, Mapping):  # of a version that marked any form of the value
        rows = [
            (_plain(fact.get("slot")), [fact.get("value"), *("yes" if fact.get(k) else "no" for k in systems)])
            for fact in facts
        ]
        return {"columns": ["reference", *(f"{name} has any form" for name in systems.values())], "rows": rows}
    rows = [
        (
            _plain(fact.get("slot")),
            [fact.get("value"), *(_written(values.get(key), fact.get("slot")) for key in systems)],
        )
        for fact in facts
    ]
    return {"columns": ["reference", *systems.values()], "rows": rows}


def _plain(slot: Any) -> str:
    return str(slot).replace("_", " ")


def _written(values: Any, slot: Any) -> str:
    """The different values that one output writes for one slot, each with its kind."""
    values = values if isinstance(values, list) else []
    found = [one for one in values if isinstance(one, Mapping) and one.get("slot") == slot]
    words = [f"{one.get('text')} ({str(one.get('kind')).replace('_', ' ')})" for one in found]
    return ", ".join(dict.fromkeys(words)) or "–"
