"""The promises of the embedded corpus, on a few hundred rows of each split."""

from __future__ import annotations

import hashlib
import itertools
import json
import re

import pytest

from gpt2_interp.audit import counts as audit
from gpt2_interp.audit.__main__ import main
from gpt2_interp.evaluation import facts
from gpt2_interp.synthetic import rows as corpus
from gpt2_interp.synthetic import running_text, wordings, world

# The text is frozen: the embedded base model was trained on it. If one of these changes, the base must be trained anew.
SHA256 = {
    "synthetic_news": "7f54be0122ad0b85c543556892623af45d2df00700cc6b5fa964ad03c0709f89",
    "synthetic_stories": "8b2531821e072ae4a3b7f2c19cc4fbb37d05d00bdf251c8e912df5e27eea1ac5",
    "pretraining": "d9df31a628c400f077326214036c0d4a027b7555b2189b0c2df206813d2fb8ef",
}
A_BEFORE_CONSONANT = ("one", "once", "uni", "use", "usu", "eu")  # "a one-way street", "a union"


def every_wording() -> list[str]:
    blocks = [wordings.NEWS, wordings.STORIES, *wordings.EVENTS.values(), *wordings.PLOTS.values()]
    return [text for block in blocks for lists in block.values() for texts in lists for text in texts]


def digest(rows) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update((json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return total.hexdigest()


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    return {split: list(corpus.news_rows(200, 7, split)) for split in corpus.SPLITS}


@pytest.fixture(scope="module")
def tales() -> dict[str, list[dict]]:
    return {split: list(corpus.story_rows(100, 7, split)) for split in corpus.SPLITS}


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_spans_point_at_what_they_claim(rows, split):
    for row in rows[split]:
        article = row["article"]
        assert [fact["slot"] for fact in row["facts"]] == list(corpus.SLOTS)
        for fact in row["facts"]:
            first, *_ = spans = fact["value_spans"]
            assert {article[a:b] for a, b in spans} <= {fact["value"], *fact["forms"]}
            assert article[slice(*first)] == fact["value"]
            a, b = fact["highlight_span"]
            assert row["highlights"][a:b] == fact["stated"]
            start, end = fact["sentence_span"]
            assert start == 0 or article[start - 1] == " "
            assert article[end - 1] in '."'
            assert fact["value"] in article[start:end]
            assert fact["cue_spans"] and all(start <= a < b <= end for a, b in fact["cue_spans"])
            assert all(b <= c or d <= a for a, b in spans for c, d in fact["cue_spans"])
            assert fact["transformed"] == (fact["value"] != fact["stated"])


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_every_occurrence_of_a_value_is_labelled(rows, split):
    assert [missing for row in rows[split] for missing in audit.unlabelled(row)] == []


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_each_value_has_two_distractors_that_the_article_states(rows, split):
    for row in rows[split]:
        for fact in row["facts"]:
            assert len(set(fact["distractors"]) - set(fact["forms"])) >= 2
            assert all(facts.states(row["article"], [text]) for text in fact["distractors"])


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_counts(split):
    counts = audit.audit_split(split, 250, 7)
    assert 100 <= counts["words per article"] <= 150
    assert counts["transformed"] >= 0.3
    assert counts["value share of words"] <= 0.1
    assert counts["lead-3 fact recall"] < 0.45
    assert all(0.15 <= share <= 0.25 for share in counts["gold position by fifth"])


def test_the_shape_of_an_article_and_its_highlight(rows):
    for row in itertools.chain(*rows.values()):
        assert 85 <= len(row["article"].split()) <= 175
        first, second = row["highlights"].split("\n")
        assert first.endswith(".") and second.endswith(".")
        assert 16 <= len(row["highlights"].split()) <= 32


def test_people_and_towns_recur_gold_ones_no_more_than_others(rows):
    """A value that recurs must not be known by that."""
    for slot in ("who", "where"):
        facts_ = [(row, fact) for row in rows["train"] for fact in row["facts"] if fact["slot"] == slot]
        gold = [len(fact["value_spans"]) for _, fact in facts_]
        others = [
            len(list(facts.occurrences(row["article"], text.split()[-1])))
            for row, fact in facts_
            for text in fact["distractors"]
        ]
        assert sum(n > 1 for n in gold) > 0.4 * len(gold)
        assert sum(gold) / len(gold) < 1.1 * sum(others) / len(others)


def test_test_split_shares_nothing_with_the_others():
    assert audit.held_out_overlap(150, 7) == {"values": 0, "pairs": 0, "wordings": 0}


def test_no_wording_is_both_held_out_and_not():
    for block in [wordings.NEWS, wordings.STORIES, *wordings.EVENTS.values(), *wordings.PLOTS.values()]:
        for name, (seen, test) in block.items():
            assert not set(seen) & set(test), name


def test_a_dozen_events_and_plots_with_enough_wordings():
    assert len(wordings.EVENTS) >= 12 and len(wordings.PLOTS) >= 12
    for event, parts in wordings.EVENTS.items():
        assert len(parts["highlights"][0]) >= 3, event
        for part in ("opener", *corpus.SLOTS, "distractor", "quote", "background"):
            assert len(parts[part][0]) >= 6 and len(parts[part][1]) >= 2, (event, part)


def test_no_wording_brings_a_number_a_month_or_a_weekday():
    words = [word for word in world.UNITS + world.TENS if word not in ("zero", "one", "two")] + list(world.WEEKDAYS)
    months = [month for month in world.MONTHS if month not in ("May", "March")]
    found = re.compile(rf"\b({'|'.join([*words, *months])})\b|\d")
    for block in [wordings.NEWS, *wordings.EVENTS.values()]:
        for lists in block.values():
            assert [text for texts in lists for text in texts if found.search(text)] == []


def test_a_and_an(rows, tales):
    texts = [row["article"] + " " + row["highlights"] for row in itertools.chain(*rows.values())]
    texts += [row["prompt"] + " " + row["story"] for row in itertools.chain(*tales.values())]
    for text in texts:
        for match in re.finditer(r"\b[Aa] ([aeiou]\w*)", text):
            assert match.group(1).startswith(A_BEFORE_CONSONANT), match.group()
        for match in re.finditer(r"\b[Aa]n (\w+)", text):
            assert match.group(1)[0] in "aeiouAEIOU" or match.group(1) in ("hour", "honest", "honour"), match.group()


def test_sentences_are_whole(rows, tales):
    texts = [row["article"] for row in itertools.chain(*rows.values())]
    texts += [row["story"] for row in itertools.chain(*tales.values())]
    for text in texts:
        assert not re.search(r"[{}\[\]|~]|  | [.,]|\.\.|,,|//", text)
        assert not re.search(r'[.?!]"? [a-z]', re.sub(r'\?" asked|\."? [A-Z]', "", text)), text


def test_rows_do_not_depend_on_the_count():
    for make in (corpus.news_rows, corpus.story_rows):
        assert list(make(5, 3)) == list(make(12, 3))[:5]
        assert list(make(5, 3)) != list(make(5, 4))
        assert [row["id"] for row in make(2, 3, "test")][1].endswith("-test-3-000001")
    assert list(running_text.pretraining_texts(5)) == list(running_text.pretraining_texts(9))[:5]


@pytest.mark.parametrize("slot", list(corpus.SLOTS))
def test_a_twin_changes_its_fact_and_nothing_else(rows, slot):
    for row in rows["train"][:20] + rows["test"][:20]:
        other = corpus.twin(row, slot, seed=1)
        assert audit.unlabelled(other) == []
        for old, new in zip(row["facts"], other["facts"], strict=True):
            assert (old["stated"] != new["stated"]) == (old["slot"] == slot)
            assert len(old["value_spans"]) == len(new["value_spans"])
        old, new = (next(fact for fact in one["facts"] if fact["slot"] == slot) for one in (row, other))
        text = other["article"]
        for (a, b), (c, d) in reversed(list(zip(new["value_spans"], old["value_spans"], strict=True))):
            text = text[:a] + row["article"][c:d] + text[b:]
        assert text == row["article"]
        assert other["highlights"].replace(new["stated"], old["stated"]) == row["highlights"]
        assert other == corpus.twin(row, slot, seed=1) != corpus.twin(row, slot, seed=2)


def test_a_twin_may_be_asked_to_be_as_long(rows):
    for row in rows["train"][:20] + rows["test"][:20]:
        other = corpus.twin(row, "who", same_length=lambda old, new: len(old) == len(new))
        assert len(other["article"]) == len(row["article"])


def test_a_twin_is_measured_with_the_space_that_training_puts_before_a_highlight(rows):
    for row in rows["train"]:
        fact = next((fact for fact in row["facts"] if fact["highlight_span"][0] == 0), None)
        if fact and not row["article"].startswith(fact["value"]):
            asked = []
            corpus.twin(row, fact["slot"], same_length=lambda old, new, asked=asked: asked.append(old) or True)
            assert asked and all(old.startswith(" ") for old in asked)


def test_a_twin_that_cannot_be_is_an_error(rows):
    with pytest.raises(ValueError, match="same length"):
        corpus.twin(rows["train"][0], "who", same_length=lambda old, new: False)


def test_stories_do_what_the_prompt_asks(tales):
    for row in itertools.chain(*tales.values()):
        assert 80 <= len(row["story"].split()) <= 170
        assert 12 <= len(row["prompt"].split()) <= 36
        for fact in row["facts"]:
            a, b = fact["highlight_span"]
            assert row["prompt"][a:b] == fact["stated"]
            assert row["story"][slice(*fact["value_spans"][0])] == fact["value"]


def test_pretraining_text_has_no_highlight_and_no_prompt():
    texts = list(running_text.pretraining_texts(300))
    prompts = re.compile(r"^(Write a story|Tell how|A tale from)|Tell the story so")
    assert not any(prompts.search(text) for text in texts)
    targets = {row["highlights"].split("\n")[0] for row in corpus.news_rows(300, 0, "pretrain")}
    assert not any(target in text for text in texts for target in targets)


def test_each_fact_can_be_told_again_with_its_cue_first():
    """Two wordings at least, for one of them may be the article's own."""
    keys = {"who": "who", "where": "where", "how_many": "n", "when": "d"}
    for event, parts in wordings.EVENTS.items():
        for slot, key in keys.items():
            told = [wording for wording in parts[slot][0] if wording.index("[") < wording.index(f"{{{key}}}")]
            assert len(told) >= 2, (event, slot)


def test_pretraining_text_has_no_name_of_split_test():
    held_out = {word for kind in ("first", "surname", "place") for word in world._pool(kind, True)}
    seen = {word for text in running_text.pretraining_texts(2000) for word in re.findall(r"[A-Z][a-z]+", text)}
    assert len(seen) > 1000
    assert held_out & seen == set()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="split must be one of"):
        next(corpus.news_rows(1, split="dev"))
    with pytest.raises(ValueError, match="count"):
        next(corpus.story_rows(-1))


def test_command_line(capsys):
    assert main(["--source", "synthetic_stories", "--count", "2", "--jsonl"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()][1] == "stories-train-0-000001"
    assert main(["--count", "1", "--split", "test"]) == 0
    assert "distractors:" in capsys.readouterr().out


def test_the_bytes_are_frozen():
    assert {
        "synthetic_news": digest(corpus.news_rows(1000)),
        "synthetic_stories": digest(corpus.story_rows(1000)),
        "pretraining": digest(running_text.pretraining_texts(1000)),
    } == SHA256
