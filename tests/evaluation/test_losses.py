import json

import numpy as np
import pytest
import torch
from rouge_score import rouge_scorer
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate
from gpt2_interp.evaluation.losses import TargetLosses, interval, loss_scores, target_losses
from gpt2_interp.evaluation.rouge import lead3, mean_rouge, rouge_per_row, sentences
from gpt2_interp.evaluation.test_rows import shuffled_prompts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("Mr. Smith met J. K. Rowling. They spoke.", ["Mr. Smith met J. K. Rowling.", "They spoke."]),
        ("It cost 3.5 million. 7 men came.", ["It cost 3.5 million.", "7 men came."]),
        ("One line\nanother line", ["One line", "another line"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


def rouge_scores(predictions, references):
    return mean_rouge(rouge_per_row(predictions, references))


def test_lead3():
    assert lead3("One. Two. Three. Four.") == "One.\nTwo.\nThree."


def test_rouge_is_rouge_scores_mean_with_sentences_on_lines():
    predictions = ["The cat sat. It slept well.", "A dog barked."]
    references = ["The cat slept.\nIt sat.", "The dog ran away."]
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeLsum"], use_stemmer=True)
    one = scorer.score("The cat slept.\nIt sat.", "The cat sat.\nIt slept well.")
    two = scorer.score("The dog ran away.", "A dog barked.")
    scores = rouge_scores(predictions, references)
    for kind in ("rouge1", "rougeLsum"):
        assert scores[kind] == pytest.approx(50 * (one[kind].fmeasure + two[kind].fmeasure))
        assert scores[f"{kind}_low"] <= scores[kind] <= scores[f"{kind}_high"]
    assert scores["n"] == 2


@pytest.mark.parametrize("text", ["В городе открыли музей.", "市里开了博物馆", "เปิดพิพิธภัณฑ์"])
def test_rouge_counts_words_of_any_script(text):
    """rouge_score's own tokenizer keeps a-z and digits only, and would give 0."""
    assert rouge_scores([text], [text])["rouge1"] == 100
    assert 0 < rouge_scores([text[: len(text) // 2]], [text])["rouge1"] < 100
    assert rouge_scores(["xyz"], [text])["rouge1"] == 0


def test_rouge_needs_no_cache_folder(monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", "/dev/null/cache")
    assert rouge_scores(["Words."], ["Words."])["rouge1"] == 100


def test_rouge_of_identical_text_is_100():
    scores = rouge_scores(["Same words here.", "And here."], ["Same words here.", "And here."])
    assert [scores[k] for k in ("rouge1", "rouge2", "rougeL", "rougeLsum")] == [100] * 4


def test_intervals_cover_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        low, high = interval(lambda x, axis: x.mean(axis=axis), rng.normal(3, 1, 60), seed=seed)
        hits += low <= 3 <= high
    assert 180 <= hits <= 199


def test_lead3_on_real_rows_scores_as_published(real_data):
    """Lead-3 on the CNN part of CNN/DailyMail: 29.1/11.1/25.9 (See et al. 2017's scorer on Nallapati's split)."""
    lines = (real_data / "cnn_dailymail/validation.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    scores = rouge_scores([lead3(r["article"]) for r in rows], [r["highlights"] for r in rows])
    assert scores["rouge1"] == pytest.approx(29.1, abs=1)
    assert scores["rouge2"] == pytest.approx(11.1, abs=1)
    assert scores["rougeLsum"] == pytest.approx(25.9, abs=1)


def example(identity, source, target):
    return Example(identity, identity, tuple(source), (5,) if source else (), tuple(target))


def test_target_losses_equal_one_by_one(toy_base):
    model = GPT2LMHeadModel.from_pretrained(toy_base).eval()
    examples = [example("a", range(10, 30), [7, 8, 0]), example("b", [9], [4, 0]), example("c", [], [3, 4, 5, 6, 0])]
    losses = target_losses(model, examples, batch_size=2)
    for i, one in enumerate(examples):
        with torch.no_grad():
            mean = model(**collate([one], 0)).loss.item()
        supervised = len(one.target_ids) - (not one.source_ids)  # nothing predicts a text's first token
        assert losses.tokens[i] == supervised
        assert losses.total[i] == pytest.approx(mean * supervised, rel=1e-5)
    scores = loss_scores(losses)
    assert scores["loss_low"] <= scores["loss"] <= scores["loss_high"]
    assert scores["perplexity"] == pytest.approx(np.exp(scores["loss"]))


def test_shuffled_prompts_give_no_target_its_own():
    examples = [example(str(i), [10 + i] * 3, [20 + i, 0]) for i in range(4)]
    mixed = shuffled_prompts(examples, n_positions=5)
    for own, other in zip(examples, mixed, strict=True):
        assert other.target_ids == own.target_ids
        assert other.source_ids and not set(other.source_ids) & set(own.source_ids)
        assert len(other.input_ids) <= 5


def test_plain_texts_among_prompted_ones_stay_as_they_are():
    plain = [example(f"plain {i}", [], [30 + i, 0]) for i in range(2)]
    prompted = [example(str(i), [10 + i], [20 + i, 0]) for i in range(2)]
    mixed = shuffled_prompts([plain[0], prompted[0], plain[1], prompted[1]], n_positions=8)
    assert mixed[0] == plain[0] and mixed[2] == plain[1]
    assert [e.source_ids for e in mixed] == [(), (11,), (), (10,)]


def test_losses_of_clusters_and_of_some_examples():
    losses = TargetLosses(np.asarray([1.0, 2.0, 4.0, 8.0]), np.asarray([1, 2, 3, 4]))
    summed = losses.summed(["b", "a", "b", "c"])
    assert (summed.total.tolist(), summed.tokens.tolist()) == ([2.0, 5.0, 8.0], [2, 4, 4])
    assert summed.mean_per_token() == losses.mean_per_token() == 1.5
    some = losses.of(np.asarray([True, False, False, True]))
    assert (some.total.tolist(), some.tokens.tolist()) == ([1.0, 8.0], [1, 4])
