import json
from collections import Counter

import pytest

from gpt2_interp.examples import Example
from gpt2_interp.probes import ProbeSet, choose_probes


def example(name: str, n_source: int, n_target: int, n_template: int = 3) -> Example:
    """Tokens say where they come from: source 1000 + i, template 2000 + i, target 3000 + i."""
    return Example(
        name,
        f"cluster of {name}",
        tuple(range(1000, 1000 + n_source)),
        tuple(range(2000, 2000 + n_template)),
        tuple(range(3000, 3000 + n_target)),
    )


CORPUS = [example(str(k), 20 + k % 200, 10 + k % 30) for k in range(600)]


def test_same_probes_for_the_same_seed_only():
    assert choose_probes(CORPUS, seed=1) == choose_probes(CORPUS, seed=1)
    assert choose_probes(CORPUS, seed=1) != choose_probes(CORPUS, seed=2)


def test_count_is_kept_and_lengths_are_spread_evenly():
    probes = choose_probes(CORPUS, count=100)
    assert len(probes.examples) == len({e.id for e in probes.examples}) == 100
    assert probes.notes == ()
    quartiles = sorted(len(e.input_ids) for e in CORPUS)[149::150]
    where = Counter(sum(len(e.input_ids) > q for q in quartiles[:3]) for e in probes.examples)
    assert all(23 <= where[quarter] <= 27 for quarter in range(4))


def test_a_small_corpus_gives_fewer_and_says_so():
    probes = choose_probes(CORPUS[:8])
    assert len(probes.examples) == 8
    assert probes.notes == ("8 probes instead of 256: 8 examples are held out.",)


def test_short_examples_first_then_sources_are_cut_and_targets_kept():
    held_out = [example("fits", 200, 20), example("long source", 448, 60), example("long target", 300, 90)]
    probes = choose_probes(held_out)
    assert [(e.id, len(e.source_ids), len(e.target_ids)) for e in probes.examples] == [
        ("fits", 200, 20),
        ("long source", 256, 60),
        ("long target", 256, 90),
    ]
    assert all(e.source_ids[0] == 1000 for e in probes.examples)  # cut at the end
    assert any("The source of 1 of the probes was cut to 256" in note for note in probes.notes)
    assert any("longer than 64" in note for note in probes.notes)
    only_fitting = choose_probes([*CORPUS, *held_out], count=256)
    assert all(len(e.source_ids) <= 256 and len(e.target_ids) <= 64 for e in only_fitting.examples)
    assert only_fitting.notes == ()


def test_very_long_targets_cost_no_more_than_a_full_set():
    stories = [example(str(k), 30, 700 + k) for k in range(300)]
    probes = choose_probes(stories, count=64)
    assert 0 < sum(len(e.input_ids) for e in probes.examples) <= 64 * 320
    assert probes.examples[0].id == "0"  # the shortest
    assert "cost too many tokens" in probes.notes[0]
    assert len(choose_probes(stories, count=1).examples) == 1  # one is measured whatever it costs


def test_pattern_probes_are_short():
    probes = choose_probes(CORPUS)
    assert len(probes.pattern_examples) == 4
    assert all(len(e.input_ids) <= 96 and e in CORPUS for e in probes.pattern_examples)


def test_pattern_probes_are_cut_from_the_source_when_nothing_is_short():
    probes = choose_probes([example("a", 448, 60), example("b", 400, 60), example("c", 448, 95)])
    by_id = {e.id: e for e in probes.pattern_examples}
    assert len(by_id["b"].input_ids) == 96
    assert len(by_id["b"].target_ids) == 60 and len(by_id["b"].template_ids) == 3
    assert by_id["b"].source_ids == tuple(range(1000, 1033))
    assert len(by_id["c"].input_ids) == 96 and not by_id["c"].target_ids  # 95 + 3 leave no room: its first 96 tokens
    assert any("cut to 96" in note for note in probes.notes)
    assert any("without their whole target" in note and note.endswith("c.") for note in probes.notes)


def test_plain_text_has_only_a_target():
    probes = choose_probes([example(str(k), 0, 100 + k, n_template=0) for k in range(3)])
    assert [len(e.input_ids) for e in probes.examples] == [100, 101, 102]
    assert all(e.target_ids == tuple(range(3000, 3096)) for e in probes.pattern_examples)


def test_nothing_held_out():
    with pytest.raises(ValueError, match="at least one"):
        choose_probes([])


def test_description_reads_like_text(real_data):
    from transformers import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(real_data / "gpt2_tokenizer")
    source, target = tokenizer("The café, 東京")["input_ids"], tokenizer(" opened")["input_ids"]
    one = Example("7", "event 3", tuple(source), (), tuple(target))
    description = json.loads(json.dumps(ProbeSet((one,), (one,), ("a note",)).describe(tokenizer)))
    assert description["example"] == [
        {"id": "7", "cluster": "event 3", "n_source": len(source), "n_template": 0, "n_target": 1}
    ]
    pattern = description["pattern"][0]
    assert pattern["tokens"][:3] == ["The", " café", ","] and pattern["tokens"][-1] == " opened"
    assert len(pattern["tokens"]) == len(pattern["token_ids"]) == len(source) + 1
    assert not any("\ufffd" in token for token in pattern["tokens"])
    assert description["notes"] == ["a note"]
