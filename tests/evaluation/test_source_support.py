"""What of an output stands in its source: lines labelled by hand, and real references."""

from __future__ import annotations

import json

import pytest

from gpt2_interp.evaluation.rouge import lead3
from gpt2_interp.evaluation.source_support import items_of, support_ratios
from gpt2_interp.statistics.ratios import bounded

# Lines as references of CNN/DailyMail have them, with what a person finds in them: numbers / dates / names.
LABELLED = {
    "Bishop John Folda, of North Dakota, is taking time off .": "/ / John Folda | North Dakota",
    "Zully Broussard donated 12 kidneys on March 3, 2015 .": "12 2015 / 3 Mar / Broussard",
    "It was signed on 21st of June by the U.N.'s Ban Ki-moon": "/ 21 Jun / U | N | Ban Ki",
    "Damages of $1,200.50 and 3.5 per cent were paid to Tesco.": "1200.50 3.5 / / Tesco",
    "NEW: Fire killed 24/7 staff in May, says Zoe's Ark": "24 7 / / May | Zoe | Ark",
    'He said: "Never again." Then Obama left.': "/ / Obama",
    "the 23-year-old swam 4 x 100m at 9:30": "23 4 100 9:30 / /",
    "Он встретил Анну Каренину 5 мая": "5 / / Анну Каренину",
    "Nov. 4 and 4 Nov are a day, 40 November is none": "40 / 4 Nov / November",
    "": "/ /",
}


@pytest.mark.parametrize(("line", "labels"), LABELLED.items())
def test_items_of_lines_that_a_person_has_labelled(line, labels):
    numbers, dates, names = (part.strip() for part in labels.split("/"))
    wanted = {("numbers", one) for one in numbers.split()}
    wanted |= {("dates", dates)} if dates else set()
    wanted |= {("names", name.strip()) for name in names.split("|") if name}
    assert items_of(line) == wanted


def test_share_of_the_items_that_stand_in_the_source():
    source = "Ada Lovelace met Charles on 3 March 1833. They spent 1,000 pounds."
    outputs = ["It was Ada Lovelace.", "It was Ada Charles on March 3, with 1000 pounds, in 1834.", "Nothing."]
    ratios = support_ratios(outputs, [source] * 3)
    assert [list(part) for part in ratios["source_precision"]] == [[100, 200, 0], [1, 4, 0]]
    assert [list(part) for part in ratios["source_precision_names"]] == [[100, 0, 0], [1, 1, 0]]
    assert [list(part) for part in ratios["source_precision_numbers"]] == [[0, 100, 0], [0, 2, 0]]
    assert [list(part) for part in ratios["source_precision_dates"]] == [[0, 100, 0], [0, 1, 0]]


def test_real_references_extracts_and_shuffled_ones(real_data):
    lines = (real_data / "cnn_dailymail/validation.jsonl").read_text(encoding="utf-8").splitlines()[:200]
    rows = [json.loads(line) for line in lines]
    sources, references = [row["article"] for row in rows], [row["highlights"] for row in rows]
    extracts = bounded(support_ratios([lead3(source) for source in sources], sources))
    own = bounded(support_ratios(references, sources))
    others = bounded(support_ratios([*references[1:], references[0]], sources))
    assert extracts["source_precision"] == 100
    assert 84 < own["source_precision_low"] < own["source_precision"] < 95
    assert others["source_precision_high"] < 10
