"""ROUGE with intervals, sentences, and the lead-3 baseline."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence

import datasets
import evaluate
import numpy as np
from rouge_score import rouge_scorer, scoring, tokenizers

from gpt2_interp.statistics.intervals import interval

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class Rouge(evaluate.Metric):
    """ROUGE F1 (0-100) of each prediction. `evaluate.load("rouge")` would fetch a script from the network."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="ROUGE F1 per example",
            citation="Lin 2004",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        words = UnicodeWords() if is_other_script(references) else None  # None: the published one, ASCII and stemmed
        scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, use_stemmer=True, tokenizer=words)
        scores: list[dict[str, scoring.Score]] = [
            # rougeLsum wants one sentence a line
            scorer.score("\n".join(sentences(reference)), "\n".join(sentences(prediction)))
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return {kind: [100 * score[kind].fmeasure for score in scores] for kind in ROUGE_TYPES}


UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # Thai to Chinese
_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")


class UnicodeWords(tokenizers.Tokenizer):
    """Words of any script, in lower case and unstemmed; single characters where a script has no spaces."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def is_other_script(texts: Iterable[str]) -> bool:
    """Return whether most letters of the texts are outside a-z, which is all that rouge_score's own tokenizer keeps: it
    would give every text in Cyrillic or Chinese a ROUGE of 0."""
    letters = [letter for text in texts for letter in text.lower() if letter.isalpha()]
    return sum(letter.isascii() for letter in letters) * 2 < len(letters)


def rouge_per_row(predictions: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    """Return {kind: ROUGE F1 (0-100) of each row, [row]}."""
    with tempfile.TemporaryDirectory() as folder:  # not its cache under HOME, which needn't be writable
        metric = Rouge(cache_dir=folder, keep_in_memory=True)
        per_row = metric.compute(predictions=list(predictions), references=list(references))
    return {kind: np.asarray(per_row[kind]) for kind in ROUGE_TYPES}


def mean_rouge(per_row: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean ROUGE (0-100) with 95% bootstrap bounds `<kind>_low`, `<kind>_high`, and `n`, from `rouge_per_row`."""
    scores: dict[str, float] = {"n": len(per_row["rouge1"])}
    for kind, values in per_row.items():
        scores[kind] = float(values.mean())
        if len(values) > 1:
            scores[f"{kind}_low"], scores[f"{kind}_high"] = interval(lambda x, axis: x.mean(axis=axis), values)
    return scores


_SENTENCE_END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z0-9])""")


_ABBREVIATION = re.compile(r"""\b(?:Mr|Mrs|Ms|Dr|St|Prof|Gen|Sen|Rep|Gov|Lt|Col|Sgt|Capt|Jr|Sr|vs|No|[A-Z])\.$""")


def sentences(text: str) -> list[str]:
    """Sentences of a text: its lines, cut after . ! ? before a capital or digit, not after a title or an initial."""
    found = []
    for line in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            if not _ABBREVIATION.search(line[start : match.start()]):
                found.append(line[start : match.end()].strip())
                start = match.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence]


def lead3(text: str) -> str:
    """The first three sentences, one a line: the baseline that news summaries must beat."""
    return "\n".join(sentences(text)[:3])
