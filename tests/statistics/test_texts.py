"""Numbers of texts: against values by hand, against nltk and exhaustive counting, and how often the intervals cover."""

import itertools
import math

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from gpt2_interp.statistics.intervals import jackknife_interval, share_interval
from gpt2_interp.statistics.texts import (
    FEWEST_NGRAMS,
    FEWEST_TEXTS,
    compare_texts,
    distinct_n,
    distinct_n_without,
    equal_size,
    n_words,
    quality,
    repetition,
    self_bleu,
    self_bleu_without,
    words,
)

NOUNS = ("boat", "mayor", "bridge", "river", "street", "house", "ship", "word")


def texts_of(seed: int, n: int) -> list[str]:
    """Texts of 2 to 9 set phrases and loose words, as a model writes them: common ones often."""
    rng = np.random.default_rng(seed)
    phrases = [f"the {a} saw a {b} in the {c}" for a, b, c in itertools.islice(itertools.product(NOUNS, repeat=3), 60)]
    rank = 1 / np.arange(1, 61)
    found = []
    for _ in range(n):
        parts = []
        for _ in range(rng.integers(2, 10)):
            loose = " ".join(f"w{k}" for k in rng.choice(60, rng.integers(2, 6), p=rank / rank.sum()))
            parts.append(phrases[rng.choice(60, p=rank / rank.sum())] if rng.random() < 0.6 else loose)
        found.append(" ".join(parts))
    return found


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("Don't stop, he said.", ["Don't", "stop", ",", "he", "said", "."], 4),
        ("", [], 0),
        ("...", [".", ".", "."], 0),
        ("Ärger im Café — 3,5 €", ["Ärger", "im", "Café", "—", "3", ",", "5", "€"], 5),
        ("cafe\u0301", ["café"], 1),  # one letter and its accent: the same word
        ("привет 世界", ["привет", "世界"], 2),
        ("\ufffd", ["\ufffd"], 0),
    ],
)
def test_words(text, expected, count):
    assert words(text) == expected and n_words(text) == count


# --- repetition --------------------------------------------------------------------------------------------------


def test_repetition_by_hand():
    assert repetition("a b c d e f g") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("the the the the the the") == pytest.approx(1 - 1 / 3)
    assert repetition("a b a b a", n=2) == pytest.approx(1 - 2 / 4)
    assert math.isnan(repetition("one two three")) and math.isnan(repetition(""))


# --- distinct-n --------------------------------------------------------------------------------------------------


def test_distinct_by_hand():
    texts = ["a b a", "b a"]
    assert distinct_n(texts, 1) == 2 / 5 and distinct_n(texts, 2) == 2 / 3  # ab ba ba: none goes across two texts
    assert distinct_n(["x y z"] * 4, 3) == 1 / 4
    assert math.isnan(distinct_n(["", ""], 1)) and math.isnan(distinct_n([], 1)) and math.isnan(distinct_n(["a"], 2))


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_equal_size_is_the_mean_over_all_subsets(size):
    texts = ["a b a c", "a d e"]
    unigrams = ["a", "b", "a", "c", "a", "d", "e"]
    shares = [len(set(chosen)) / size for chosen in itertools.combinations(unigrams, size)]
    assert distinct_n(texts, 1, size) == pytest.approx(np.mean(shares), rel=1e-12)
    assert math.isnan(distinct_n(texts, 1, 8)) and math.isnan(distinct_n(texts, 1, 0))


def test_more_of_the_same_is_as_varied_at_equal_size():
    few, many = texts_of(0, 20), texts_of(0, 200)
    size = equal_size([few, many], 2)
    assert distinct_n(many, 2) < 0.6 * distinct_n(few, 2)  # what makes the plain number misleading
    assert distinct_n(many, 2, size) == pytest.approx(distinct_n(few, 2, size), abs=0.05)


def test_without_each_text_is_the_set_without_it():
    texts = texts_of(1, 9)
    for size in (None, equal_size([texts], 2)):
        expected = [distinct_n(texts[:k] + texts[k + 1 :], 2, size) for k in range(9)]
        assert distinct_n_without(texts, 2, size) == pytest.approx(expected, rel=1e-12)


def test_the_size_is_the_smallest_sets_without_its_longest_text():
    long, short = ["w " * 50] * 3, ["a " * 20, "b " * 21, "c " * 5]
    assert equal_size([long, short], 1) == 100 and FEWEST_NGRAMS > 46 - 21  # too small a set does not set it
    assert equal_size([long, ["a " * 20, "b " * 20, "c " * 30]], 1) == 40
    assert equal_size([["a b"], []], 1) is None


# --- self-BLEU ---------------------------------------------------------------------------------------------------


def nltk_self_bleu(texts: list[str]) -> float:
    found = [words(text) for text in texts]
    smooth = SmoothingFunction().method1
    return np.mean([
        sentence_bleu(found[:i] + found[i + 1 :], text, smoothing_function=smooth) for i, text in enumerate(found)
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_self_bleu_is_nltks_and_so_is_each_one_without_a_text(seed):
    texts = texts_of(seed, 8) + ["the boat", "w1", "nothing shared here", "the boat saw a boat in the boat"]
    assert self_bleu(texts) == pytest.approx(nltk_self_bleu(texts), rel=1e-12)
    expected = [nltk_self_bleu(texts[:k] + texts[k + 1 :]) for k in range(len(texts))]
    assert self_bleu_without(texts) == pytest.approx(expected, rel=1e-12)


def test_self_bleu_of_equal_and_of_unlike_texts():
    assert self_bleu(["one boat in the street"] * 5) == pytest.approx(1)
    assert self_bleu([f"{i}a {i}b {i}c {i}d" for i in range(5)]) == 0
    assert self_bleu(["", *["one boat in the street"] * 5, " "]) == pytest.approx(1)  # empty ones are left out
    assert all(math.isnan(self_bleu(texts)) for texts in ([], ["a b c d"], ["", "", ""], ["a b", "a b"]))


# --- intervals ---------------------------------------------------------------------------------------------------


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=12)
    without = (values.sum() - values) / 11
    low, high = jackknife_interval(values.mean(), without)
    assert (high - low) / 2 == pytest.approx(2.2009852 * values.std(ddof=1) / math.sqrt(12))  # t of 11 degrees


def test_wilson_by_hand():
    assert share_interval(0, 16) == pytest.approx((0, 0.1936), abs=1e-4)
    assert share_interval(8, 16) == pytest.approx((0.2800, 0.7200), abs=1e-4)


@pytest.mark.slow
def test_jackknife_intervals_cover_the_truth_about_95_times_in_100():
    """Also of self-BLEU, whose bootstrap is not even near: a text drawn twice is its own reference."""
    size, sets = 120, [texts_of(seed, 16) for seed in range(150)]
    for statistic, without in (
        (self_bleu, self_bleu_without),
        (lambda texts: distinct_n(texts, 2, size), lambda texts: distinct_n_without(texts, 2, size)),
    ):
        values = np.array([statistic(texts) for texts in sets])
        bounds = [jackknife_interval(value, without(texts)) for value, texts in zip(values, sets, strict=True)]
        covered = np.mean([low <= values.mean() <= high for low, high in bounds])
        assert 0.91 <= covered <= 0.99
        width = np.mean([high - low for low, high in bounds]) / 2
        assert 0.85 * 2.13 * values.std() < width < 1.4 * 2.13 * values.std()  # and is not wide for nothing
    rng = np.random.default_rng(0)
    drawn = [self_bleu([sets[0][k] for k in rng.integers(0, 16, 16)]) for _ in range(50)]
    assert np.percentile(drawn, 2.5) > self_bleu(sets[0])


# --- all of them -------------------------------------------------------------------------------------------------


def test_quality_names_values_and_bounds():
    texts = texts_of(3, 16)
    scores = compare_texts({"a": texts, "b": texts_of(4, 16)})["a"]
    bounded = ("words", "repetition_4", "self_bleu", "distinct_1_equal", "distinct_2_equal", "distinct_3_equal")
    plain = ("texts", "distinct_1", "distinct_2", "distinct_3")
    assert set(scores) == {*plain, *(f"{name}{end}" for name in bounded for end in ("", "_low", "_high"))}
    assert all(scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"] for name in bounded)
    assert scores["texts"] == 16 and scores["words"] == np.mean([len(text.split()) for text in texts])
    assert scores["repetition_4"] == pytest.approx(np.mean([repetition(text) for text in texts]))
    assert scores["self_bleu"] == self_bleu(texts) and scores["distinct_2"] == distinct_n(texts, 2)


def test_edges():
    few = ["a b c d e"] * (FEWEST_TEXTS - 1)
    assert quality(few, {}) == {"texts": FEWEST_TEXTS - 1} and quality([], {}) == {"texts": 0}
    empty = compare_texts({"empty": [""] * 8, "full": texts_of(0, 8)})
    assert empty["empty"] == {"texts": 8, "words": 0, "words_low": 0, "words_high": 0}
    assert "distinct_2_equal" in empty["full"]
    same = compare_texts({"same": ["the boat saw a river"] * 20})["same"]
    assert same["self_bleu"] == pytest.approx(1) and same["self_bleu_low"] == pytest.approx(1)
    assert same["distinct_1"] == 5 / 100 and same["repetition_4"] == 0
    foreign = compare_texts({"x": ["привет мир, ещё раз привет"] * 12})["x"]
    assert foreign["words"] == 5 and foreign["self_bleu"] == pytest.approx(1)
