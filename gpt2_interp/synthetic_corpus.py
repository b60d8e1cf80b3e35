"""The embedded corpus: synthetic news and stories whose answers are known, down to the character.

A news row is an article and a two-sentence highlight that states four facts: who, where, how_many, when. Each fact
stands in a sentence of its own somewhere in the article, beside distractors of the same type, and comes with the spans
of its value, of its cue (the words that make it the answer) and of its sentence. Values are drawn independently of the
event, of the wording and of each other; the gold sentences stand anywhere with equal probability.

Split "test" uses names, towns, numbers, dates and article wordings that no other split uses. "pretrain", "train" and
"validation" share theirs, and differ in rows. Highlight wordings are shared by all splits, for otherwise ROUGE would
measure luck. A date's month stands in the gold sentence: with everything else deleted, the answer must remain.

Row i of a (source, split, seed) has a generator of its own, built on random() alone: the same bytes on every machine,
whatever the count.

    python -m gpt2_interp.synthetic_corpus --source synthetic_news --count 3 --split train --seed 0
    python -m gpt2_interp.synthetic_corpus --audit
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from gpt2_interp import synthetic_news as news
from gpt2_interp import synthetic_stories as stories
from gpt2_interp import synthetic_world as world
from gpt2_interp.synthetic_world import Value, chance, choice, draw, generator, shuffled

SPLITS = ("pretrain", "train", "validation", "test")
SLOTS = {"who": "person", "where": "place", "how_many": "number", "when": "date"}
DISTRACTORS = {"p": "person", "l": "place", "n": "number", "d": "date"}  # article keys p1, p2, l1, l2, ...


# ---------------------------------------------------------------------------------------------------------------------
# Templates: "[cue words]", "(this|that)" to choose from, "{key}" for a value or a name
# ---------------------------------------------------------------------------------------------------------------------
TEXT, KEY, CUE, CHOICE = range(4)
Piece = tuple[int, object]
_TOKENS = re.compile(r"\{\w+\}|[\[\]()|]|[^\[\](){}|]+")


@cache
def parse(template: str) -> tuple[Piece, ...]:
    """A template as pieces; a CHOICE piece holds the alternatives, themselves parsed."""
    alternatives, outer = [[]], []
    for token in _TOKENS.findall(template):
        if token == "(":
            outer.append(alternatives)
            alternatives = [[]]
        elif token == "|":
            alternatives.append([])
        elif token == ")":
            node = (CHOICE, tuple(tuple(pieces) for pieces in alternatives))
            alternatives = outer.pop()
            alternatives[-1].append(node)
        elif token in "[]":
            alternatives[-1].append((CUE, token == "["))
        else:
            alternatives[-1].append((KEY, token[1:-1]) if token[0] == "{" else (TEXT, token))
    assert not outer and len(alternatives) == 1, f"unbalanced brackets in {template!r}"
    return tuple(alternatives[0])


def expand(rng: random.Random, pieces: tuple[Piece, ...], names: dict[str, object]) -> list[Piece]:
    """Take one alternative of each choice and rename keys ("n" -> "n2"); a name may itself be a list of pieces."""
    result: list[Piece] = []
    for kind, payload in pieces:
        if kind == CHOICE:
            result += expand(rng, choice(rng, payload), names)
        elif kind == KEY and payload in names:
            name = names[payload]
            if isinstance(name, list):
                result += name
            else:
                result.append((KEY, name))
        else:
            result.append((kind, payload))
    return result


@dataclass
class Sentence:
    """One sentence of a plan: its kind ("who", "quote", ...), and what it says, with the values still open."""

    kind: str
    pieces: list[Piece]


@dataclass
class Plan:
    """Everything that chance decides about a text. Rendering adds none, so a twin is a plan with one value replaced."""

    values: dict[str, Value]
    sentences: list[Sentence]
    phrases: dict[str, tuple[str, ...]] = field(default_factory=dict)  # key -> first mention, later mentions
    trades: dict[str, str] = field(default_factory=dict)  # person key -> "baker"
    target: list[Piece] = field(default_factory=list)  # the highlight, or the prompt


@dataclass
class Rendered:
    """A text and where its values, cues and sentences stand."""

    text: str
    values: dict[str, list[tuple[int, int]]]
    cues: dict[str, list[tuple[int, int]]]  # by kind of sentence
    sentences: list[tuple[str, int, int]]


class Writer:
    """Turns the pieces of one text into characters, remembering who and what was mentioned before."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.parts: list[str] = []
        self.length = 0
        self.mentions: Counter = Counter()
        self.values: dict[str, list[tuple[int, int]]] = {}
        self.cues: dict[str, list[tuple[int, int]]] = {}
        self.capital = False

    def write(self, text: str) -> tuple[int, int]:
        """Append the text, with a capital where a sentence begins; returns its span."""
        if self.capital and text:
            at = 1 if text[0] == '"' else 0
            text = text[:at] + text[at : at + 1].upper() + text[at + 1 :]
            self.capital = text == '"'
        start = self.length
        self.parts.append(text)
        self.length += len(text)
        return start, self.length

    def mention(self, key: str, at_home: bool) -> None:
        """Write a name or a value: in full the first time and in its own sentence, short elsewhere."""
        plan = self.plan
        with_trade, key = key.startswith("+"), key.lstrip("+")
        count = self.mentions[key]
        self.mentions[key] += 1
        if key in plan.phrases:
            phrases = plan.phrases[key]
            self.write(phrases[0] if not count or len(phrases) == 1 else phrases[1 + (count - 1) % (len(phrases) - 1)])
            return
        value = plan.values[key]
        if with_trade and not count and key in plan.trades:
            self.write(plan.trades[key] + " ")
        self.values.setdefault(key, []).append(self.write(value.short if count and not at_home else value.text))

    def sentence(self, sentence: Sentence) -> tuple[str, int, int]:
        """Write one sentence; returns its kind and span."""
        if self.length:
            self.write(" ")
        self.capital = True
        start, cue_start = self.length, 0
        for kind, payload in sentence.pieces:
            if kind == TEXT:
                self.write(payload)
            elif kind == KEY:
                self.mention(payload, at_home=payload == sentence.kind)
            elif payload:
                cue_start = self.length
            else:
                self.cues.setdefault(sentence.kind, []).append((cue_start, self.length))
        return sentence.kind, start, self.length


def render(plan: Plan) -> Rendered:
    """The plan as text with spans."""
    writer = Writer(plan)
    spans = [writer.sentence(sentence) for sentence in plan.sentences]
    return Rendered("".join(writer.parts), writer.values, writer.cues, spans)


def render_target(plan: Plan) -> tuple[str, dict[str, tuple[int, int]]]:
    """The highlight or prompt, where each value is stated in its final form, and where each stands."""
    parts, length, spans = [], 0, {}
    for kind, payload in plan.target:
        if kind == CUE:  # marks the promised ending of a story
            spans["ending"] = (length, length) if payload else (spans["ending"][0], length)
            continue
        text = payload if kind == TEXT else plan.phrases[payload][0] if payload in plan.phrases else None
        if text is None:
            text = plan.values[payload].stated
            spans[payload] = (length, length + len(text))
        if not length or parts[-1].endswith("\n"):
            text = text[0].upper() + text[1:]
        parts.append(text)
        length += len(text)
    return "".join(parts), spans


# ---------------------------------------------------------------------------------------------------------------------
# News
# ---------------------------------------------------------------------------------------------------------------------
def draw_values(rng: random.Random, test: bool, kinds: dict[str, str]) -> dict[str, Value]:
    """A value for each key, none that could be taken for another."""
    values: dict[str, Value] = {}
    for key, kind in kinds.items():
        value = draw(rng, kind, test)
        while any(world.clash(value, other) for other in values.values()):
            value = draw(rng, kind, test)
        values[key] = value
    return values


NEWS_KINDS = {**SLOTS, **{f"{letter}{i}": kind for i in (1, 2) for letter, kind in DISTRACTORS.items()}}
GOLD_NAMES = {"n": "how_many", "d": "when"}


def news_plan(split: str, seed: int, index: int) -> tuple[str, Plan]:
    """All that chance decides about one news row: the event and the plan."""
    rng = generator("synthetic_news", split, seed, index)
    test = split == "test"
    values = draw_values(rng, test, NEWS_KINDS)
    event = choice(rng, news.EVENT_NAMES)
    parts = news.EVENTS[event]

    def say(kind: str, wording: str, names: dict[str, object]) -> Sentence:
        return Sentence(kind, expand(rng, parse(wording), names))

    def wording(kind: str) -> str:
        return choice(rng, (parts if kind in parts else news.COMMON)[kind][test])

    sentences = [say(slot, wording(slot), GOLD_NAMES) for slot in SLOTS]
    for i, text in enumerate(shuffled(rng, parts["distractor"][test])[:2], start=1):
        sentences.append(say("distractor", text, {letter: f"{letter}{i}" for letter in DISTRACTORS}))
    prefaces = shuffled(rng, news.COMMON["preface"][test])
    for sentence in sentences:
        if prefaces and chance(rng, 0.25) and not _FRONTED.match(_first_words(sentence)):
            _put_before(sentence, expand(rng, parse(prefaces.pop()), {}))
    sentences += _quotes_and_links(rng, parts, test, say)
    sentences = shuffled(rng, sentences + [Sentence("opener", [])])
    _begin(rng, sentences, lambda kind: say(kind, wording(kind), {}))
    phrases = {"E": tuple(choice(rng, parts["names"][0]).split(" | "))}
    trades = dict(zip(("p1", "p2", "who"), shuffled(rng, world.TRADES), strict=False))
    target = expand(rng, parse(choice(rng, parts["highlights"][0])), GOLD_NAMES)
    return event, Plan(values, sentences, phrases, trades, target)


# Sentences that begin like this read badly after "According to the town clerk, ".
_FRONTED = re.compile(
    r"(In|On|By|At|As|From|Until|After|According|Without|While|Over|To|So|Near|Nobody|Inside|Altogether|Behind|One|Among"
    r"|Clerks|Lawyers|Missing|Gone|Side|Young|Few|Some|All|Most|Wrapped|Surveyors|Visitors|For|Down|Day|Organisers"
    r"|Officers|Space|Shortly|The union|Charged|Invited|It)\b"
)


def _first_words(sentence: Sentence) -> str:
    """The text with which a sentence begins; empty if that is a value."""
    return next((payload for kind, payload in sentence.pieces if kind != CUE), "")


def _put_before(sentence: Sentence, preface: list[Piece]) -> None:
    """Put "According to the town clerk, " before a sentence, which then goes on in lower case."""
    at = next(i for i, (kind, _) in enumerate(sentence.pieces) if kind != CUE)
    kind, payload = sentence.pieces[at]
    if kind == TEXT:
        sentence.pieces[at] = (TEXT, payload[0].lower() + payload[1:])
    (_, last) = preface[-1]
    sentence.pieces = [*preface[:-1], (TEXT, last.rstrip() + " "), *sentence.pieces]


def _quotes_and_links(rng: random.Random, parts: dict, test: bool, say: Callable) -> list[Sentence]:
    """Quotes, and sentences in which a gold person or town and a distractor occur side by side, in random order."""
    quotes = [list(parse(text)) for text in shuffled(rng, parts["quote"][test])]
    frames = shuffled(rng, news.COMMON["frame"][test])
    speakers = shuffled(rng, ["p1", "p2"])
    result = []
    pair = shuffled(rng, ["who", speakers[1]])
    names = {
        "Q": expand(rng, tuple(quotes.pop()), {}),
        "pa": pair[0],
        "pb": pair[1],
        "Pa": f"+{pair[0]}",
        "Pb": f"+{pair[1]}",
    }
    result.append(say("link", choice(rng, news.COMMON["people"][test]), names))
    for speaker in speakers[: 1 if chance(rng, 0.55) else 2]:
        names = {"Q": expand(rng, tuple(quotes.pop()), {}), "P": f"+{speaker}"}
        result.append(say("quote", frames.pop(), names))
    if chance(rng, 0.85):
        pair = shuffled(rng, ["where", choice(rng, ["l1", "l2"])])
        result.append(say("link", choice(rng, news.COMMON["towns"][test]), {"la": pair[0], "lb": pair[1]}))
    return result


def _begin(rng: random.Random, sentences: list[Sentence], say: Callable[[str], Sentence]) -> None:
    """Let the article begin like one. Only sentences without a gold fact move, so gold ones may stand anywhere."""
    at = next(i for i, sentence in enumerate(sentences) if sentence.kind == "opener")
    if sentences[0].kind in SLOTS:
        sentences[at] = say("background")
        return
    sentences[at] = sentences[0]
    sentences[0] = say("opener")


def _fact(slot: str, plan: Plan, article: Rendered, in_target: tuple[int, int]) -> dict:
    """The record of one fact: what, said how, and where it stands."""
    value = plan.values[slot]
    return {
        "slot": slot,
        "type": value.type,
        "value": value.text,
        "stated": value.stated,
        "forms": list(value.forms),
        "value_spans": [list(span) for span in article.values[slot]],
        "cue_spans": [list(span) for span in article.cues.get(slot, [])],
        "sentence_span": next([start, end] for kind, start, end in article.sentences if kind == slot),
        "highlight_span": list(in_target),
        "transformed": value.transformed,
        "distractors": [
            other.text
            for key, other in plan.values.items()
            if key != slot and other.type == value.type and key in article.values
        ],
    }


def _news_row(row_id: str, event: str, plan: Plan) -> dict:
    article = render(plan)
    highlights, spans = render_target(plan)
    facts = [_fact(slot, plan, article, spans[slot]) for slot in SLOTS if slot in spans]
    return {"id": row_id, "article": article.text, "highlights": highlights, "event": event, "facts": facts}


def _check(count: int, split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if count < 0:
        raise ValueError(f"count must not be negative, but is {count}")


def news_rows(count: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """`count` news rows: id, article, highlights (one sentence a line), event, facts."""
    _check(count, split)
    for index in range(count):
        yield _news_row(f"news-{split}-{seed}-{index:06d}", *news_plan(split, seed, index))


def twin(row: dict, slot: str, seed: int = 0, same_length: Callable[[str, str], bool] | None = None) -> dict:
    """The same news row with one fact's value swapped for another of its type, everywhere; the highlight follows.

    `same_length(old, new)` is asked for every way in which the value is written in the article and in the highlight,
    with the space before it where there is one, because a tokenizer counts it in. Raises ValueError if no value passes.
    """
    _, split, row_seed, index = row["id"].rsplit("-", 3)
    event, plan = news_plan(split, int(row_seed), int(index))
    old = plan.values[slot]
    mentions = {
        (row[text], *span)
        for fact in row["facts"]
        if fact["slot"] == slot
        for text, spans in (("article", fact["value_spans"]), ("highlights", [fact["highlight_span"]]))
        for span in spans
    }
    leads = {(text[a:b], " " if a and text[a - 1] == " " else "") for text, a, b in mentions}
    rng = generator("twin", row["id"], slot, seed)
    tried = {old.text}
    for _ in range(3000):
        new = draw(rng, old.type, split == "test", old.style or None)
        if new.text in tried or new.style != old.style or any(world.clash(new, one) for one in plan.values.values()):
            continue
        tried.add(new.text)
        written = {old.text: new.text, old.short: new.short, old.stated: new.stated}
        if same_length is None or all(same_length(lead + text, lead + written[text]) for text, lead in leads):
            values = {**plan.values, slot: new}
            return _news_row(f"{row['id']}-twin-{slot}-{seed}", event, replace(plan, values=values))
    raise ValueError(f"{row['id']}: no other {old.type} of the same length as {old.text!r} in 3000 draws")


# ---------------------------------------------------------------------------------------------------------------------
# Stories
# ---------------------------------------------------------------------------------------------------------------------
STORY_KINDS = {"who": "person", "friend": "person", "where": "place", "other": "place"}
SHE = {"she": "she", "her": "her", "his": "her"}
HE = {"she": "he", "her": "him", "his": "his"}


def _story_values(rng: random.Random, test: bool, things: tuple[str, ...]) -> dict[str, Value]:
    """Hero, friend, two towns and the thing. Stories go on with the first name."""
    values = draw_values(rng, test, STORY_KINDS)
    while values["who"].text.split()[0] == values["friend"].text.split()[0]:
        values = draw_values(rng, test, STORY_KINDS)
    for key in ("who", "friend"):
        first = values[key].text.split()[0]
        values[key] = replace(values[key], short=first, forms=(values[key].text, first))
    thing = choice(rng, things)
    values["thing"] = Value("thing", thing, thing, thing, (thing,))
    return values


def story_plan(split: str, seed: int, index: int) -> tuple[str, Plan]:
    """All that chance decides about one story: the plot and the plan."""
    rng = generator("synthetic_stories", split, seed, index)
    test = split == "test"
    plot = choice(rng, stories.PLOT_NAMES)
    parts = stories.PLOTS[plot]
    values = _story_values(rng, test, parts["things"][0])
    pronouns = SHE if world.is_she(values["who"].short) else HE
    names: dict[str, object] = {key: [(TEXT, word)] for key, word in pronouns.items()}
    names["a"] = [(TEXT, "an" if values["thing"].text[0] in "aeiou" else "a")]
    ending = choice(rng, tuple(stories.ENDINGS))
    sentences = []
    for kind, count in stories.ORDER.items():
        part = f"ending {ending}" if kind == "ending" else kind
        options = (parts if part in parts else stories.COMMON)[part][test]
        for wording in shuffled(rng, options)[:count]:
            sentences.append(Sentence(kind, expand(rng, parse(wording), names)))
    told = dict(names)
    told["goal"] = expand(rng, parse(choice(rng, parts["goal"][0])), names)
    promise = expand(rng, parse(stories.ENDINGS[ending]), names)
    told["ends"] = [(CUE, True), *promise, (CUE, False)]
    return plot, Plan(values, sentences, target=expand(rng, parse(choice(rng, stories.COMMON["prompt"][0])), told))


def _story_row(row_id: str, plot: str, plan: Plan) -> dict:
    story = render(plan)
    prompt, spans = render_target(plan)
    facts = []
    for slot in ("who", "where", "thing"):
        start, end = story.values[slot][0]
        sentence = next([a, b] for _, a, b in story.sentences if a <= start < b)
        value = plan.values[slot]
        facts.append(
            {
                "slot": slot,
                "type": value.type,
                "value": value.text,
                "stated": value.stated,
                "forms": list(value.forms),
                "value_spans": [list(span) for span in story.values[slot]],
                "cue_spans": [],
                "sentence_span": sentence,
                "highlight_span": list(spans[slot]),
                "transformed": False,
                "distractors": [
                    other.text
                    for key, other in plan.values.items()
                    if key != slot and other.type == value.type and key in story.values
                ],
            }
        )
    start, end = next((a, b) for kind, a, b in story.sentences if kind == "ending")
    told = prompt[slice(*spans["ending"])]
    facts.append(
        {
            "slot": "ending",
            "type": "ending",
            "value": story.text[start:end],
            "stated": told,
            "forms": [story.text[start:end], told],
            "value_spans": [[start, end]],
            "cue_spans": [],
            "sentence_span": [start, end],
            "highlight_span": list(spans["ending"]),
            "transformed": True,
            "distractors": [],
        }
    )
    return {"id": row_id, "prompt": prompt, "story": story.text, "plot": plot, "facts": facts}


def story_rows(count: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """`count` story rows: id, prompt, story, plot, facts; the spans say where the story does what the prompt asks."""
    _check(count, split)
    for index in range(count):
        yield _story_row(f"stories-{split}-{seed}-{index:06d}", *story_plan(split, seed, index))


# ---------------------------------------------------------------------------------------------------------------------
# Running text for pre-training
# ---------------------------------------------------------------------------------------------------------------------
def _background(seed: int, index: int) -> str:
    """A page of the town's records: lists that are read twice, numbers and dates written both ways.

    Here a small model can learn to copy and to rewrite, which the articles alone teach slowly.
    """
    rng = generator("background", seed, index)
    roll = rng.random()
    if roll < 0.3:
        kinds = [choice(rng, ("person", "place")) for _ in range(4 + int(rng.random() * 6))]
        names = ", ".join(draw(rng, kind, False).text for kind in kinds)
        return choice(rng, news.LISTS).format(names, names)
    if roll < 0.55:
        words = re.findall(r"[A-Za-z]+", render(news_plan("pretrain", seed, index)[1]).text)
        words = " ".join(shuffled(rng, words)[: 12 + int(rng.random() * 24)])
        return choice(rng, news.PROOFS).format(words, words)
    if roll < 0.7:
        homes = [(world.draw_person(rng, False), world.draw_place(rng, False).text) for _ in range(3)]
        lines = [f"{who.text} lives in {town}." for who, town in homes]
        lines += [choice(rng, news.LOOK_UP).format(who.short, town) for who, town in shuffled(rng, homes)]
        return " ".join(lines)
    values = [draw(rng, choice(rng, ("number", "date")), False) for _ in range(3 + int(rng.random() * 3))]
    return " ".join(choice(rng, news.RECORDS[value.type]).format(value.text, value.stated) for value in values)


def pretraining_texts(count: int, seed: int = 0) -> Iterator[str]:
    """`count` texts of the same world, in the words of split "pretrain": articles, stories, pages of records.

    No highlights and no prompts.
    """
    _check(count, "pretrain")
    for index in range(count):
        roll = generator("pretraining", seed, index).random()
        if roll < 0.55:
            yield render(news_plan("pretrain", seed, index)[1]).text
        elif roll < 0.75:
            yield render(story_plan("pretrain", seed, index)[1]).text
        else:
            yield _background(seed, index)


# ---------------------------------------------------------------------------------------------------------------------
# Audit: the promises that can be counted without a model
# ---------------------------------------------------------------------------------------------------------------------
def occurrences(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Spans of the form as whole words: "seven" is not in "forty-seven", nor 3 in 30."""
    start = text.find(form)
    while start >= 0:
        end = start + len(form)
        around = text[start - 1 : start] + text[end : end + 1]
        if not any(c.isalnum() or c == "-" for c in around):
            yield start, end
        start = text.find(form, start + 1)


def states(text: str, forms: list[str]) -> bool:
    """Whether the text states a value in one of its forms."""
    return any(True for form in forms for _ in occurrences(text, form))


def unlabelled(row: dict) -> list[str]:
    """Occurrences of gold values in the article that no span covers; must be none."""
    return [
        f"{row['id']}: {form}"
        for fact in row["facts"]
        for form in fact["forms"]
        for start, end in occurrences(row["article"], form)
        if not any(a <= start and end <= b for a, b in fact["value_spans"])
    ]


def lead(row: dict, spans: list[tuple[str, int, int]], sentences: int = 3) -> str:
    """The first sentences of the article."""
    return row["article"][: spans[sentences - 1][2]]


def wordings_of(plan: Plan) -> set[str]:
    """Every sentence of a plan with its values left open."""
    return {
        "".join(f"{{{payload}}}" if kind == KEY else payload for kind, payload in sentence.pieces if kind != CUE)
        for sentence in plan.sentences
    }


def association(pairs: list[tuple[object, object]]) -> float:
    """Cramer's V of two labels over the rows: 0 when independent, 1 when one fixes the other."""
    both, left, right = Counter(pairs), Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    n = len(pairs)
    chi2 = sum((both[a, b] - left[a] * right[b] / n) ** 2 / (left[a] * right[b] / n) for a in left for b in right)
    return (chi2 / n / max(1, min(len(left), len(right)) - 1)) ** 0.5


def _bucket(text: str) -> int:
    return sum(map(ord, text)) % 4


def audit_split(split: str, count: int, seed: int = 0) -> dict[str, object]:
    """Counts over `count` news rows of one split."""
    facts = repeats = transformed = enough = recalled = apart = 0
    words, value_words, recur = 0, 0, 0
    positions: Counter = Counter()
    labels: dict[str, list] = {"event": [], **{slot: [] for slot in SLOTS}}
    missing: list[str] = []
    for index, row in enumerate(news_rows(count, seed, split)):
        spans = render(news_plan(split, seed, index)[1]).sentences
        first = lead(row, spans)
        words += len(row["article"].split())
        missing += unlabelled(row)
        labels["event"].append(row["event"])
        for fact in row["facts"]:
            facts += 1
            labels[fact["slot"]].append(_bucket(fact["stated"]))
            repeats += len(fact["value_spans"]) - 1
            recur += len(fact["value_spans"]) > 1
            transformed += fact["transformed"]
            enough += len(fact["distractors"]) >= 2
            recalled += states(first, fact["forms"])
            apart += all(b <= c or d <= a for a, b in fact["value_spans"] for c, d in fact["cue_spans"])
            value_words += sum(len(row["article"][a:b].split()) for a, b in fact["value_spans"])
            at = next(i for i, (kind, _, _) in enumerate(spans) if kind == fact["slot"])
            positions[int(5 * (at + 0.5) / len(spans))] += 1
    names = list(labels)
    pairs = [association(list(zip(labels[a], labels[b], strict=True))) for i, a in enumerate(names) for b in names[:i]]
    return {
        "rows": count,
        "words per article": round(words / count, 1),
        "unlabelled occurrences": len(missing),
        "labelled repeats per fact": round(repeats / facts, 2),
        "facts that recur": round(recur / facts, 3),
        "cue apart from value": round(apart / facts, 3),
        ">= 2 distractors": round(enough / facts, 3),
        "transformed": round(transformed / facts, 3),
        "value share of words": round(value_words / words, 3),
        "gold position by fifth": [round(positions[i] / facts, 3) for i in range(5)],
        "lead-3 fact recall": round(recalled / facts, 3),
        "largest association (Cramer's V)": round(max(pairs), 3),
        "V by chance, event with value": round((11 * 3 / count / 3) ** 0.5, 3),
    }


def held_out_overlap(count: int, seed: int = 0) -> dict[str, int]:
    """How many values, pairs of values and article wordings of split "test" occur in any other split; all must be 0."""
    seen: dict[str, dict[str, set]] = {}
    for split in SPLITS:
        sets = seen.setdefault(
            "test" if split == "test" else "others", {name: set() for name in ("values", "pairs", "wordings")}
        )
        for index in range(count):
            for plan in (news_plan(split, seed, index)[1], story_plan(split, seed, index)[1]):
                stated = [value.stated for value in plan.values.values() if value.type != "thing"]
                sets["values"].update(stated)
                sets["pairs"].update((a, b) for a in stated for b in stated if a < b)
                sets["wordings"] |= wordings_of(plan)
    return {name: len(seen["test"][name] & seen["others"][name]) for name in ("values", "pairs", "wordings")}


def audit(count: int = 1000, seed: int = 0) -> dict[str, object]:
    """All that can be counted without a model."""
    start = time.process_time()
    for _ in news_rows(2000, seed):
        pass
    seconds = (time.process_time() - start) * 50
    report: dict[str, object] = {split: audit_split(split, count, seed) for split in SPLITS}
    report["test in other splits"] = held_out_overlap(count, seed)
    report["seconds per 100,000 articles"] = round(seconds, 1)
    return report


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------
SOURCES = {"synthetic_news": news_rows, "synthetic_stories": story_rows}


def readable(row: dict) -> str:
    """A row for the eye: the text, the target, and a line for each fact."""
    text, target = ("article", "highlights") if "article" in row else ("story", "prompt")
    lines = [f"== {row['id']}", row[text], f"-- {target}", row[target], "-- facts"]
    for fact in row["facts"]:
        cues = "; ".join(row[text][a:b] for a, b in fact["cue_spans"])
        lines.append(
            f"{fact['slot']}: {fact['value']} -> {fact['stated']}   at {fact['value_spans']}"
            + (f"   cue: {cues}" if cues else "")
            + f"   distractors: {', '.join(fact['distractors'])}"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Print rows, or the audit."""
    parser = argparse.ArgumentParser(description="Rows of the embedded synthetic corpus, or its audit.")
    parser.add_argument("--source", choices=[*SOURCES, "pretraining"], default="synthetic_news")
    parser.add_argument("--count", type=int, default=None, help="rows to print (3), or rows per split to audit (1000)")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jsonl", action="store_true", help="print one JSON object a line")
    parser.add_argument("--audit", action="store_true", help="print the counts that need no model")
    args = parser.parse_args(argv)
    if args.count is not None and args.count < 1:
        parser.error(f"--count must be at least 1, but is {args.count}")
    if args.audit:
        print(json.dumps(audit(args.count or 1000, args.seed), indent=2))
        return 0
    if args.source == "pretraining":
        for text in pretraining_texts(args.count or 3, args.seed):
            print(json.dumps({"text": text}) if args.jsonl else text + "\n")
        return 0
    for row in SOURCES[args.source](args.count or 3, args.seed, args.split):
        print(json.dumps(row, ensure_ascii=False) if args.jsonl else readable(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
