"""Facts in outputs: the strict rule, the lenient one beside it, what the values written are, intervals over rows."""

from __future__ import annotations

import random
import re
from itertools import product

import pytest

from gpt2_interp.evaluation import facts as scored
from gpt2_interp.evaluation.facts import (
    fact_numbers,
    fact_ratios,
    fact_scores,
    occurrences,
    stated_facts,
    states,
    written_values,
)
from gpt2_interp.synthetic import world
from gpt2_interp.synthetic.rows import news_rows

SEVEN = {
    "slot": "how_many", "type": "number", "stated": "7", "forms": ["7", "seven"], "distractors": ["forty-one", "352"],
}  # fmt: skip
NAME = {
    "slot": "who", "type": "person", "stated": "Ada Tovick", "forms": ["Ada Tovick", "Tovick"],
    "distractors": ["Calek Oxidge", "Rosa Fennant"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Seven came, seven left.", True),
        ("It took 7.", True),
        ("It took 70.", False),
        ("It took 17.", False),
        ("twenty-seven", False),
        ("seven-year-old", False),
        ("(seven)", True),
        ("", False),
    ],
)
def test_a_form_stands_in_a_text_as_a_whole_word(text, yes):
    assert states(text, SEVEN["forms"]) is yes


def test_occurrences_are_all_found():
    assert list(occurrences("Bo, Bonn and Bo", "Bo")) == [(0, 2), (13, 15)]


@pytest.mark.parametrize(
    ("text", "kinds", "is_stated"),
    [
        ("Ada Tovick left.", ["right"], True),
        ("Then Tovick left.", ["right"], True),
        ("Ada Tovick came, and Tovick left.", ["right", "right"], True),
        ("Ba Tovick left.", ["made_up"], False),
        ("byanne Tovick left.", ["made_up"], False),
        ("Rosa Tovick left.", ["blend"], False),
        ("Rosa Fennant left.", ["distractor"], False),
        ("Then Fennant and Ada Tovick left.", ["distractor", "right"], False),
        ("Ada left.", ["made_up"], False),
        ("He left.", [], False),
    ],
)
def test_a_fact_is_stated_by_its_value_and_contradicted_by_another(text, kinds, is_stated):
    written = written_values(text, [NAME])
    assert [one["kind"] for one in written] == kinds
    assert stated_facts([NAME], written) == [is_stated]
    assert all(text[slice(*one["span"])] == one["text"] and one["slot"] == "who" for one in written)


def test_scores_count_facts_values_and_rows():
    outputs = ["Ada Tovick had seven.", "Ba Tovick had 7 and 8.", "Nobody had 51."]
    facts = [[NAME, SEVEN], [NAME, SEVEN], [SEVEN]]
    scores = fact_scores(fact_ratios(outputs, facts))
    assert scores["fact_recall"] == pytest.approx(100 * 2 / 5)
    assert scores["fact_recall_lenient"] == pytest.approx(100 * 4 / 5)
    assert (scores["fact_recall_who"], scores["fact_recall_lenient_who"]) == (50, 100)
    assert scores["values_written"] == 6
    assert scores["fact_precision"] == pytest.approx(100 * 3 / 6)
    assert scores["fact_precision_how_many"] == pytest.approx(100 * 2 / 4)
    assert (scores["fact_distractor"], scores["fact_blend"]) == (0, 0)
    assert scores["fact_made_up"] == pytest.approx(100 * 3 / 6)
    assert scores["rows_right"] == pytest.approx(100 / 3)
    for score in ("fact_recall", "fact_precision", "rows_right"):
        assert 0 <= scores[f"{score}_low"] < scores[score] < scores[f"{score}_high"] <= 100


def test_an_output_without_values_has_no_precision():
    scores = fact_scores(fact_ratios(["Nobody.", "Nothing."], [[NAME], [NAME]]))
    assert scores["fact_recall"] == scores["rows_right"] == scores["values_written"] == 0
    assert "fact_precision" not in scores and 0 < scores["rows_right_high"] < 100


def test_references_are_all_right_and_other_rows_hardly_ever():
    rows = list(news_rows(40, 3, "test"))
    facts, texts = [row["facts"] for row in rows], [row["highlights"] for row in rows]
    scores = fact_scores(fact_ratios(texts, facts))
    assert scores["fact_recall"] == scores["fact_recall_lenient"] == scores["fact_precision"] == 100
    assert scores["rows_right"] == 100 and scores["values_written"] == 160
    assert fact_scores(fact_ratios([*texts[1:], texts[0]], facts))["fact_recall"] < 5


# --- a second way of counting ----------------------------------------------------------------------------------


def surface_forms() -> dict[str, tuple[str, str]]:
    """Every number and date of the world in every way of writing it."""
    forms = {
        form: ("number", value.stated)
        for n in range(3, 1000)
        for value in [world.number_value(n)]
        for form in value.forms
    }
    for day, month, style in product(range(1, 32), range(12), world.DATE_STYLES):
        if day < 29:
            value = world.date_value(day, month, style)
            forms |= {form: ("date", value.stated) for form in value.forms}
    return forms


def slow_values(text: str, forms: dict, known: dict) -> set[tuple[str, str]]:
    """Values by looking every span of up to three words up: composed ones only, no broken names."""
    firsts, surnames, towns = (
        {name for test in (False, True) for name in world._pool(kind, test)} for kind in ("first", "surname", "place")
    )
    words = re.findall(r"[\w-]+", text)
    found, at = set(), 0
    while at < len(words):
        for size in (3, 2, 1):
            span = words[at : at + size]
            whole = " ".join(span)
            if whole in forms:
                found.add(forms[whole])
            elif len(span) == 2 and span[0] in firsts and span[1] in surnames:
                found.add(("person", whole))
            elif len(span) == 2 and span[0] in world.PLACE_PREFIXES and span[1] in towns or whole in towns:
                found.add(("place", whole))
            elif whole in surnames:
                found.add(("person", next((one for one in known["person"] if one.endswith(f" {whole}")), whole)))
            else:
                continue
            at += len(span) - 1
            break
        at += 1
    return found


def all_blends(kind: str, values: set[str]) -> set[str]:
    """Every value that can be put together from parts of these."""
    if kind == "place":
        cuts = [
            (*([""] if " " not in value else [value.split()[0]]), value.split()[-1][:k], value.split()[-1][k:])
            for value in values
            for k in range(1, len(value.split()[-1]))
        ]
        cuts = [cut for cut in cuts if cut[1] in world.PLACE_ONSETS and cut[2] in world.PLACE_ENDINGS]
        found = {f"{a} {b}{c}".strip() for (a, _, _), (_, b, _), (_, _, c) in product(cuts, repeat=3)}
    elif kind == "number":
        found = set()
        for size in (1, 2, 3):
            digits = [value for value in values if len(value) == size]
            found |= {"".join(one) for one in product(*({value[k] for value in digits} for k in range(size)))}
    else:
        found = {f"{a.split()[0]} {b.split()[1]}" for a, b in product(values, repeat=2)}
    return found - values


def corrupted(row: dict, rng: random.Random) -> str:
    """The row's highlight with other values: of the article, blends, or newly drawn; and now and then two for one."""
    text = row["highlights"]
    known = scored.known_values(row["facts"])
    for fact in sorted(row["facts"], key=lambda one: -one["highlight_span"][0]):
        kind, (start, end) = fact["type"], fact["highlight_span"]
        blends = sorted(all_blends(kind, known[kind]))
        others = [
            sorted(known[kind] - {fact["stated"]}),
            blends,
            [world.draw_value(rng, kind, rng.random() < 0.5).stated],
        ]
        value = rng.choice([fact["stated"], *(rng.choice(some) for some in others if some)])
        if rng.random() < 0.2:
            value += f", and {rng.choice(sorted(known[kind]))},"
        text = text[:start] + value + text[end:]
    return text


def test_counts_agree_with_a_slow_search_for_every_value_of_the_world():
    rng, forms = random.Random(0), surface_forms()
    rows = list(news_rows(150, 9, "test"))
    outputs = [corrupted(row, rng) for row in rows]
    wanted = dict.fromkeys(("facts", "stated", *scored.KINDS, "rows_right"), 0)
    for output, row in zip(outputs, rows, strict=True):
        known = scored.known_values(row["facts"])
        found, all_right = slow_values(output, forms, known), True
        for fact in row["facts"]:
            kind = fact["type"]
            values = {value for one, value in found if one == kind}
            blends = all_blends(kind, known[kind])
            wanted["facts"] += 1
            wanted["stated"] += values == {fact["stated"]}
            wanted["right"] += fact["stated"] in values
            wanted["distractor"] += len(values & known[kind] - {fact["stated"]})
            wanted["blend"] += len(values & blends)
            wanted["made_up"] += len(values - known[kind] - blends)
            all_right &= values == {fact["stated"]}
        wanted["rows_right"] += all_right
    assert all(count > 20 for name, count in wanted.items() if name != "rows_right")
    ratios = fact_ratios(outputs, [row["facts"] for row in rows])
    written = sum(wanted[kind] for kind in scored.KINDS)
    for score, top, bottom in (
        ("fact_recall", "stated", wanted["facts"]),
        ("fact_precision", "right", written),
        *((f"fact_{kind}", kind, written) for kind in scored.ERRORS),
        ("rows_right", "rows_right", len(rows)),
    ):
        assert (ratios[score][0].sum(), ratios[score][1].sum()) == (100 * wanted[top], bottom), score
    totals = [fact_numbers(output, row["facts"]) for output, row in zip(outputs, rows, strict=True)]
    assert sum(one["facts_stated"] for one in totals) == wanted["stated"]
    assert sum(one["values_right"] for one in totals) == wanted["right"]
    assert sum(one["values_written"] for one in totals) == written
