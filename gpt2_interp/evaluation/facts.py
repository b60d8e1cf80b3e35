"""Facts of a reference that an output states: right words with a wrong name are no summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_interp.statistics.intervals import interval

Fact = Mapping[str, Any]  # "slot", "stated", "forms", as synthetic/rows.py describes them


def occurrences(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Spans of the form as whole words: "seven" is not in "forty-seven", nor 3 in 30."""
    start = text.find(form)
    while start >= 0:
        end = start + len(form)
        around = text[start - 1 : start] + text[end : end + 1]
        if not any(c.isalnum() or c == "-" for c in around):
            yield start, end
        start = text.find(form, start + 1)


def states(text: str, forms: Sequence[str]) -> bool:
    """Return whether the text states a value in one of its forms."""
    return any(True for form in forms for _ in occurrences(text, form))


def stated_facts(output: str, facts: Sequence[Fact]) -> list[bool]:
    """Return for each fact whether the output states its value in any form."""
    return [states(output, fact["forms"]) for fact in facts]


def fact_recall(outputs: Sequence[str], facts: Sequence[Sequence[Fact]]) -> dict[str, float]:
    """Share (0-100) of the references' values that the outputs state, over all and by slot.

    fact_recall has 95% bootstrap bounds `_low` and `_high` from resampling rows: the facts of one row go together.
    """
    found = [np.array(stated_facts(output, row)) for output, row in zip(outputs, facts, strict=True)]
    hits, counts = np.array([row.sum() for row in found]), np.array([len(row) for row in found])
    scores = {"fact_recall": 100 * float(hits.sum() / counts.sum())}
    if len(found) > 1:
        low, high = interval(lambda h, n, axis: 100 * h.sum(axis=axis) / n.sum(axis=axis), hits, counts)
        scores |= {"fact_recall_low": low, "fact_recall_high": high}
    by_slot: dict[str, list[bool]] = {}
    for row, hit in zip(facts, found, strict=True):
        for fact, one in zip(row, hit, strict=True):
            by_slot.setdefault(fact["slot"], []).append(bool(one))
    return scores | {f"fact_recall_{slot}": 100 * float(np.mean(values)) for slot, values in by_slot.items()}
