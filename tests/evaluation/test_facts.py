"""Facts in outputs: whole words, every form, intervals over rows."""

from __future__ import annotations

import pytest

from gpt2_interp.evaluation.facts import fact_recall, occurrences, stated_facts, states
from gpt2_interp.synthetic.rows import news_rows

SEVEN = {"slot": "how_many", "stated": "7", "forms": ["7", "seven"]}
NAME = {"slot": "who", "stated": "Ada Bo", "forms": ["Ada Bo", "Bo"]}


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
def test_a_value_is_stated_as_a_whole_word_in_any_form(text, yes):
    assert states(text, SEVEN["forms"]) is yes


def test_occurrences_are_all_found():
    assert list(occurrences("Bo, Bonn and Bo", "Bo")) == [(0, 2), (13, 15)]


def test_recall_counts_facts_and_slots():
    scores = fact_recall(["Bo had seven.", "Nobody had 8."], [[NAME, SEVEN], [SEVEN]])
    assert scores["fact_recall"] == pytest.approx(100 * 2 / 3)
    assert scores["fact_recall_who"] == 100 and scores["fact_recall_how_many"] == 50
    assert 0 == scores["fact_recall_low"] <= scores["fact_recall"] <= scores["fact_recall_high"] == 100
    assert "fact_recall_low" not in fact_recall(["Bo"], [[NAME]])


def test_references_state_all_their_facts_and_other_rows_hardly_any():
    rows = list(news_rows(40, 3, "test"))
    facts = [row["facts"] for row in rows]
    texts = [row["highlights"] for row in rows]
    assert all(all(stated_facts(text, one)) for text, one in zip(texts, facts, strict=True))
    assert fact_recall(texts, facts)["fact_recall"] == 100
    assert fact_recall([*texts[1:], texts[0]], facts)["fact_recall"] < 10
