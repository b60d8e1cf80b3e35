"""The probe set of a run on each kind of corpus, with the embedded tokenizer."""

import itertools

import pytest

from gpt2_interp.data.corpora import load_corpus
from gpt2_interp.data.examples import ExampleBuilder
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.model.load import load_config
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.probes.build import build_probes, text_examples
from tests.conftest import REPOSITORY

SMALL = {"max_train_samples": 80, "max_eval_samples": 4, "max_predict_samples": 4}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(REPOSITORY / "assets" / "tiny_gpt2"))


def parts(example):
    return len(example.source_ids), len(example.template_ids), len(example.target_ids)


def probes_of(tokenizer, count=40, max_source=288, corpus=None, **data):
    data = DataArguments(**SMALL, **data)
    corpus = corpus or load_corpus(data, count, seed=0)
    config = load_config(str(REPOSITORY / "assets" / "tiny_gpt2"))
    builder = ExampleBuilder(tokenizer, data.task, max_source, 64, config.n_positions)
    examples = {use: builder.build(getattr(corpus, use))[0] for use in ("train", "probes", "test_probes")}
    return build_probes(corpus, examples, builder, config, count, seed=0), corpus


def test_of_the_embedded_news_nothing_is_missing(tokenizer):
    probes, corpus = probes_of(tokenizer, dataset_name="synthetic_news")
    assert len(probes.examples) == len(probes.others) == len(probes.gold) == 40 and None not in probes.others
    sizes = [len(part) for part in (probes.training, probes.control, probes.twins, probes.sequences)]
    assert sizes == [64] * 4 and 2 < len(probes.pattern_examples) == len(probes.pattern_gold) <= 4
    assert all(len(facts) == 4 for facts in probes.pattern_gold)
    assert {e.id for e in probes.training} <= {row["id"] for row in corpus.train}
    stories = {row["id"]: row["target"] for row in corpus.control}
    few = [probes.examples[i] for i in probes.few]
    for e, probe in zip(probes.control, itertools.cycle(few)):  # noqa: B905
        assert parts(e) == parts(probe)  # at the same positions
        assert tokenizer.decode(e.input_ids).startswith(stories[e.id])
    for e, text in zip(probes.control, probes.general, strict=True):
        assert text.id == e.id and not text.source_ids and text.target_ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(text.target_ids[:-1]) == stories[e.id]  # alone, and whole
    facts = {row["id"]: row["facts"] for row in (*corpus.probes, *corpus.test_probes)}
    assert probes.split_of.count("test") == 20
    assert {e.id for e, split in zip(probes.examples, probes.split_of, strict=True) if split == "test"} == {
        row["id"] for row in corpus.test_probes
    }
    for e, found in zip(probes.examples, probes.gold, strict=True):
        stated = {fact["slot"]: fact["stated"] for fact in facts[e.id]}
        for fact in found:
            said = tokenizer.decode([e.input_ids[i + 1] for i in fact.queries])
            assert said.strip() == stated[fact.slot]
    assert sum(map(len, probes.gold)) > 120
    assert {pair.id.partition("-twin-")[0] for pair in probes.twins} <= facts.keys()
    clusters = {e.source_ids: e.cluster for e in probes.examples}
    apart = [clusters[o.source_ids] != e.cluster for e, o in zip(probes.examples, probes.others, strict=True)]
    assert sum(apart) > 0.9 * len(apart)
    assert not any(note.startswith("No ") for note in probes.notes)
    assert probes_of(tokenizer, dataset_name="synthetic_news")[0] == probes


def test_of_news_every_target_token_is_of_one_kind_and_values_also_of_their_slot(tokenizer):
    probes, corpus = probes_of(tokenizer, max_source=100, dataset_name="synthetic_news")
    slots = ["who", "where", "how_many", "when"]
    assert probes.token_kinds[:5] == ("all", "value_first", "value_rest", "copied", "template")
    assert sorted(probes.token_kinds[5:]) == sorted(f"value_first {slot}" for slot in slots)
    rows = {row["id"]: row for row in (*corpus.probes, *corpus.test_probes)}
    described = probes.describe()["token_kinds"]
    for e, members, positions in zip(probes.examples, probes.kinds, described, strict=True):
        of = dict(zip(probes.token_kinds, members.T, strict=True))
        assert (members[:, 1:5].sum(axis=1) == 1).all() and members[:, 0].all()
        assert (members[:, 5:].sum(axis=1) == of["value_first"]).all()
        assert of["template"][-1] and e.target_ids[-1] == tokenizer.eos_token_id
        for label, column in of.items():
            assert [e.input_ids[at] for at in positions[label]] == [e.target_ids[t] for t in column.nonzero()[0]]
        # Also a value of which the source that was cut has nothing.
        first = {fact["slot"]: fact["stated"] for fact in rows[e.id]["facts"]}
        assert of["value_first"].sum() == len(first)
        for slot, value in first.items():
            (at,) = positions[f"value_first {slot}"]
            assert value.startswith(tokenizer.decode([e.input_ids[at]]).strip())
        values = [e.target_ids[t] for t in (of["value_first"] | of["value_rest"]).nonzero()[0]]
        assert all(value in tokenizer.decode(values) for value in first.values())


def test_answers_that_were_cut_off_are_counted(tokenizer):
    probes, corpus = probes_of(tokenizer, max_source=100, dataset_name="synthetic_news")
    chosen = {e.id for e in probes.examples}
    measured = [row for row in (*corpus.probes, *corpus.test_probes) if row["id"] in chosen]
    stated, kept = sum(len(row["facts"]) for row in measured), sum(map(len, probes.gold))
    assert 0 < kept < stated
    assert any(note.startswith(f"{stated - kept} of the {stated} known answers are left out") for note in probes.notes)


def test_a_tokenizer_without_offsets_has_no_known_answers(tokenizer):
    class Slow:
        """The same tokens, without saying where they stand."""

        is_fast, bos_token_id, eos_token_id = False, None, tokenizer.eos_token_id

        def __call__(self, text, return_offsets_mapping=False, **kwargs):
            assert not return_offsets_mapping
            return tokenizer(text, **kwargs)

    probes, _ = probes_of(Slow(), dataset_name="synthetic_news")
    assert probes.gold == () and len(probes.twins) == 64
    assert any("does not say which characters" in note for note in probes.notes)
    assert {sequence[0] for sequence in probes.sequences} == {tokenizer.eos_token_id}


def test_stories_and_plain_text(tokenizer):
    probes, _ = probes_of(tokenizer, task="creative_writing", dataset_name="synthetic_stories")
    assert len(probes.others) == len(probes.examples) and len(probes.control) == 64
    assert probes.token_kinds == ("all", "copied", "new")
    assert (probes.twins, probes.gold) == ((), ()) and any(note.startswith("No twins") for note in probes.notes)
    probes, _ = probes_of(tokenizer, task="creative_writing", dataset_name="synthetic_text")
    assert (probes.others, probes.twins, probes.gold) == ((), (), ()) and len(probes.sequences) == 64
    kinds = ("position 0-15", "position 16-63", "position 64-255", "frequent", "middle", "rare")
    assert [kind for kind in probes.token_kinds if kind in kinds] == list(kinds)


def test_general_text_is_cut_and_joined_to_the_length_asked_for(tokenizer):
    def row(identity, cluster, text):
        return {"id": identity, "cluster": cluster, "source": "", "target": text}

    rows = [row("a", "c", "One fire. " * 200), row("b", "d", " A short text. "), row("e", "f", "Of 3 cows. " * 30)]
    (long, joined), alone = text_examples(rows, tokenizer, 60)
    assert set(alone) == {row["id"] for row in rows}
    assert (long.id, len(long.target_ids)) == ("a", 60) and tokenizer.eos_token_id not in long.target_ids
    assert (joined.id, joined.cluster) == ("b", "d") and len(joined.input_ids) == 60
    assert tokenizer.decode(joined.target_ids).startswith("A short text. Of 3 cows. Of")
    (short,), _ = text_examples(rows[1:2], tokenizer, 60)
    assert tokenizer.decode(short.target_ids) == "A short text." + tokenizer.eos_token
    assert list(text_examples([], tokenizer, 512)[0]) == []


def test_general_text_of_one_cluster_is_joined_with_its_own(tokenizer):
    rows = [{"id": str(k), "cluster": "xy"[k % 2], "source": "", "target": f"Text {k}. " * 10} for k in range(8)]
    found, _ = text_examples(rows, tokenizer, 60)
    texts = [tokenizer.decode(e.target_ids) for e in found]
    assert len(found) > 2
    for e, text in zip(found, texts, strict=True):
        assert all(f"Text {k}." not in text for k in range(8) if "xy"[k % 2] != e.cluster)
