"""Facts that an output states, and the values that it writes: right words with a wrong name are no summary.

A fact is stated when the output writes its value and no other of its type: an output with two names leaves open who it
was. Nan et al. 2021 (Entity-level factual consistency of abstractive text summarization) count entities so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_interp.statistics.intervals import share_interval
from gpt2_interp.statistics.ratios import Ratio, bounded
from gpt2_interp.synthetic.values_in_text import is_blend, stated, values_in

Fact = Mapping[str, Any]  # as synthetic/rows.py describes them; the facts of a row are of different types
FACT_RULE = "strict"  # in metrics.json; files without it have the rule that is called lenient now
ERRORS = ("distractor", "blend", "made_up")
KINDS = ("right", *ERRORS)


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
    """Return whether one of the forms stands in the text, whatever else does: of a person, the surname is enough."""
    return any(True for form in forms for _ in occurrences(text, form))


def known_values(facts: Sequence[Fact]) -> dict[str, set[str]]:
    """Return {type: the article's values as a highlight states them}, right ones and distractors."""
    return {
        fact["type"]: {fact["stated"], *(stated(fact["type"], text) for text in fact["distractors"])} for fact in facts
    }


def written_values(output: str, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """Return the values that an output writes, in its order: {"slot", "value", "text", "span", "kind"}.

    "value" is as a highlight states it, "text" as written at "span" (characters). "kind" is one of KINDS: right;
    distractor, another value of the article, in the wrong role; blend, composed of parts of the article's values;
    made_up, every other one, also a name that is not whole.
    """
    known, of_type = known_values(facts), {fact["type"]: fact for fact in facts}
    found = []
    for one in values_in(output, known):
        if (fact := of_type.get(one.type)) is None:
            continue
        if one.value == fact["stated"]:
            kind = "right"
        elif one.value in known[one.type]:
            kind = "distractor"
        else:
            kind = "blend" if is_blend(one.type, one.value, known[one.type]) else "made_up"
        text, span = output[one.start : one.end], [one.start, one.end]
        found.append({"slot": fact["slot"], "value": one.value, "text": text, "span": span, "kind": kind})
    return found


def stated_facts(facts: Sequence[Fact], written: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return for each fact whether an output states it and contradicts it nowhere; written: its `written_values`."""
    return [{one["value"] for one in written if one["slot"] == fact["slot"]} == {fact["stated"]} for fact in facts]


def fact_numbers(output: str, facts: Sequence[Fact]) -> dict[str, int]:
    """Return for one output: "facts" of its row, "facts_stated" of them, different "values_written", "values_right"."""
    written = written_values(output, facts)
    values = {(one["slot"], one["value"], one["kind"] == "right") for one in written}
    return {
        "facts": len(facts),
        "facts_stated": sum(stated_facts(facts, written)),
        "values_written": len(values),
        "values_right": sum(right for *_, right in values),
    }


def fact_ratios(outputs: Sequence[str], facts: Sequence[Sequence[Fact]]) -> dict[str, Ratio]:
    """Return the scores of `fact_scores` as ratios of rows, in percent."""
    slots = list(dict.fromkeys(fact["slot"] for row in facts for fact in row))
    counts = {name: np.zeros((len(outputs), len(slots))) for name in ("facts", "stated", "lenient", *KINDS)}
    for i, (output, row) in enumerate(zip(outputs, facts, strict=True)):
        written = written_values(output, row)
        for fact, is_stated in zip(row, stated_facts(row, written), strict=True):
            at = i, slots.index(fact["slot"])
            counts["facts"][at] += 1
            counts["stated"][at] += is_stated
            counts["lenient"][at] += states(output, fact["forms"])
        for slot, _, kind in {(one["slot"], one["value"], one["kind"]) for one in written}:
            counts[kind][i, slots.index(slot)] += 1
    values = sum(counts[kind] for kind in KINDS)

    def of_slot(columns: slice | int, end: str) -> dict[str, Ratio]:
        def sums(array: np.ndarray) -> np.ndarray:
            return array[:, columns].reshape(len(outputs), -1).sum(axis=1)

        ratios = {
            f"fact_recall{end}": ("stated", counts["facts"]),
            f"fact_recall_lenient{end}": ("lenient", counts["facts"]),
        }
        ratios |= {f"fact_precision{end}": ("right", values)}
        ratios |= {f"fact_{kind}{end}": (kind, values) for kind in ERRORS}
        return {name: (100 * sums(counts[top]), sums(bottom)) for name, (top, bottom) in ratios.items()}

    all_right = (counts["stated"] == counts["facts"]) & (values == counts["facts"])
    found = of_slot(slice(None), "") | {"rows_right": (100.0 * all_right.all(axis=1), np.ones(len(outputs)))}
    for column, slot in enumerate(slots):
        found |= of_slot(column, f"_{slot}")
    return found


def fact_scores(ratios: Mapping[str, Ratio]) -> dict[str, float]:
    """Return scores in percent with 95% bounds `_low` and `_high`, over all facts and by slot (`<score>_<slot>`).

    fact_recall: share of the references' facts that are stated. fact_recall_lenient: any form of the value stands
    somewhere, whatever else does. fact_precision: share of the different values written that are right; the others are
    fact_distractor, fact_blend and fact_made_up. rows_right: share of outputs that state every fact and write nothing
    else. values_written: their number. The bounds come from resampling rows, because the facts of one row go together;
    those of rows_right are Wilson's.
    """
    scores = bounded(ratios)
    hits, rows = ratios["rows_right"]
    low, high = share_interval(round(hits.sum() / 100), len(rows))
    scores |= {"rows_right_low": 100 * low, "rows_right_high": 100 * high}
    return scores | {"values_written": int(ratios["fact_precision"][1].sum())}
