"""Quality of a set of texts, from the texts alone: variety, sameness, repetition, length.

None of these numbers means anything alone: noise has a high distinct-n, and different copies of training rows a low
self-BLEU. They are read beside the same numbers of the references for the same prompts.

A text is taken as its `words`, so that texts of models with different tokenizers can be compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from scipy.special import gammaln

from gpt2_interp.statistics.intervals import interval, jackknife_interval

FEWEST_TEXTS = 8  # smaller sets get no numbers
FEWEST_NGRAMS = 30  # a smaller set has no distinct-n at equal size, and does not set the size for the others
DISTINCT = (1, 2, 3)
REPEATED = 4
BLEU_ORDERS = 4
BLEU_EPSILON = 0.1  # matches counted where there are none, as in nltk's SmoothingFunction().method1

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """Words and single punctuation marks, as written. For scripts that put spaces between words."""
    return _WORD.findall(unicodedata.normalize("NFC", text))


def n_words(text: str) -> int:
    """Words of a text, punctuation not counted."""
    return sum(word[0].isalnum() or word[0] == "_" for word in words(text))


def ngrams(text: str, n: int) -> Counter:
    """Return how often each n-gram of words occurs in a text."""
    found = words(text)
    return Counter(zip(*(found[i:] for i in range(n)), strict=False))


def repetition(text: str, n: int = REPEATED) -> float:
    """Share of the text's n-grams that occurred in it before: 1 - different / all; NaN for a text without n-grams.

    seq-rep-n of Welleck et al. 2020 (Neural text generation with unlikelihood training), rep-n / 100 of Su et al. 2022
    (A contrastive framework for neural text generation), of words.
    """
    counts = ngrams(text, n)
    return 1 - len(counts) / counts.total() if counts else float("nan")


# --- distinct-n --------------------------------------------------------------------------------------------------


def distinct_n(texts: Sequence[str], n: int, size: int | None = None) -> float:
    """Different n-grams / all n-grams of the set (Li et al. 2016, A diversity-promoting objective function for neural
    conversation models; there the words are counted below the line). NaN without n-grams.

    It falls with the amount of text, because common words come again. With `size` the sets can differ in that: the
    expected share among `size` n-grams drawn from the set's without putting back (rarefaction, Hurlbert 1971).
    """
    return _distinct(sum((ngrams(text, n) for text in texts), Counter()), size)


def distinct_n_without(texts: Sequence[str], n: int, size: int | None = None) -> np.ndarray:
    """Compute `distinct_n` of the set without each of its texts: [text]."""
    of_texts = [ngrams(text, n) for text in texts]
    together = sum(of_texts, Counter())
    return np.array([_distinct(together - counts, size) for counts in of_texts])


def _distinct(counts: Counter, size: int | None) -> float:
    total = counts.total()
    if not total or (size is not None and not 0 < size <= total):
        return float("nan")
    if size is None:
        return len(counts) / total
    occurrences, kinds = np.array(sorted(Counter(counts.values()).items())).T  # how many kinds occur how often
    # chance that none of the drawn is of a kind: C(total - occurrences, size) / C(total, size)
    left = total - occurrences
    possible = left >= size
    log_missed = np.full(len(occurrences), -np.inf)
    log_missed[possible] = (
        gammaln(left[possible] + 1)
        - gammaln(left[possible] - size + 1)
        - gammaln(total + 1)
        + gammaln(total - size + 1)
    )
    return float((kinds * -np.expm1(log_missed)).sum() / size)


def equal_size(sets: Sequence[Sequence[str]], n: int) -> int | None:
    """The number of n-grams at which `distinct_n` compares these sets: what the smallest of them has without its
    longest text (so that its jackknife is defined). None if all have fewer than FEWEST_NGRAMS."""
    sizes = []
    for texts in sets:
        totals = [ngrams(text, n).total() for text in texts]
        sizes.append(sum(totals) - max(totals, default=0))
    return min((size for size in sizes if size >= FEWEST_NGRAMS), default=None)


# --- self-BLEU ---------------------------------------------------------------------------------------------------


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4 of each text with all the others as its references, 0 to 1 (Zhu et al. 2018, Texygen).

    Sentence BLEU as nltk computes it with smoothing method 1. It rises with the number of texts: compare sets of as
    many. Texts without words are left out; NaN with fewer than two others.
    """
    return _self_bleu(texts)[0]


def self_bleu_without(texts: Sequence[str]) -> np.ndarray:
    """Compute `self_bleu` of the set without each of its texts that has words: [text]."""
    return _self_bleu(texts)[1]


def _self_bleu(texts: Sequence[str]) -> tuple[float, np.ndarray]:
    """Return (self-BLEU, self-BLEU without each text [text]) in time linear in the words: nltk would take n^3 passes.

    A reference counts through the most that any reference has of an n-gram. Without one text that is the same number,
    unless the text alone had the most: then it is what the next one has.
    """
    texts = [text for text in texts if words(text)]
    n = len(texts)
    if n < 3:
        return float("nan"), np.full(n, np.nan)
    matched = np.zeros((BLEU_ORDERS, n))
    lost = np.zeros((BLEU_ORDERS, n, n))  # [order, text i, reference k]: matches of i that are gone without k
    for order in range(BLEU_ORDERS):
        holders: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for i, text in enumerate(texts):
            for ngram, count in ngrams(text, order + 1).items():
                holders.setdefault(ngram, []).append((count, i))
        for found in holders.values():
            top = sorted(found, reverse=True)[:3]
            for count, i in found:
                others = [(most, k) for most, k in top if k != i] + [(0, i), (0, i)]
                (first, k), (second, _) = others[:2]
                matched[order, i] += min(count, first)
                lost[order, i, k] += min(count, first) - min(count, second)
    lengths = np.array([len(words(text)) for text in texts])
    possible = np.maximum(1, lengths - np.arange(BLEU_ORDERS)[:, None])  # [order, text]
    nearest = np.array([_two_nearest(lengths, i) for i in range(n)])  # [text, (who, length, length of the next)]
    bleu = _bleu(matched, possible, lengths, nearest[:, 1])
    reference = np.where(np.arange(n) == nearest[:, :1], nearest[:, 2:], nearest[:, 1:2])  # [text, reference left out]
    without = _bleu(matched[:, :, None] - lost, possible[:, :, None], lengths[:, None], reference)  # [text, left out]
    np.fill_diagonal(without, 0)
    return float(bleu.mean()), without.sum(axis=0) / (n - 1)


def _two_nearest(lengths: np.ndarray, i: int) -> tuple[int, int, int]:
    """Return (the text whose length is nearest to that of text i, its length, the length of the next nearest)."""
    others = sorted((abs(int(length) - int(lengths[i])), int(length), k) for k, length in enumerate(lengths) if k != i)
    return others[0][2], others[0][1], others[1][1]


def _bleu(matched: np.ndarray, possible: np.ndarray, length: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Sentence BLEU: geometric mean of the precisions times the brevity penalty; 0 if not one word matches.

    matched, possible [order, ...]: n-grams found in the references, and all; length, reference [...]: in words.
    """
    precision = np.where(matched > 0, matched, BLEU_EPSILON) / possible
    penalty = np.exp(np.minimum(0, 1 - reference / length))
    return np.where(matched[0] > 0, penalty * np.exp(np.log(precision).mean(axis=0)), 0)


# --- all of them -------------------------------------------------------------------------------------------------


def quality(texts: Sequence[str], sizes: Mapping[int, int | None]) -> dict[str, float]:
    """The numbers of one set of texts, with 95% bounds `_low` and `_high`; only {"texts": n} for fewer than
    FEWEST_TEXTS, and without what is not defined for them.

    sizes: for each n the number of n-grams of `distinct_<n>_equal`, from `equal_size` of all sets that are compared.
    Means over texts have bootstrap bounds, numbers of the whole set the jackknife's; the plain distinct-n has none,
    because it is of this amount of text.
    """
    scores: dict[str, float] = {"texts": len(texts)}
    if len(texts) < FEWEST_TEXTS:
        return scores
    scores |= _mean("words", [n_words(text) for text in texts])
    scores |= _mean(f"repetition_{REPEATED}", [repetition(text) for text in texts])
    value, without = _self_bleu(texts)
    scores |= _of_set("self_bleu", value, without)
    for n in DISTINCT:
        scores |= _of_set(f"distinct_{n}", distinct_n(texts, n), np.empty(0))
        if (size := sizes.get(n)) is not None:
            value, without = distinct_n(texts, n, size), distinct_n_without(texts, n, size)
            scores |= _of_set(f"distinct_{n}_equal", value, without)
    return scores


def compare_texts(sets: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Compute `quality` of several sets, distinct-n at a size that they all have."""
    sizes = {n: equal_size(list(sets.values()), n) for n in DISTINCT}
    return {name: quality(texts, sizes) for name, texts in sets.items()}


def _mean(name: str, values: Sequence[float]) -> dict[str, float]:
    defined = np.array(values, dtype=float)
    defined = defined[np.isfinite(defined)]
    if len(defined) < FEWEST_TEXTS:
        return {}
    low, high = interval(partial(np.mean), defined)
    return {name: float(defined.mean()), f"{name}_low": low, f"{name}_high": high}


def _of_set(name: str, value: float, without: np.ndarray) -> dict[str, float]:
    """Return a share of the whole set, in 0 to 1."""
    if not np.isfinite(value):
        return {}
    if len(without) < FEWEST_TEXTS or not np.isfinite(without).all():
        return {name: value}
    low, high = jackknife_interval(value, without)
    return {name: value, f"{name}_low": max(0.0, low), f"{name}_high": min(1.0, high)}
