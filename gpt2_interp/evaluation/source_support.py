"""Numbers, dates and names of an output that stand in its source: what can be checked where no facts are known.

Precision against the source, as the prec_s of Nan et al. 2021 (Entity-level factual consistency of abstractive text
summarization), with patterns in the place of a model that finds entities. docs/metrics.md has what they can't see.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from gpt2_interp.evaluation.rouge import sentences
from gpt2_interp.statistics.ratios import Ratio

KINDS = ("numbers", "dates", "names")
Item = tuple[str, str]  # (kind, as it is compared): ("dates", "3 Mar"), ("numbers", "1200"), ("names", "Zoe Ark")

_MONTH = (
    r"(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    r"(?:uary|ruary|ch|il|e|y|ust|t|tember|ober|ember)?\b\.?"
)
_DAY = r"\b(?P<day>3[01]|[12]\d|0?[1-9])(?:st|[nr]d|th)?"
_DATES = (re.compile(rf"{_DAY}(?: of)? {_MONTH}"), re.compile(rf"\b{_MONTH} {_DAY}\b"))
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"[^\W\d_]+")
_OPENING = tuple(':"“‘')  # behind these a capital says as little as at the beginning of a sentence


def items_of(text: str) -> set[Item]:
    """Return the dates (day and month), the other numbers (in digits) and the names (runs of words with a capital) of a
    text; a word that begins a sentence is in no name."""
    found, rest = _numbers_and_dates(text)
    return found | {("names", name) for sentence in sentences(rest) for name in _names(sentence)}


def _numbers_and_dates(text: str) -> tuple[set[Item], str]:
    """Also returns the text without its dates: a date's month is no name, and its day no number."""
    found: set[Item] = set()

    def take(match: re.Match) -> str:
        found.add(("dates", f"{int(match['day'])} {match['month']}"))
        return ";"  # what stood beside the date is no run

    for pattern in _DATES:
        text = pattern.sub(take, text)
    return found | {("numbers", match.group().replace(",", "")) for match in _NUMBER.finditer(text)}, text


def _names(sentence: str) -> list[str]:
    """Runs of words with a capital, single spaces between them."""
    runs: list[list[str]] = []
    end = None  # of the last word, if it was in a run
    for at, word in enumerate(_WORD.finditer(sentence)):
        begins = not at or sentence[: word.start()].rstrip(" ").endswith(_OPENING)
        if not word.group()[0].isupper() or begins:
            end = None
            continue
        if end is None or sentence[end : word.start()] != " ":
            runs.append([])
        runs[-1].append(word.group())
        end = word.end()
    return [" ".join(run) for run in runs]


def support_ratios(outputs: Sequence[str], sources: Sequence[str]) -> dict[str, Ratio]:
    """Return source_precision in percent: of the different items of an output those that stand in its source, as a
    ratio of rows; `source_precision_<kind>` of one kind. A name may stand anywhere in the source, also where a sentence
    begins."""
    counts = np.zeros((2, len(outputs), len(KINDS)))  # [supported or all, row, kind]
    for i, (output, source) in enumerate(zip(outputs, sources, strict=True)):
        (there, _), words = _numbers_and_dates(source), f" {' '.join(_WORD.findall(source))} "
        for kind, text in items_of(output):
            supported = f" {text} " in words if kind == "names" else (kind, text) in there
            counts[:, i, KINDS.index(kind)] += supported, 1
    supported, written = 100 * counts[0], counts[1]
    ratios = {"source_precision": (supported.sum(axis=1), written.sum(axis=1))}
    return ratios | {f"source_precision_{kind}": (supported[:, k], written[:, k]) for k, kind in enumerate(KINDS)}
