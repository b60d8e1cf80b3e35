import json
from collections import Counter
from dataclasses import replace

import pytest

from gpt2_interp.data.examples import Example, ExampleBuilder
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.probes.choose import affordable_entries, choose_probes
from gpt2_interp.probes.probe_set import GoldFact, ProbeSet, TwinPair, same_probes


def example(name: str, n_source: int, n_target: int, n_template: int = 3) -> Example:
    """Tokens say where they come from: source 1000 + i, template 2000 + i, target 3000 + i."""
    return Example(
        name,
        f"cluster of {name}",
        tuple(range(1000, 1000 + n_source)),
        tuple(range(2000, 2000 + n_template)),
        tuple(range(3000, 3000 + n_target)),
    )


def of_examples(notes):
    """Notes on the held-out examples themselves, without those on what else is missing."""
    return [note for note in notes if not note.startswith(("No ", "Random sequences"))]


CORPUS = [example(str(k), 20 + k % 200, 10 + k % 30) for k in range(600)]


def test_same_probes_for_the_same_seed_only():
    assert choose_probes(CORPUS, seed=1) == choose_probes(CORPUS, seed=1)
    assert choose_probes(CORPUS, seed=1) != choose_probes(CORPUS, seed=2)


def test_count_is_kept_and_lengths_are_spread_evenly():
    probes = choose_probes(CORPUS, count=100)
    assert len(probes.examples) == len({e.id for e in probes.examples}) == 100
    assert of_examples(probes.notes) == []
    quartiles = sorted(len(e.input_ids) for e in CORPUS)[149::150]
    where = Counter(sum(len(e.input_ids) > q for q in quartiles[:3]) for e in probes.examples)
    assert all(23 <= where[quarter] <= 27 for quarter in range(4))


def test_a_small_corpus_gives_fewer_and_says_so():
    probes = choose_probes(CORPUS[:8])
    assert len(probes.examples) == 8
    assert of_examples(probes.notes) == ["8 probes instead of 256: 8 examples are held out."]


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
    assert of_examples(only_fitting.notes) == []


def test_very_long_targets_cost_no_more_than_a_full_set():
    stories = [example(str(k), 30, 700 + k) for k in range(300)]
    probes = choose_probes(stories, count=64)
    assert 0 < sum(len(e.input_ids) for e in probes.examples) <= 64 * 320
    assert probes.examples[0].id == "0"  # the shortest
    assert any("cost too many tokens" in note for note in probes.notes)
    assert len(choose_probes(stories, count=1).examples) == 1  # one is measured whatever it costs


def test_pattern_probes_are_the_shortest_whole_ones():
    probes = choose_probes(CORPUS)
    shortest = sorted(len(e.input_ids) for e in CORPUS)[:4]
    assert [len(e.input_ids) for e in probes.pattern_examples] == shortest and not probes.patterns_at_ends
    assert all(e in CORPUS for e in probes.pattern_examples)
    long = [example(str(k), 100 + k, 40) for k in range(9)]  # 143 tokens and more
    assert [e.id for e in choose_probes(long, pattern_entries=2 * 144 * 145 // 2).pattern_examples] == ["0", "1"]
    rare = choose_probes(long, pattern_entries=1000)
    assert [e.id for e in rare.pattern_examples] == ["0"] and rare.patterns_at_ends
    assert any("143 tokens" in note and "first and the last snapshot" in note for note in rare.notes)


def test_pattern_probes_have_all_their_facts_in_view():
    def gold(e):
        return tuple(GoldFact("who", (40,), (k,), (k,), ()) for k in range(int(e.id) % 3))

    def values(e):
        return [(f"slot {k}", (len(e.prompt_ids) + k,)) for k in range(2)]

    held_out = [example(str(k), 30 + k, 10) for k in range(30)]
    probes = choose_probes(held_out, gold=gold, values=values)
    assert [e.id for e in probes.pattern_examples] == ["2", "5", "8", "11"]
    assert [len(facts) for facts in probes.pattern_gold] == [2, 2, 2, 2]
    described = probes.describe()["pattern"]
    assert described[0]["gold"][1] == {"slot": "who", "queries": [40], "value": [1], "sentence": [1], "control": []}
    none = choose_probes([e for e in held_out if int(e.id) % 3 < 2], gold=gold, values=values)
    assert len(none.pattern_examples) == 4 and any("known facts in view" in note for note in none.notes)


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
    entry = {
        "id": "7",
        "cluster": "event 3",
        "half": 0,
        "split": "validation",
        "n_source": len(source),
        "n_template": 0,
        "n_target": 1,
    }
    assert description["example"] == [{**entry, "token_ids": source + target}]
    assert description["few_example"] == [{**entry, "example": 0}]
    assert description["kl_example"] == [{**entry, "example": 0, "rows": [len(source) - 1]}]
    pattern = description["pattern"][0]
    assert pattern["tokens"][:3] == ["The", " café", ","] and pattern["tokens"][-1] == " opened"
    assert len(pattern["tokens"]) == len(pattern["token_ids"]) == len(source) + 1
    assert not any("\ufffd" in token for token in pattern["tokens"])
    assert description["notes"] == ["a note"]


def test_probes_are_told_apart_by_all_that_is_stored_of_them():
    probes = choose_probes(CORPUS[:20])
    described = json.loads(json.dumps(probes.describe()))
    older = {**described, "example": [{"id": entry["id"]} for entry in described["example"]]}
    del older["other_source"]
    assert same_probes(described, probes.describe()) and same_probes(older, probes.describe())
    described["example"][3]["token_ids"][0] += 1
    assert not same_probes(described, probes.describe())
    assert not same_probes({**older, "notes": ["another"]}, probes.describe())
    assert not same_probes({**older, "example": older["example"][1:]}, probes.describe())


# --- beside the held-out examples ---


def tuned_like(examples):
    """The same with an end-of-text token of their own, 7."""
    return [replace(e, target_ids=(*e.target_ids, 7)) for e in examples]


def test_held_out_examples_alone_are_enough_and_what_is_missing_is_said():
    probes = choose_probes(tuned_like(CORPUS))
    assert not (probes.training or probes.control or probes.twins or probes.gold)
    missing = ["No training rows", "No general text", "No probes of a test split", "No twins"]
    assert [note.split(":")[0] for note in probes.notes] == missing
    assert all(sequence[0] == 7 and 7 not in sequence[1:] for sequence in probes.sequences)
    assert len(probes.others) == 256 and None not in probes.others


def test_training_rows_and_general_text_change_nothing_about_the_held_out_ones():
    alone = choose_probes(CORPUS, seed=3)
    training = [example(f"t{k}", 500, 10 + k % 60) for k in range(5000)]
    control = [example(f"c{k}", 20 * (k % 2), 300 - k) for k in range(90)]
    probes = choose_probes(CORPUS, seed=3, training=training, control=control)
    assert (probes.examples, probes.pattern_examples) == (alone.examples, alone.pattern_examples)
    assert len(probes.training) == len({e.id for e in probes.training}) == 64
    assert {e.id for e in probes.training} <= {e.id for e in training}
    assert {len(e.source_ids) for e in probes.training} == {256}
    assert sorted(len(e.target_ids) for e in probes.training)[::16] == pytest.approx(
        [10, 24, 38, 51], abs=1
    )  # of 10 to 64
    assert "The source of 64 of the training rows was cut to 256 tokens." in probes.notes
    assert len(probes.control) == len({e.id for e in probes.control}) == 64
    whole = {e.id: e.input_ids for e in control}
    few = [probes.examples[i] for i in probes.few]
    for e, probe in zip(probes.control, few, strict=True):
        assert e.input_ids == whole[e.id][: len(probe.input_ids)]
        assert [len(e.source_ids), len(e.target_ids)] == [len(probe.source_ids), len(probe.target_ids)]
    assert [e.target_ids for e in probes.general] == [whole[e.id][:256] for e in probes.control]
    assert {"No training rows", "No general text"}.isdisjoint(note.split(":")[0] for note in probes.notes)


def test_training_rows_with_long_targets_are_the_shortest():
    probes = choose_probes(CORPUS, training=[example(f"t{k}", 30, 400 + k) for k in range(200)])
    assert [e.id for e in probes.training] == [f"t{k}" for k in range(len(probes.training))]
    assert 40 < len(probes.training) < 64 and sum(len(e.input_ids) for e in probes.training) <= 64 * 320
    assert f"Training rows: {len(probes.training)} instead of 64." in probes.notes


def test_twins_and_known_answers_are_of_the_probes_as_they_were_cut():
    pair = TwinPair("a", "c", "who", ((1,), (2,)), (3, 4))

    def gold(e):
        return () if e.id == "2" else (GoldFact("who", (len(e.source_ids),), (0,), (0, 1), ()),)

    held_out = [example(str(k), 300, 20) for k in range(4)]
    probes = choose_probes(held_out, twins=[pair] * 65, gold=gold)
    assert probes.twins == (pair,) * 64
    assert [[fact.queries for fact in facts] for facts in probes.gold] == [
        [] if e.id == "2" else [(256,)] for e in probes.examples
    ]
    assert not choose_probes(held_out, gold=lambda e: ()).gold
    assert "Twins: 1 instead of 64." in choose_probes(held_out, twins=[pair]).notes


def test_only_one_source_has_no_other():
    probes = choose_probes([example("a", 10, 5), example("b", 0, 5, n_template=0)])
    assert probes.others == (None, None)
    assert "1 of the probes have no other source to be compared with." in probes.notes
    assert choose_probes([example("b", 0, 5, n_template=0)]).others == ()


def test_patterns_take_what_a_snapshot_may_have():
    for n_layer, n_head in ((4, 4), (12, 12), (48, 25)):
        assert 2.9e6 < 2 * n_layer * n_head * affordable_entries(n_layer, n_head) <= 3e6


def test_probes_of_real_news_and_web_pages(real_data):
    tokenizer = load_tokenizer(str(real_data / "gpt2_tokenizer"))
    builder = ExampleBuilder(tokenizer, "summarization", 448, 64, 1024)

    def rows(name):
        lines = (real_data / "cnn_dailymail" / f"{name}.jsonl").read_text().splitlines()[:300]
        records = enumerate(map(json.loads, lines))
        return [{"id": str(i), "source": r["article"], "target": r["highlights"]} for i, r in records]

    pages = map(json.loads, (real_data / "webtext" / "train.jsonl").read_text().splitlines()[:200])
    control = [
        Example(str(i), str(i), (), (), tuple(tokenizer(page["text"])["input_ids"])) for i, page in enumerate(pages)
    ]
    held_out, training = builder.build(rows("validation"))[0], builder.build(rows("train"))[0]
    probes = choose_probes(held_out, training=training, control=control, bos_id=tokenizer.bos_token_id)
    assert len(probes.examples) == 256 and len(probes.training) == len(probes.control) == 64
    for chosen in (probes.examples, probes.training):
        assert all(0 < len(e.source_ids) <= 256 and e.target_ids[-1] == tokenizer.eos_token_id for e in chosen)
    assert max(len(e.target_ids) for e in probes.training) <= 64  # 300 articles have enough short ones
    own = {e.id: e for e in training}
    for e in probes.training:
        assert e.source_ids == own[e.id].source_ids[: len(e.source_ids)] and e.target_ids == own[e.id].target_ids
    for e, probe in zip(probes.control, (probes.examples[i] for i in probes.few), strict=True):
        lost = len(probe.source_ids) - len(e.source_ids)  # where the page is shorter than the probe
        assert lost >= 0 and (len(e.target_ids) == len(probe.target_ids) or not e.source_ids)
        assert lost == 0 or e.input_ids == control[int(e.id)].input_ids
    for e, other in zip(probes.examples, probes.others, strict=True):
        assert (other.id, other.target_ids) == (e.id, e.target_ids) and other.source_ids != e.source_ids
        assert abs(len(other.source_ids) - len(e.source_ids)) < 40
    trained_on = {i for e in training for i in e.input_ids}
    for sequence in probes.sequences:
        assert len(sequence) == 101 and sequence[1:51] == sequence[51:]
        assert len(set(sequence[1:51])) == 50 and set(sequence) <= trained_on | {50256}
        assert sequence.count(50256) == 1 == sequence[:1].count(50256)
    assert len(set(probes.sequences)) == 64
    sizes = json.loads(json.dumps(probes.describe(tokenizer)))
    assert [len(sizes[axis]) for axis in ("example", "training_example", "control_example", "sequence", "pair")] == [
        256, 64, 64, 64, 0
    ]  # fmt: skip


def test_half_of_the_probes_are_of_the_test_split_and_every_choice_has_both():
    test = [example(f"test {k}", 20 + k % 200, 10 + k % 30) for k in range(300)]
    clusters = [replace(e, cluster=f"event {int(e.id.split()[-1]) % 12}") for e in (*CORPUS, *test)]
    probes = choose_probes(clusters[: len(CORPUS)], count=128, test=clusters[len(CORPUS) :])
    assert Counter(probes.split_of) == {"validation": 64, "test": 64}
    for e, split in zip(probes.examples, probes.split_of, strict=True):
        assert e.id.startswith("test") == (split == "test")
    lengths = [len(e.input_ids) for e in probes.examples]
    assert lengths == sorted(lengths)
    of_both = Counter(zip(probes.halves, probes.split_of, strict=True))
    assert len(of_both) == 4 and max(of_both.values()) - min(of_both.values()) <= 8
    halves = {}
    for e, half in zip(probes.examples, probes.halves, strict=True):
        assert halves.setdefault(e.cluster, half) == half  # clusters stay whole
    for chosen in (probes.few, probes.kl):
        assert Counter(probes.split_of[i] for i in chosen) == {
            split: len(chosen) // 2 for split in ("validation", "test")
        }
    assert len(probes.few) == 64 and len(probes.kl) == 32
    alone = probes.restricted()
    assert alone.split_of == tuple(probes.split_of[i] for i in probes.kl)
    described = probes.describe()
    assert [entry["split"] for entry in described["kl_example"]] == list(alone.split_of)
    assert not any("test split" in note for note in probes.notes)


def test_too_few_rows_of_the_test_split_are_noted():
    probes = choose_probes(CORPUS, count=64, test=[example(f"test {k}", 30, 10) for k in range(5)])
    assert Counter(probes.split_of) == {"validation": 59, "test": 5}
    assert "Probes of a test split: 5 instead of 32." in probes.notes
