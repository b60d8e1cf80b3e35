"""The audit: its counts, baselines and model checks against slow or obvious ones, and the command line end to end."""

from __future__ import annotations

import copy
import json
import re
from itertools import accumulate

import numpy as np
import pytest
import torch

from gpt2_interp.audit import checks
from gpt2_interp.audit import counts as audit
from gpt2_interp.audit.__main__ import main
from gpt2_interp.audit.verdict import promises, report, table, with_bounds
from gpt2_interp.data.examples import TEMPLATES, ExampleBuilder
from gpt2_interp.errors import InputError, run_script
from gpt2_interp.evaluation.facts import states
from gpt2_interp.generation.generate import Generated
from gpt2_interp.model.load import load_trained
from gpt2_interp.statistics.intervals import estimate
from gpt2_interp.synthetic import rows as corpus
from gpt2_interp.synthetic.wordings import EVENTS
from tests.toy import N_EMBD, N_POSITIONS

NO_VALUE = {"value": None, "low": None, "high": None}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(corpus.news_rows(40, 3, "test"))


@pytest.fixture(scope="module")
def facts(rows) -> list[tuple[dict, dict]]:
    return [(row, fact) for row in rows for fact in row["facts"]]


@pytest.fixture(scope="module")
def toy(toy_base):
    """Model and tokenizer."""
    return load_trained(str(toy_base))


# --- counts ----------------------------------------------------------------------------------------------------


def test_an_occurrence_without_a_span_is_found(rows):
    row = rows[0]
    assert audit.unlabelled(row) == []
    who = row["facts"][0]
    longer = {**row, "article": row["article"] + f" {who['stated']} left."}
    assert audit.unlabelled(longer) == [f"{row['id']}: {form}" for form in who["forms"]]


def test_association():
    labels = np.arange(60) % 3
    assert audit.association(labels, labels) == pytest.approx(1)
    assert audit.association(labels, np.arange(60) // 3 % 4) == pytest.approx(0)


def test_a_value_that_goes_with_the_event_is_found():
    plans = [corpus.news_plan("train", 0, index) for index in range(200)]
    real, by_chance = audit.strongest_association(plans)
    assert real < 1.2 * by_chance
    telling = {event: plan.values["who"] for event, plan in plans}
    for event, plan in plans:
        plan.values["who"] = telling[event]
    assert audit.strongest_association(plans)[0] > 2 * by_chance


def test_gold_positions(rows):
    shares, p = audit.gold_positions(rows)
    assert sum(shares) == pytest.approx(1, abs=0.01) and p > 0.001
    firsts = [{**row, "facts": []} for row in rows]
    for row in firsts:
        row["facts"] = [{"sentence_span": list(checks.sentence_spans(row)[0])}]
    shares, p = audit.gold_positions(firsts)
    assert shares == [1, 0, 0, 0, 0] and p < 0.001


def test_value_share_of_words_and_of_tokens(toy):
    row = {"article": "In Port Bell she sang.", "facts": [{"value_spans": [[3, 12]]}]}
    assert audit.value_share([row]) == pytest.approx(2 / 5)
    ends = list(accumulate(len(toy[1].decode([i])) for i in toy[1](row["article"])["input_ids"]))
    inside = [start < 12 and end > 3 for start, end in zip([0, *ends], ends, strict=False)]
    assert audit.value_share([row], toy[1]) == pytest.approx(np.mean(inside))


def test_a_held_out_value_elsewhere_is_found(monkeypatch):
    assert audit.held_out_overlap(20) == {"values": 0, "pairs": 0, "wordings": 0}
    plan = corpus.news_plan
    monkeypatch.setattr(audit, "news_plan", lambda split, seed, index: plan("train", seed, index))
    assert all(audit.held_out_overlap(20).values())


# --- baselines -------------------------------------------------------------------------------------------------


def test_central_sentences_keep_their_order():
    sentences = ["Red apples fell.", "A goat slept.", "Red apples rolled.", "Nobody came.", "Red apples were sold."]
    tfidf = audit.TfidfVectorizer(token_pattern=r"\w+").fit(sentences)
    assert audit.central_sentences(sentences, tfidf) == "\n".join(sentences[::2])


def test_string_match_finds_what_is_written_the_same(facts, rows):
    tfidf = audit.tfidf_of(rows)
    for row, fact in facts:
        found = audit.places(row, fact, tfidf)
        hit, chance = found["string match"]
        at_random, _ = found["string match, one at random"]
        assert 0 < chance < 0.1
        assert hit == (at_random > 0)
        if not fact["transformed"]:
            assert hit
        elif fact["type"] == "number":
            assert not hit
    scores = audit.baselines(rows)
    assert scores["place"]["string match"]["as written"]["value"] == 100
    assert scores["place"]["position"]["chance"] == pytest.approx(
        np.mean([100 / len(checks.sentence_spans(row)) for row in rows])
    )
    assert 0 < scores["facts"]["lead-3"]["fact_recall"] < 40


def test_estimate_counts_facts_and_resamples_rows():
    values = np.array([[100.0, 0.0], [100.0, np.nan], [np.nan, np.nan]])
    numbers = estimate(values)
    assert numbers["value"] == pytest.approx(200 / 3)
    assert numbers["low"] == 50 and numbers["high"] == 100
    assert estimate(values[2:]) == NO_VALUE
    assert estimate(values[:1]) == {"value": 50, "low": None, "high": None}


# --- deletions -------------------------------------------------------------------------------------------------


def test_delete():
    text = "One came. Two left. Three slept."
    spans = [(0, 9), (10, 19), (20, 32)]
    assert checks.delete(text, []) == text
    assert checks.delete(text, spans[1:2]) == "One came. Three slept."
    assert checks.delete(text, [spans[2], spans[0]]) == "Two left."
    assert checks.delete(text, [(0, 9), (4, 19)]) == "Three slept."
    assert checks.delete(text, spans) == ""


def test_deletions_of_real_rows(facts):
    for row, fact in facts:
        texts, (_, plan) = checks.deletions(row, fact), checks.plan_of(row)
        assert texts["whole article"] == row["article"]
        assert texts["gold sentence alone"] == row["article"][slice(*fact["sentence_span"])]
        assert not states(texts["all mentions deleted"], fact["forms"])
        assert states(texts["gold sentence deleted"], fact["forms"]) == (len(fact["value_spans"]) > 1)
        assert len(texts["all mentions deleted"]) <= len(texts["gold sentence deleted"]) < len(row["article"])
        assert not any(re.search(r"  |^ | $", text) for text in texts.values())
        chances = {name: checks.chance(text, fact, plan) for name, text in texts.items()}
        assert 1 / 4 < chances["whole article"] <= 1 / 2
        assert chances["gold sentence alone"] == 1
        assert chances["all mentions deleted"] == chances["no source (the prior)"] == 0


def test_slot_accuracy_of_a_model_that_says_what_its_source_says(toy, rows, monkeypatch):
    model, tokenizer = toy
    asked = [(checks.told_before(row, fact), fact) for row in rows[:10] for fact in row["facts"]]

    def reader(model, tokenizer, prompts, *_, **__):
        for prompt in map(tokenizer.decode, prompts):
            source, told = prompt.split("\nTL;DR:")
            known = [fact["stated"] for before, fact in asked if before == told and states(source, fact["forms"])]
            yield [Generated((), f"{known[0]} and more" if known else "nothing", "length", None)]

    monkeypatch.setattr(checks, "generate", reader)
    builder = ExampleBuilder(tokenizer, "summarization", 1000, 64, 2000)
    scores = checks.slot_accuracy(model, builder, rows[:10])
    recur = [[100.0 * (len(fact["value_spans"]) > 1) for fact in row["facts"]] for row in rows[:10]]
    for i, slot in enumerate(corpus.SLOTS):
        assert scores["whole article"][slot]["value"] == scores["gold sentence alone"][slot]["value"] == 100
        assert scores["gold sentence deleted"][slot]["value"] == pytest.approx(np.mean(recur, axis=0)[i])
    assert scores["all mentions deleted"]["all"]["value"] == scores["no source (the prior)"]["all"]["value"] == 0


def test_each_slot_of_each_event_can_be_asked_for():
    rows = {row["event"]: row for row in corpus.news_rows(300, 0, "test")}
    assert len(rows) == len(EVENTS)
    for row in rows.values():
        for fact in row["facts"]:
            told = checks.told_before(row, fact)
            assert told.startswith(" ") and not told.endswith((" ", "\n")) and not states(told, fact["forms"])


def test_a_value_is_said_next_as_whole_words():
    fact = {"slot": "how_many", "type": "number", "stated": "47", "distractors": ["12"]}
    assert checks.begins_with("47 votes", fact, [fact]) and checks.begins_with("forty-seven votes", fact, [fact])
    assert not checks.begins_with("471 votes", fact, [fact]) and not checks.begins_with("by 47 votes", fact, [fact])


def test_a_surname_behind_a_wrong_first_name_is_not_its_person():
    fact = {"slot": "who", "type": "person", "stated": "Ada Tovick", "distractors": ["Calek Oxidge"]}
    assert checks.begins_with("Ada Tovick left", fact, [fact]) and checks.begins_with("Tovick left", fact, [fact])
    assert not checks.begins_with("Ba Tovick left", fact, [fact])


# --- twins -----------------------------------------------------------------------------------------------------


def test_twins_have_as_many_tokens_in_both_tokenizers(toy, rows, toy_base):
    class Characters:
        """A second tokenizer: one token a character."""

        def __call__(self, text, **_):
            return {"input_ids": list(text)}

    count = checks.token_counter([toy[1], Characters()])
    for row in rows[:10]:
        for slot in corpus.SLOTS:
            other = checks.equal_twin(row, slot, count)
            if other:
                assert other["article"] != row["article"]
                assert count(other["article"]) == count(row["article"])
                assert count(" " + other["highlights"]) == count(" " + row["highlights"])
    assert checks.equal_twin(rows[0], "who", lambda text: (text,)) is None  # no text is as long as itself only


def slow_twin(model, tokenizer, row: dict, other: dict, max_source: int) -> tuple[float, float]:
    """twin_effect and whether both orders are right, from four log-probabilities of one pair."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    v, w = ids(" " + row["highlights"]), ids(" " + other["highlights"])
    at = next(i for i in range(len(v)) if v[i] != w[i])

    def log_p(source: dict, token: int) -> float:
        prompt = ids(source["article"])[:max_source] + ids(TEMPLATES["summarization"])
        with torch.no_grad():
            logits = model(torch.tensor([prompt + v[:at]])).logits[0, -1]
        return float(logits.log_softmax(0)[token])

    first = log_p(row, v[at]) - log_p(row, w[at])
    second = log_p(other, w[at]) - log_p(other, v[at])
    return (first + second) / 2, float(first > 0 and second > 0)


def test_twins_against_one_pair_at_a_time(toy, rows):
    model, tokenizer = copy.deepcopy(toy[0]), toy[1]
    with torch.no_grad():  # tokens that were read often are likely to follow: some pairs come out right, others wrong
        for block in model.transformer.h:
            block.attn.c_attn.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        first = model.transformer.h[0].attn
        first.c_attn.weight[:, -N_EMBD:] = torch.eye(N_EMBD)
        first.c_proj.weight.copy_(10 * torch.eye(N_EMBD))
    result = checks.twin_test(model, _builder(tokenizer), rows[:12], [tokenizer])
    count = checks.token_counter([tokenizer])
    for i, row in enumerate(rows[:12]):
        for j, slot in enumerate(corpus.SLOTS):
            other = checks.equal_twin(row, slot, count)
            effect, right = slow_twin(model, tokenizer, row, other, 256) if other else (np.nan, np.nan)
            assert result["effect"][i, j] == pytest.approx(effect, abs=1e-4, nan_ok=True)
            assert result["right"][i, j] == pytest.approx(right, nan_ok=True)
    assert {0, 1} <= set(result["right"].ravel())


def test_a_pair_without_a_twin_is_counted_and_not_kept(toy, rows, monkeypatch):
    model, tokenizer = toy
    make = checks.equal_twin
    monkeypatch.setattr(
        checks, "equal_twin", lambda row, slot, count: make(row, slot, count) if slot != "who" else None
    )
    monkeypatch.setattr(checks, "slot_accuracy", lambda *_: {})
    everything_right = {"effect": np.ones((3, 4)), "right": np.ones((3, 4))}
    real = checks.twin_test(model, _builder(tokenizer), rows[:3], [tokenizer])
    assert np.isnan(real["right"][:, 0]).all() and np.isfinite(real["right"][:, 1:]).all()
    for name in everything_right:
        everything_right[name][0, 0] = np.nan
    monkeypatch.setattr(checks, "twin_test", lambda *_: everything_right)
    found = checks.check_model("anywhere/at/all", model, tokenizer, rows[:3])
    assert found["twins"]["who"]["pairs"] == 2 and found["twins"]["who"]["no twin"] == 1
    assert found["twins"]["all"]["accuracy"]["value"] == 100
    assert found["kept"]["rows"]["value"] == pytest.approx(200 / 3)
    assert found["kept"]["pairs"]["value"] == pytest.approx(1100 / 12)


def _builder(tokenizer) -> ExampleBuilder:
    return ExampleBuilder(tokenizer, "summarization", 256, 64, N_POSITIONS)


# --- models ----------------------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_run(tmp_path):
    assert checks.trained_lengths(str(tmp_path)) == (256, 64)
    trained = {"task": "summarization", "max_source_length": 300, "max_target_length": 50}
    (tmp_path / "task.json").write_text(json.dumps(trained))
    assert checks.trained_lengths(str(tmp_path)) == (300, 50)
    (tmp_path / "task.json").write_text(json.dumps({**trained, "task": "creative_writing"}))
    with pytest.raises(InputError, match="creative_writing"):
        checks.trained_lengths(str(tmp_path))


# --- verdicts and text -----------------------------------------------------------------------------------------


def test_table_and_bounds():
    assert table(["", "one"], [["a", 1], ["long", 22]]) == ["      one", "a       1", "long   22"]
    assert with_bounds({"value": 97.5, "low": 95, "high": 99.12}) == "97.5 [95.0, 99.1]"
    assert with_bounds({"value": 97.5, "low": None, "high": None}) == "97.5"
    assert with_bounds(NO_VALUE) == "-"


def model_result(alone: float, deleted: float, kept: float) -> dict:
    accuracy = {"gold sentence alone": alone, "all mentions deleted": deleted, "no source (the prior)": 0}
    return {
        "slot accuracy": {name: {"all": {"value": value}} for name, value in accuracy.items()},
        "twins": {"all": {"pairs": 99, "no twin": 1}},
        "kept": {"pairs": {"value": kept}},
    }


@pytest.mark.parametrize(
    "alone, deleted, kept, verdicts",
    [(95, 0.5, 60, [True, True, True]), (50, 0, 20, [True, None, None]), (95, 10, 60, [True, False, True])],
)
def test_verdicts_that_need_a_model(alone, deleted, kept, verdicts):
    result = {"counts": {"test": audit.audit_split("test", 20)}, "test in other splits": {"values": 0}, "model": None}
    assert [one["kept"] for one in promises(result) if one["found"] == "needs a model"] == [None] * 3
    found = promises(result | {"model": model_result(alone, deleted, kept)})
    assert [found[i]["kept"] for i in (4, 6, 7)] == verdicts


# --- the command line ------------------------------------------------------------------------------------------


def test_audit_of_the_toy_model(toy_base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["--audit", "--json", "--count", "6", "--model_path", str(toy_base), "--tokenizer_name", str(toy_base)]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["promises"]) == 8 and result["promises"][0]["kept"] is True
    for split in corpus.SPLITS:
        counts = result["counts"][split]
        assert counts["rows"] == 30 and counts["unlabelled occurrences"] == 0
        assert 0 < counts["value share of words"] < counts[f"value share of tokens ({toy_base})"] < 0.3
    assert result["test in other splits"] == {"values": 0, "pairs": 0, "wordings": 0}
    assert result["baselines"]["place"]["string match"]["as written"]["value"] == 100
    model = result["model"]
    assert model["rows"] == 6
    assert model["twins"]["all"]["pairs"] + model["twins"]["all"]["no twin"] == 24
    assert list(model["slot accuracy"]) == list(checks.deletions(next(corpus.news_rows(1)), _fact()))
    assert model["slot accuracy"]["all mentions deleted"]["all"]["chance"] == 0
    assert model["slot accuracy"]["gold sentence alone"]["all"]["chance"] == 100
    assert model["kept"]["rows"]["value"] <= model["kept"]["pairs"]["value"]
    text = report(result)
    assert (
        "no ground truth" in text
        and "coin flips" in text
        and max(map(len, text.splitlines())) <= 160 + len(str(toy_base))
    )


def _fact() -> dict:
    return next(corpus.news_rows(1))["facts"][0]


def test_audit_without_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--audit", "--count", "1"]) == 0
    text = capsys.readouterr().out
    assert "./run_experiment.sh makes it" in text
    assert "needs a model" in text and "string match" in text


@pytest.mark.parametrize("made", [False, True])
def test_a_wrong_model_path_is_one_sentence(made, tmp_path, capsys):
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: main(["--audit", "--count", "2", "--model_path", str(folder)]))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and str(folder) in line


def test_flags_of_the_audit_need_it():
    with pytest.raises(SystemExit):
        main(["--json"])
