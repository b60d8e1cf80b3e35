"""Facts as positions, against the text that these positions decode to; twins, against the token that they differ in."""

import re
from collections import Counter

import pytest
from transformers import PreTrainedTokenizerBase

from gpt2_interp.data.corpora import load_corpus
from gpt2_interp.data.examples import Example, ExampleBuilder
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.evaluation.facts import states
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.probes.known_answers import gold_facts, has_offsets, sentence_spans, twin_pairs
from gpt2_interp.synthetic.rows import SLOTS, news_rows, twin
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module", params=["embedded", "gpt2"])
def tokenizer(request, real_data) -> PreTrainedTokenizerBase:
    return load_tokenizer(
        str(REPOSITORY / "assets/tiny_gpt2" if request.param == "embedded" else real_data / "gpt2_tokenizer")
    )


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    data = DataArguments(dataset_name="synthetic_news", max_train_samples=1, max_eval_samples=1, max_predict_samples=1)
    return load_corpus(data, 60, seed=4).probes


def build(tokenizer, rows, max_source=448) -> list[Example]:
    return list(ExampleBuilder(tokenizer, "summarization", max_source, 64, 512).build(rows)[0])


def mentions(positions) -> list[list[int]]:
    """Runs of consecutive positions."""
    runs = []
    for position in positions:
        if not runs or runs[-1][-1] != position - 1:
            runs.append([])
        runs[-1].append(position)
    return runs


def said(positions, example, tokenizer) -> str:
    return tokenizer.decode([example.input_ids[i] for i in positions]).strip()


def test_positions_decode_to_the_values_and_sentences(rows, tokenizer):
    for row, example in zip(rows, build(tokenizer, rows), strict=True):
        facts = gold_facts(row, example, tokenizer)
        assert [fact.slot for fact in facts] == [fact["slot"] for fact in row["facts"]]
        for known, fact in zip(row["facts"], facts, strict=True):
            spans = sorted(known["value_spans"])
            assert [said(run, example, tokenizer) for run in mentions(fact.value)] == [
                row["source"][a:b] for a, b in spans
            ]
            stated = row["target"][slice(*known["highlight_span"])]
            predicted = [i + 1 for i in fact.queries]
            assert said(predicted, example, tokenizer) == stated
            assert fact.queries[0] >= len(example.prompt_ids) - 1
            assert said(fact.sentence, example, tokenizer) == row["source"][slice(*known["sentence_span"])]


def slow_control(row, known, tokenizer) -> tuple[int, ...]:
    """Of the sentences without a gold value the one nearest to the gold one, from prefixes that are tokenized anew."""

    def count(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def positions(span):
        return tuple(range(count(row["source"][: max(span[0] - 1, 0)]), count(row["source"][: span[1]])))

    forms = [form for fact in row["facts"] for form in fact["forms"]]
    free = [span for span in sentence_spans(row) if not states(row["source"][slice(*span)], forms)]
    gold, n = positions(known["sentence_span"]), count(row["source"])
    scores = {}
    for span in free:
        one = positions(span)
        apart = abs(sum(one) / len(one) - sum(gold) / len(gold)) / n
        scores[one] = apart + abs(len(one) - len(gold)) / max(len(one), len(gold))
    return min(scores, key=scores.get, default=())


def test_control_sentences_against_a_slow_search(rows, tokenizer):
    lengths = []
    for row, example in zip(rows[:20], build(tokenizer, rows[:20]), strict=True):
        for known, fact in zip(row["facts"], gold_facts(row, example, tokenizer), strict=True):
            assert fact.control == slow_control(row, known, tokenizer)
            assert not set(fact.control) & {i for other in gold_facts(row, example, tokenizer) for i in other.sentence}
            lengths.append(len(fact.control) / len(fact.sentence))
    assert 0.8 < sum(lengths) / len(lengths) < 1.2


def test_what_was_cut_away_is_left_out(rows, tokenizer):
    whole, kept = build(tokenizer, rows), Counter()
    for row, full, cut in zip(rows, whole, build(tokenizer, rows, max_source=90), strict=True):
        n = len(cut.source_ids)
        shift = len(full.source_ids) - n
        assert n == 90 < len(full.source_ids)
        found = {fact.slot: fact for fact in gold_facts(row, cut, tokenizer)}
        for fact, known in zip(gold_facts(row, full, tokenizer), row["facts"], strict=True):
            in_sentence = [i for i in fact.value if i in fact.sentence]
            assert (fact.slot in found) == (max(in_sentence) < n)
            if fact.slot not in found:
                kept["cut"] += 1
                continue
            kept["kept"] += 1
            left = found[fact.slot]
            assert left.queries == tuple(i - shift for i in fact.queries)
            assert left.sentence == tuple(i for i in fact.sentence if i < n)
            expected = [run for run in mentions(fact.value) if run[-1] < n]
            assert mentions(left.value) == expected and states(known["value"], known["forms"])
            assert all(i < n for i in left.control)
    assert kept["cut"] > 20 and kept["kept"] > 20


def test_outer_space_moves_nothing(rows, tokenizer):
    row = rows[0]
    shifted = {**row, "source": "\n  " + row["source"] + "\n", "target": "  " + row["target"] + " ", "facts": []}
    for known in row["facts"]:
        moved = {"sentence_span": [i + 3 for i in known["sentence_span"]]}
        moved |= {"value_spans": [[a + 3, b + 3] for a, b in known["value_spans"]]}
        shifted["facts"].append({**known, **moved, "highlight_span": [i + 2 for i in known["highlight_span"]]})
    (one,), (other,) = build(tokenizer, [row]), build(tokenizer, [shifted])
    assert one.input_ids == other.input_ids
    facts, moved = gold_facts(row, one, tokenizer), gold_facts(shifted, other, tokenizer)
    assert [(f.queries, f.value, f.sentence) for f in facts] == [(f.queries, f.value, f.sentence) for f in moved]


def test_an_example_of_another_row_is_refused(rows, tokenizer):
    with pytest.raises(AssertionError, match="not of this row"):
        gold_facts(rows[0], build(tokenizer, rows[1:2])[0], tokenizer)


def test_tokenizers_without_offsets_are_known(tokenizer):
    class Slow:
        is_fast = False

    assert has_offsets(tokenizer) and not has_offsets(Slow()) and not has_offsets(object())


# --- twins ---


def test_twins_differ_at_exactly_the_token(rows, tokenizer):
    builder = ExampleBuilder(tokenizer, "summarization", 448, 64, 512)
    pairs = twin_pairs(rows, builder, count=40, seed=0)
    assert len(pairs) == 40 and len({pair.id for pair in pairs}) == 40
    assert len({pair.id.partition("-twin-")[0] for pair in pairs}) == 40  # rows are not used twice before all were
    assert min(Counter(pair.slot for pair in pairs).values()) >= 8
    of_row = {row["id"]: row for row in rows}
    template = builder.template_ids
    for pair in pairs:
        name, slot, seed = re.fullmatch(r"(.+)-twin-(.+)-(\d+)", pair.id).groups()
        row = of_row[name]
        assert (slot, row["cluster"]) == (pair.slot, pair.cluster)
        article = {**row, "article": row["source"], "highlights": row["target"]}
        other = twin(
            article, slot, int(seed), lambda old, new: len(tokenizer(old).input_ids) == len(tokenizer(new).input_ids)
        )
        texts = (row["source"], row["target"]), (other["article"], other["highlights"])
        for (source, target), prefix, token in zip(texts, pair.prefixes, pair.tokens, strict=True):
            whole = [*tokenizer(source).input_ids, *template, *tokenizer(" " + target).input_ids]
            assert (*prefix, token) == tuple(whole[: len(prefix) + 1])
        x, swapped = pair.prefixes
        n_prompt = len(tokenizer(row["source"]).input_ids) + len(template)
        assert len(x) == len(swapped) and x[n_prompt:] == swapped[n_prompt:] and x != swapped
        assert pair.tokens[0] != pair.tokens[1]


def test_twins_are_the_same_for_the_same_seed_and_use_few_rows_again(rows, tokenizer):
    builder = ExampleBuilder(tokenizer, "summarization", 448, 64, 512)
    assert twin_pairs(rows, builder, 8, seed=1) == twin_pairs(rows, builder, 8, seed=1)
    assert twin_pairs(rows, builder, 8, seed=1) != twin_pairs(rows, builder, 8, seed=2)
    pairs = twin_pairs(rows[:3], builder, 64, seed=0)
    assert 10 <= len({(pair.id.partition("-twin-")[0], pair.slot) for pair in pairs}) == len(pairs) <= 12
    assert {pair.slot for pair in pairs} == set(SLOTS)


def test_no_twin_whose_difference_was_cut_away(rows, tokenizer):
    builder = ExampleBuilder(tokenizer, "summarization", 60, 64, 512)
    pairs = twin_pairs(rows, builder, 4 * len(rows), seed=0)
    assert 40 < len(pairs) < 2 * len(rows)
    gold = {}
    for row, example in zip(rows, build(tokenizer, rows, max_source=60), strict=True):
        gold[row["id"]] = {fact.slot for fact in gold_facts(row, example, tokenizer)}
    for pair in pairs:
        assert pair.prefixes[0][:60] != pair.prefixes[1][:60]
        assert pair.slot in gold[pair.id.partition("-twin-")[0]]


def test_rows_without_facts_have_no_twins(tokenizer):
    builder = ExampleBuilder(tokenizer, "summarization", 448, 64, 512)
    plain = [
        {"id": row["id"], "cluster": "c", "source": row["article"], "target": row["highlights"]} for row in news_rows(3)
    ]
    assert twin_pairs(plain, builder) == []
    assert twin_pairs([], builder) == []
