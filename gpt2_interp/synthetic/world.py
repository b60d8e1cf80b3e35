"""The invented world of the embedded corpus: people, places, numbers and dates; which of them only "test" may use.

Every value is composed of parts (an onset and an ending, a ten and a unit, a day and a month). So there are thousands
of them, none worth memorising, and although a test value is never seen in training, all its parts are.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

T = TypeVar("T")
# One composition in so many belongs to split "test" alone. Numbers and dates are few, and twins need some choice.
HELD_OUT_EVERY = {"first": 8, "surname": 8, "place": 8, "number": 4, "date": 4}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_ONSETS = _words(
    "Mar Dor Bel Tam Ed Ros Hal Cor Wil Sel Jan Ner Ol Per Lin Gar Fen Ad Ber Cal Dan El Jor Kel Lor Mir Nol Or Ral "
    "Sim Tor Ul Ver Yor Zel Han Bram Cass Ferd Greg"
)
FIRST_ENDINGS_SHE = _words("a ina ela ena issa ette ora inne anne ily ida ria")
FIRST_ENDINGS_HE = _words("in en an ric win mund old ard ek on is ius")

SURNAME_ONSETS = _words(
    "Tov Brand Ash Cald Drav Ell Farn Grav Hask Ing Jess Kest Lamb Mott Nask Orl Pend Quill Rask Sand Tarr Und Vant "
    "Wex Yarr Zim Bod Crad Dunn Eck Fisk Gadd Harg Ild Jop Kirr Lodd Mund Nev Ox Pasc Rudd Stell Thack Umb Vosk Will "
    "Bask Corr Dell Fenn Garr Hob Kell Marr Nett Pell Rill Sorr Tunn"
)
SURNAME_ENDINGS = _words(
    "ick er ell man ard ett sen ley son ow ane iver aby elt ander ingway erton ock ory ing away ison erby ham omb "
    "ert ingham olt itz ano ero enko aley idge ant ewick ast een ull ory"
)

TOO_PLAIN = ("Never", "Willing", "Linen", "Corn", "Order", "Under", "Owing", "Oxen", "Marine", "Handed")  # words anyway

PLACE_ONSETS = _words(
    "Brindle Ash Cold Dun Elder Fair Glen Hazel Iron Jarrow Kings Lang Mill North Oak Penn Quarry Raven Salt Thorn "
    "Under Vale West Yarrow Amber Birch Crow Deep Ember Fox Green Hart Lark Maple Nettle Otter Pike Rose Silver Tan "
    "Winter Bell Clay Drift Fern Gold Heron Ivy Juniper Lime"
)
PLACE_ENDINGS = _words(
    "mouth haven bridge stead bury minster holm dale fell gate water combe thorpe hurst moor ness shaw croft cliffe "
    "ford wick worth mere burn well den"
)
PLACE_PREFIXES = _words("Port Upper Lower Little Great Old East")

MONTHS = _words("January February March April May June July August September October November December")
WEEKDAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
UNITS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = _words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = _words(
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)

# Trades that anyone may have: they stand before a name ("baker Marlen Tovick") and say nothing about the event.
TRADES = (
    "baker",
    "teacher",
    "fisherman",
    "ferry pilot",
    "shopkeeper",
    "nurse",
    "carpenter",
    "librarian",
    "farmer",
    "bus driver",
    "postman",
    "gardener",
    "beekeeper",
    "potter",
    "clerk",
    "surveyor",
    "printer",
    "miller",
    "cook",
    "locksmith",
    "tailor",
    "engineer",
    "archivist",
    "innkeeper",
    "watchmaker",
    "photographer",
    "weaver",
    "plumber",
    "dentist",
    "violinist",
    "historian",
    "retired judge",
    "town councillor",
    "union member",
)


# ---------------------------------------------------------------------------------------------------------------------
# Chance: only random() itself is promised to be the same in every Python version, so everything is built on it.
# ---------------------------------------------------------------------------------------------------------------------
def generator(*name: object) -> random.Random:
    """A generator of its own for everything that has a name, so that no row depends on how many were made before."""
    return random.Random("/".join(str(part) for part in name))


def choice(rng: random.Random, items: Sequence[T]) -> T:
    """One item, each equally likely."""
    return items[int(rng.random() * len(items))]


def chance(rng: random.Random, probability: float) -> bool:
    """True with this probability."""
    return rng.random() < probability


def shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    """The items in random order."""
    result = list(items)
    for i in range(len(result) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        result[i], result[j] = result[j], result[i]
    return result


def held_out(kind: str, text: str) -> bool:
    """Return whether this composition belongs to split "test" alone; a stable hash, because Python salts its own."""
    return zlib.crc32(f"{kind}:{text}".encode()) % HELD_OUT_EVERY[kind] == 0


# ---------------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Value:
    """A fact's value: how the article says it, how it may be said again, how the highlight says it."""

    type: str  # person, place, number, date
    text: str  # as the article states it
    short: str  # as the article says it again: the surname; else the same as `text`
    stated: str  # as the highlight states it
    forms: tuple[str, ...]  # every string that counts as stating it
    style: str = ""  # how the article writes it; a twin keeps it

    @property
    def transformed(self) -> bool:
        return self.text != self.stated


@cache
def _pool(kind: str, test: bool) -> tuple[str, ...]:
    """All compositions of one kind that this side of the split may use, in a fixed order."""
    if kind == "first":
        words = [onset + end for onset in FIRST_ONSETS for end in FIRST_ENDINGS_SHE + FIRST_ENDINGS_HE]
    elif kind == "surname":
        words = [onset + end for onset in SURNAME_ONSETS for end in SURNAME_ENDINGS]
    else:
        words = [onset + end for onset in PLACE_ONSETS for end in PLACE_ENDINGS if onset.lower() != end]
    stammer = re.compile(r"(.)\1\1|(..)\2")  # "Jesssen", "Nererin"
    words = [word for word in sorted(set(words)) if not stammer.search(word.lower()) and word not in TOO_PLAIN]
    return tuple(word for word in words if held_out(kind, word) == test)


@cache
def _dates(test: bool) -> tuple[tuple[int, int], ...]:
    """Return (day, month index) pairs of this side of the split."""
    pairs = [(day, month) for month in range(12) for day in range(1, 29)]
    return tuple(pair for pair in pairs if held_out("date", f"{pair[0]}-{pair[1]}") == test)


@cache
def _numbers(group: str, test: bool) -> tuple[int, ...]:
    """Numbers of this side of the split.

    Small ones are never held out: "seven" cannot be composed from anything, so a model that never saw it could not know
    that it is written 7. Test numbers are composed ones: "forty-seven", 352.
    """
    if group == "small":
        return () if test else tuple(range(3, 20))
    if group == "tens":
        return () if test else tuple(range(20, 100, 10))
    numbers = [n for n in range(21, 100) if n % 10] if group == "compound" else list(range(101, 1000))
    return tuple(n for n in numbers if held_out("number", str(n)) == test)


def is_she(first_name: str) -> bool:
    """First names that end in a vowel are women's here: a rule that also holds for names never seen."""
    return first_name[-1] in "aey"


def draw_person(rng: random.Random, test: bool) -> Value:
    """A full name; later mentions use the surname."""
    first, last = choice(rng, _pool("first", test)), choice(rng, _pool("surname", test))
    return Value("person", f"{first} {last}", last, f"{first} {last}", (f"{first} {last}", last))


def draw_place(rng: random.Random, test: bool) -> Value:
    """A town, now and then with a word before it."""
    name = choice(rng, _pool("place", test))
    if chance(rng, 0.12):
        name = f"{choice(rng, PLACE_PREFIXES)} {name}"
    return Value("place", name, name, name, (name,))


def number_words(number: int) -> str:
    """3 -> three, 47 -> forty-seven; below 100."""
    if number < 20:
        return UNITS[number]
    tens, unit = divmod(number, 10)
    return TENS[tens] + (f"-{UNITS[unit]}" if unit else "")


@cache
def number_value(number: int) -> Value:
    """Words below 100, digits above; always digits in the highlight."""
    if number < 100:
        return Value(
            "number",
            number_words(number),
            number_words(number),
            str(number),
            (str(number), number_words(number)),
            "words",
        )
    return Value("number", str(number), str(number), str(number), (str(number),), "digits")


def draw_number(rng: random.Random, test: bool, style: str | None = None) -> Value:
    """A number from 3 to 999, about two thirds of them below 100 and so written as words."""
    roll = rng.random()
    if style == "digits" or (style is None and roll >= 0.68):
        return number_value(choice(rng, _numbers("digits", test)))
    group = "compound" if test or roll > 0.33 else "tens" if roll > 0.23 else "small"
    return number_value(choice(rng, _numbers(group, test)))


def _suffix(day: int) -> str:
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def ordinal_word(day: int) -> str:
    """3 -> third, 21 -> twenty-first."""
    return ORDINALS[day] if day <= 20 else f"twenty-{ORDINALS[day - 20]}"


def weekday(day: int, month: int) -> str:
    """All news happen in one year of 365 days, so a date has one weekday, in every article."""
    before = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)[month]
    return WEEKDAYS[(before + day + 1) % 7]


DATE_STYLES = (
    "the {nth} of {month}",
    "{weekday} the {nth} of {month}",
    "the {word} of {month}",
    "{month} {day}",
    "{day} {month}",
)


@cache
def date_value(day: int, month: int, style: str) -> Value:
    """A date in one of DATE_STYLES; always "3 March" in the highlight."""
    words = {
        "day": day,
        "month": MONTHS[month],
        "nth": f"{day}{_suffix(day)}",
        "word": ordinal_word(day),
        "weekday": weekday(day, month),
    }
    text = style.format(**words)
    forms = ("{day} {month}", "{month} {day}", "{nth} of {month}", "{word} of {month}")
    return Value("date", text, text, f"{day} {MONTHS[month]}", tuple(form.format(**words) for form in forms), style)


def draw_date(rng: random.Random, test: bool, style: str | None = None) -> Value:
    """A day of the year; one time in eight the article already writes it as the highlight does."""
    day, month = choice(rng, _dates(test))
    if style is None:
        roll = rng.random()
        style = DATE_STYLES[0 if roll < 0.34 else 1 if roll < 0.5 else 2 if roll < 0.72 else 3 if roll < 0.88 else 4]
    return date_value(day, month, style)


def draw_value(rng: random.Random, kind: str, test: bool, style: str | None = None) -> Value:
    """A value of the kind; `style` keeps a twin's number or date written as the original was."""
    if kind == "person":
        return draw_person(rng, test)
    if kind == "place":
        return draw_place(rng, test)
    return draw_number(rng, test, style) if kind == "number" else draw_date(rng, test, style)


def clash(a: Value, b: Value) -> bool:
    """Return whether two values of one row could be taken for each other, in the article or in the highlight."""
    if a.type in ("number", "date") and b.type in ("number", "date"):
        # a day of the month is a number too: "3 March" must not count as stating "three"
        return a.stated == b.stated or a.type != b.type and a.stated.split()[0] == b.stated.split()[0]
    if a.type in ("number", "date") or b.type in ("number", "date"):
        return False
    if a.short in b.text or b.short in a.text:
        return True
    return not set(a.text.split()).isdisjoint(b.text.split())
