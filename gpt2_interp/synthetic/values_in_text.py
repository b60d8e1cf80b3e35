"""Values that a text of the embedded world writes: its persons, places, numbers and dates, right or wrong.

The reader knows how the world composes its values (world.py), not which ones a text should have. So it also finds a
name that a model made up, or broke ("Ba Cradman").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise

from gpt2_interp.synthetic import wordings, world

SMALLEST_IN_WORDS = 3  # "one" and "two" are words of many wordings; no value is as small


@dataclass(frozen=True)
class Mention:
    """A value in a text: its type, the value as a highlight states it, and its span of characters."""

    type: str
    value: str
    start: int
    end: int


def values_in(text: str, known: Mapping[str, Collection[str]]) -> list[Mention]:
    """Return the values that a text writes, in its order.

    known: {type: values as highlights state them} of the article that the text is about. They decide what a surname
    alone names, and that a town's name is no surname. A surname names its person only where no other name stands before
    it; after a word that the world doesn't know it is the surname of nobody.
    """
    dates = list(_dates(text))
    taken = [(one.start, one.end) for one in dates]
    rest = [one for one in chain(_numbers(text), _names(text, known)) if not any(a <= one.start < b for a, b in taken)]
    return sorted([*dates, *rest], key=lambda one: one.start)


def stated(kind: str, text: str) -> str:
    """Return a value of a type as a highlight states it: "the 3rd of May" is "3 May", "seven" is "7".

    Raises ValueError if the text is no value of the type.
    """
    if kind in ("person", "place"):
        return text
    found = [one.value for one in (_dates if kind == "date" else _numbers)(text)]
    if len(found) != 1:
        raise ValueError(f"{text!r} is no {kind}")
    return found[0]


def is_blend(kind: str, value: str, known: Collection[str]) -> bool:
    """Return whether a value is composed of parts of known ones of its type, at the same places, but is none of them.

    Parts are what the world composes values of: first name and surname; a town's prefix, onset and ending; the digits
    of numbers that have as many; day and month.
    """
    wanted = _parts(kind, value)
    there = {part for one in known for part in _parts(kind, one)}
    return bool(wanted) and value not in known and wanted <= there


# --- numbers and dates ---------------------------------------------------------------------------------------------

_MONTH = rf"(?P<month>{'|'.join(world.MONTHS)})"
_ORDINALS = {world.ordinal_word(day): day for day in range(1, 30)}
_DAY = rf"(?P<day>\d+)(?:st|nd|rd|th)?|(?P<word>{'|'.join(sorted(_ORDINALS, key=len, reverse=True))})"
_DAY_MONTH = re.compile(rf"(?<![\w-])(?:{_DAY})(?: of)? {_MONTH}\b", re.IGNORECASE)
_MONTH_DAY = re.compile(rf"\b{_MONTH} (?P<day>\d+)(?:st|nd|rd|th)?(?![\w-])", re.IGNORECASE)
_WORDS = {world.number_words(n): n for n in range(SMALLEST_IN_WORDS, 100)}
_NUMBER = re.compile(rf"(?<![\w-])(?:\d+|{'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![\w-])", re.IGNORECASE)


def _dates(text: str) -> Iterator[Mention]:
    found = list(_DAY_MONTH.finditer(text))
    taken = [match.span("month") for match in found]
    found += [match for match in _MONTH_DAY.finditer(text) if match.span("month") not in taken]
    for match in found:
        day = match["day"] or str(_ORDINALS[match["word"].lower()])
        yield Mention("date", f"{day} {match['month'].capitalize()}", *match.span())


def _numbers(text: str) -> Iterator[Mention]:
    for match in _NUMBER.finditer(text):
        word = match.group().lower()
        yield Mention("number", str(_WORDS.get(word, word)), *match.span())


# --- names ---------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d_]+")
_KEY = re.compile(r"\{\w+\}")
_BEFORE_PLACES = frozenset(("in", "at", "of", "to", "from", "near", "through"))


def _names(text: str, known: Mapping[str, Collection[str]]) -> Iterator[Mention]:
    """Persons and places, found in the runs of words that are no ordinary ones, with single spaces between them."""
    own = {word for kind in ("person", "place") for one in known.get(kind, ()) for word in one.split()}
    ordinary = ordinary_words() - {word.lower() for word in own.difference(world.PLACE_PREFIXES)}
    words = list(_WORD.finditer(text))
    joined = [text[a.end() : b.start()] == " " for a, b in pairwise(words)] + [False]
    named = [word.group().lower() not in ordinary for word in words] + [False]
    for at in range(len(words) - 2, -1, -1):  # ordinary words too, but not in "Old Millford" and "by Below Tovick"
        if joined[at] and named[at + 1] and words[at + 1].group()[0].isupper():
            named[at] |= words[at].group() in world.PLACE_PREFIXES or _is_odd_capital(text, words[at])
    start = 0
    while start < len(words):
        end = start + 1
        if named[start]:
            while named[end] and joined[end - 1]:
                end += 1
            before = words[start - 1].group().lower() if start and joined[start - 1] else ""
            yield from _of_run(words[start:end], before in _BEFORE_PLACES, known)
        start = end


def _of_run(run: Sequence[re.Match], at_place: bool, known: Mapping[str, Collection[str]]) -> Iterator[Mention]:
    """The values of one run. at_place: whether a word like "in" stands before it, which decides about a broken name.

    A word in lower case is no value by itself, but may be what is left of a first name ("byanne Tovick").
    """
    words, at = [match.group() for match in run], 0
    while at < len(words):
        first, second = words[at], next(iter(words[at + 1 : at + 2]), "")
        kind, size = "person", 1
        if first in world.PLACE_PREFIXES and second:
            kind, size = "place", 2
        elif first in known.get("place", ()) or _town(first):
            kind = "place"
        elif second[:1].isupper():
            size = 2
        elif at_place and not at and not any(first in person.split() for person in known.get("person", ())):
            kind = "place"
        value = " ".join(words[at : at + size])
        if (kind, size) == ("person", 1):
            value = next((person for person in known.get("person", ()) if person.split()[-1] == first), first)
        if words[at + size - 1][0].isupper():
            yield Mention(kind, value, run[at].start(), run[at + size - 1].end())
        at += size


_CAPITAL_ANYWHERE = frozenset(("I", *world.MONTHS, *world.WEEKDAYS))


def _is_odd_capital(text: str, word: re.Match) -> bool:
    """Return whether a word has a capital though no sentence begins with it."""
    before = text[: word.start()].rstrip(" ")
    return word.group()[0].isupper() and word.group() not in _CAPITAL_ANYWHERE and before[-1:] not in "\n.!?:\"'("


@cache
def ordinary_words() -> frozenset[str]:
    """All words of the world's wordings, in lower case, with those of its numbers and dates."""
    pages = chain(
        *(
            page.values()
            for page in (*wordings.EVENTS.values(), *wordings.PLOTS.values(), wordings.NEWS, wordings.STORIES)
        ),
        [(wordings.RETOLD, wordings.REFRAINS, wordings.LISTS, wordings.LOOK_UP, *wordings.RECORDS.values())],
        [(tuple(wordings.ENDINGS.values()), world.TRADES, world.MONTHS, world.WEEKDAYS)],
        [(world.UNITS, world.TENS, world.ORDINALS)],
    )
    texts = (_KEY.sub(" ", text) for page in pages for side in page for text in side)
    return frozenset(word.lower() for text in texts for word in _WORD.findall(text))


# --- parts ---------------------------------------------------------------------------------------------------------

_TOWN = re.compile(rf"({'|'.join(world.PLACE_ONSETS)})({'|'.join(world.PLACE_ENDINGS)})")


def _town(word: str) -> re.Match | None:
    return _TOWN.fullmatch(word)


def _parts(kind: str, value: str) -> set[tuple]:
    """What a value is composed of, each part with its place; empty for what the world doesn't compose so."""
    words = value.split()
    if kind == "place":
        town = _town(words[-1])
        return {(0, *words[:-1]), (1, town[1]), (2, town[2])} if town else set()
    if kind == "number":
        return {(len(value), at, digit) for at, digit in enumerate(value)}
    return set(enumerate(words)) if len(words) == 2 else set()
