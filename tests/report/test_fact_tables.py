"""Tables of facts: of runs scored strictly, of older ones, and of files in another shape."""

from __future__ import annotations

import json

import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.outputs import read_scores
from gpt2_interp.report.fact_tables import fact_errors, facts_missing, facts_of_row
from gpt2_interp.report.page import write_run_report
from gpt2_interp.report.score_tables import score_sentences, score_table
from gpt2_interp.run_paths import RunPaths
from tests.fake_store import write_fake_run

STRICT = {"n": 9, "fact_recall": 60.0, "fact_recall_lenient": 66.0, "fact_precision": 64.0, "rows_right": 20.0}
STRICT |= {f"fact_{kind}{end}": 12.0 for kind in ("distractor", "blend", "made_up") for end in ("", "_low", "_who")}
OLD = {"n": 9, "fact_recall": 66.0, "fact_recall_low": 60.0, "fact_recall_high": 70.0, "fact_recall_who": 71.0}


@pytest.fixture
def paths(tmp_path) -> RunPaths:
    write_fake_run(tmp_path, steps=(0,))
    return RunPaths("fake", tmp_path)


def read(paths: RunPaths, metrics: dict) -> dict:
    (paths.model_outputs / "metrics.json").write_text(json.dumps(metrics))
    return read_scores(paths)[0]


def test_strict_scores_are_shown_with_what_the_wrong_values_are(paths):
    paired = {"n": 9, "fact_recall": 59.0, "fact_recall_low": 55.0, "fact_recall_high": 63.0}
    scores = read(paths, {"tuned": STRICT, "base": STRICT, "tuned_minus_base": paired, "fact_rule": "strict"})
    columns = score_table(scores)["columns"]
    assert columns == ["facts stated (%)", "values right (%)", "rows all right (%)", "rows scored"]
    assert facts_missing(scores) == ""
    table = fact_errors(scores)
    assert [(name, [str(cell) for cell in cells][2:]) for name, cells in table["rows"]] == [
        ("all", ["12.0"] * 3),
        ("who", ["12.0"] * 3),
    ]
    assert any("59.0 (55.0 to 63.0)" in sentence for sentence in score_sentences(scores))


def test_an_older_run_is_shown_with_what_is_missing_named(paths):
    scores = read(paths, {"tuned": OLD, "base": OLD})
    assert score_table(scores)["columns"] == ["facts in any form (%)", "rows scored"]
    assert scores["tuned"]["fact_recall_lenient_who"] == 71 and "fact_recall" not in scores["tuned"]
    assert fact_errors(scores) is None
    page = write_run_report(Measurements(paths)).read_text(encoding="utf-8")
    for text in (facts_missing(scores), page):
        assert "fact_precision" in text and "rows_right" in text and "older version" in text


def test_real_text_has_the_references_beside_the_outputs():
    scores = {"n": 9, "source_precision": 80.0}
    table = score_table({"base": scores, "tuned": scores, "reference": {"n": 9, "source_precision": 90.0}})
    assert table["columns"] == ["in the source (%)", "rows scored"]
    assert [(name, str(cells[0])) for name, cells in table["rows"]][-1] == ("references", "90.0")


def test_marks_of_one_row():
    fact = {"slot": "who", "value": "Ada Bo", "tuned": False, "base": False, "lead3": True}
    written = [
        {"slot": "who", "text": "Ba Bo", "kind": "made_up"},
        {"slot": "who", "text": "Ba Bo", "kind": "made_up"},
        {"slot": "when", "text": "3 May", "kind": "right"},
    ]
    strict = facts_of_row({"facts": [fact], "values": {"tuned": written, "base": []}})
    assert strict["rows"] == [("who", ["Ada Bo", "Ba Bo (made up)", "–", "–"])]
    old = facts_of_row({"facts": [fact]})
    assert old["rows"] == [("who", ["Ada Bo", "no", "no", "yes"])] and "any form" in old["columns"][1]


@pytest.mark.parametrize("row", [{}, {"facts": 3}, {"facts": [3]}, {"facts": []}])
def test_a_row_without_facts_has_no_marks(row):
    assert facts_of_row(row) is None


def test_marks_of_another_shape_are_survived():
    row = {"facts": [{"slot": "who"}], "values": {"tuned": 3, "base": [3, {"slot": "who"}]}}
    assert facts_of_row(row)["rows"][0][1][1:] == ["–", "None (None)", "–"]
