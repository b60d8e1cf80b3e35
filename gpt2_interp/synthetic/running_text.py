"""Running text of the invented world, from which the embedded base learns its language, and to copy.

No highlights and no prompts. Besides articles and stories there are articles that another paper tells again in other
words, and pages of records: refrains, lists that are read twice, addresses that are looked up, numbers and dates
written both ways. There a value is needed again soon after it was read. Articles and stories alone teach a small model
so slowly to look back that it never does (docs/decisions.md).
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from gpt2_interp.synthetic import wordings, world
from gpt2_interp.synthetic.rows import GOLD_NAMES, SLOTS, check_count, news_plan, story_plan
from gpt2_interp.synthetic.templates import CUE, KEY, TEXT, Piece, Plan, Sentence, expand, parse, render
from gpt2_interp.synthetic.world import Value, chance, choice, draw_value, generator, shuffled


# ---------------------------------------------------------------------------------------------------------------------
# Articles told again
# ---------------------------------------------------------------------------------------------------------------------
def _cue(pieces: Sequence[Piece]) -> str:
    """The words of the first cue."""
    start = pieces.index((CUE, True))
    return "".join(str(payload) for kind, payload in pieces[start : pieces.index((CUE, False))] if kind == TEXT)


def _again(rng: random.Random, event: str, sentence: Sentence, value: Value) -> Sentence:
    """A gold sentence's fact in another wording; numbers and dates half the time as a highlight writes them.

    The cue comes first: then what was read before decides how the sentence goes on.
    """
    slot = sentence.kind
    told = (expand(rng, parse(wording), GOLD_NAMES) for wording in shuffled(rng, wordings.EVENTS[event][slot][0]))
    pieces = next(
        pieces
        for pieces in told
        if pieces.index((CUE, True)) < pieces.index((KEY, slot)) and _cue(pieces) != _cue(sentence.pieces)
    )
    if value.transformed and chance(rng, 0.5):
        pieces = [(TEXT, value.stated) if piece == (KEY, slot) else piece for piece in pieces]
    return Sentence(slot, pieces)


def _shortened(rng: random.Random, plan: Plan) -> Plan:
    """The plan with its gold sentences and two or three of the others."""
    others = [sentence for sentence in plan.sentences if sentence.kind not in SLOTS]
    kept = shuffled(rng, others)[: 2 + int(rng.random() * 2)]
    return replace(plan, sentences=[s for s in plan.sentences if s.kind in SLOTS or any(s is one for one in kept)])


def retold(seed: int, index: int) -> str:
    """An article, often a shortened one, and three or four of its facts in other words."""
    rng = generator("retold", seed, index)
    event, plan = news_plan("pretrain", seed, index)
    if chance(rng, 0.7):
        plan = _shortened(rng, plan)
    gold = shuffled(rng, [sentence for sentence in plan.sentences if sentence.kind in SLOTS])
    told = [Sentence("retold", [(TEXT, choice(rng, wordings.RETOLD))])]
    told += [_again(rng, event, sentence, plan.values[sentence.kind]) for sentence in gold[: 3 + int(rng.random() * 2)]]
    return render(replace(plan, sentences=[*plan.sentences, *told])).text


# ---------------------------------------------------------------------------------------------------------------------
# Pages of records
# ---------------------------------------------------------------------------------------------------------------------
def _babble(rng: random.Random) -> str:
    """A word of no language: it falls into tokens that are rare elsewhere, and those must be copied too."""
    return "".join(choice(rng, "abcdefghijklmnopqrstuvwxyz") for _ in range(1 + int(rng.random() * 4)))


def _words(rng: random.Random, seed: int, index: int, count: int) -> list[str]:
    """Words of an article in random order, or names, or babble."""
    roll = rng.random()
    if roll < 0.3:
        return [draw_value(rng, choice(rng, ("person", "place")), False).short for _ in range(count)]
    if roll < 0.6:
        return [_babble(rng) for _ in range(count)]
    return shuffled(rng, re.findall(r"[A-Za-z]+", render(news_plan("pretrain", seed, index)[1]).text))[:count]


def refrain(seed: int, index: int) -> str:
    """Random words over and over. Short refrains teach to look back at all, long ones to look at the right place."""
    rng = generator("refrain", seed, index)
    words = _words(rng, seed, index, int(math.exp(math.log(2) + rng.random() * math.log(20))))
    times = max(2, 60 // len(words))
    return choice(rng, wordings.REFRAINS).format(", ".join([" ".join(words)] * times))


def reading(seed: int, index: int) -> str:
    """A list of names that is read twice."""
    rng = generator("reading", seed, index)
    names = ", ".join(
        draw_value(rng, choice(rng, ("person", "place")), False).text for _ in range(3 + int(rng.random() * 6))
    )
    return choice(rng, wordings.LISTS).format(names, names)


def addresses(seed: int, index: int) -> str:
    """Who lives where, and then each of them once more in another order."""
    rng = generator("addresses", seed, index)
    homes = [
        (world.draw_person(rng, False), world.draw_place(rng, False).text) for _ in range(2 + int(rng.random() * 3))
    ]
    lines = [f"{who.text} lives in {town}." for who, town in homes]
    lines += [choice(rng, wordings.LOOK_UP).format(who.short, town) for who, town in shuffled(rng, homes)]
    return " ".join(lines)


def ledger(seed: int, index: int) -> str:
    """Numbers and dates, as an article writes them and as a highlight does."""
    rng = generator("ledger", seed, index)
    values = [draw_value(rng, choice(rng, ("number", "date")), False) for _ in range(3 + int(rng.random() * 3))]
    return " ".join(choice(rng, wordings.RECORDS[value.type]).format(value.text, value.stated) for value in values)


def article(seed: int, index: int) -> str:
    """A news article as it is."""
    return render(news_plan("pretrain", seed, index)[1]).text


def story(seed: int, index: int) -> str:
    """A story without its prompt."""
    return render(story_plan("pretrain", seed, index)[1]).text


SHARES = {article: 0.1, retold: 0.42, story: 0.16, refrain: 0.12, reading: 0.1, addresses: 0.05, ledger: 0.05}


def _kind(roll: float) -> Callable[[int, int], str]:
    """The kind of text whose share of [0, 1) the roll falls into."""
    ends = list(accumulate(SHARES.values()))
    return list(SHARES)[min(bisect(ends, roll), len(ends) - 1)]


def pretraining_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Yield `count` texts in the words and names of split "pretrain", of the kinds in `SHARES`."""
    check_count(count)
    for index in range(count):
        yield _kind(generator("pretraining", seed, index).random())(seed, index)
