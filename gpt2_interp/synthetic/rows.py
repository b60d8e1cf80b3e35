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

    python -m gpt2_interp.audit --source synthetic_news --count 3 --split train --seed 0
    python -m gpt2_interp.audit --audit
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from gpt2_interp.synthetic import wordings, world
from gpt2_interp.synthetic.templates import (
    CUE,
    TEXT,
    Piece,
    Plan,
    Rendered,
    Sentence,
    expand,
    parse,
    render,
    render_target,
)
from gpt2_interp.synthetic.world import Value, chance, choice, draw_value, generator, shuffled

SPLITS = ("pretrain", "train", "validation", "test")
SLOTS = {"who": "person", "where": "place", "how_many": "number", "when": "date"}
DISTRACTORS = {"p": "person", "l": "place", "n": "number", "d": "date"}  # article keys p1, p2, l1, l2, ...


# ---------------------------------------------------------------------------------------------------------------------
# News
# ---------------------------------------------------------------------------------------------------------------------
def draw_values(rng: random.Random, test: bool, kinds: dict[str, str]) -> dict[str, Value]:
    """A value for each key, none that could be taken for another."""
    values: dict[str, Value] = {}
    for key, kind in kinds.items():
        value = draw_value(rng, kind, test)
        while any(world.clash(value, other) for other in values.values()):
            value = draw_value(rng, kind, test)
        values[key] = value
    return values


NEWS_KINDS = {**SLOTS, **{f"{letter}{i}": kind for i in (1, 2) for letter, kind in DISTRACTORS.items()}}
GOLD_NAMES = {"n": "how_many", "d": "when"}


def news_plan(split: str, seed: int, index: int) -> tuple[str, Plan]:
    """All that chance decides about one news row: the event and the plan."""
    rng = generator("synthetic_news", split, seed, index)
    test = split == "test"
    values = draw_values(rng, test, NEWS_KINDS)
    event = choice(rng, wordings.EVENT_NAMES)
    parts = wordings.EVENTS[event]

    def say(kind: str, wording: str, names: dict[str, object]) -> Sentence:
        return Sentence(kind, expand(rng, parse(wording), names))

    def wording(kind: str) -> str:
        return choice(rng, (parts if kind in parts else wordings.NEWS)[kind][test])

    sentences = [say(slot, wording(slot), GOLD_NAMES) for slot in SLOTS]
    for i, text in enumerate(shuffled(rng, parts["distractor"][test])[:2], start=1):
        sentences.append(say("distractor", text, {letter: f"{letter}{i}" for letter in DISTRACTORS}))
    prefaces = shuffled(rng, wordings.NEWS["preface"][test])
    for sentence in sentences:
        if prefaces and chance(rng, 0.25) and not _FRONTED.match(_first_words(sentence)):
            _put_before(sentence, expand(rng, parse(prefaces.pop()), {}))
    sentences += _quotes_and_links(rng, parts, test, say)
    spare = [say("background", text, {}) for text in shuffled(rng, parts["background"][test])]
    if chance(rng, 0.6):
        sentences.append(spare.pop())
    sentences = shuffled(rng, [*sentences, Sentence("opener", [])])
    _begin(sentences, say("opener", wording("opener"), {}), spare.pop())
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
    """Quotes, and sentences in which two people or two towns occur side by side, in random order."""
    quotes = [list(parse(text)) for text in shuffled(rng, parts["quote"][test])]
    frames = shuffled(rng, wordings.NEWS["frame"][test])
    people = shuffled(rng, ["p1", "p2"])
    # The gold person stands in it half the time, so that people recur equally often, gold or not.
    pair = shuffled(rng, [people[0], "who"]) if chance(rng, 0.5) else people
    speakers = sorted(
        people, key=lambda one: one in pair
    )  # whoever is not in it speaks first: nobody stays unmentioned
    result = []
    names = {
        "Q": expand(rng, tuple(quotes.pop()), {}),
        "pa": pair[0],
        "pb": pair[1],
        "Pa": f"+{pair[0]}",
        "Pb": f"+{pair[1]}",
    }
    result.append(say("link", choice(rng, wordings.NEWS["people"][test]), names))
    for speaker in speakers[: 1 if chance(rng, 0.55) else 2]:
        names = {"Q": expand(rng, tuple(quotes.pop()), {}), "P": f"+{speaker}"}
        result.append(say("quote", frames.pop(), names))
    if chance(rng, 0.85):
        pair = shuffled(rng, ["where", "l1", "l2"])[:2]
        result.append(say("link", choice(rng, wordings.NEWS["towns"][test]), {"la": pair[0], "lb": pair[1]}))
    return result


def _begin(sentences: list[Sentence], opener: Sentence, spare: Sentence) -> None:
    """Let the article begin like one, in place. Only sentences without a gold fact move: gold ones may stand anywhere.

    A gold sentence that comes first stays; then `spare` is said where the opener would have gone.
    """
    at = next(i for i, sentence in enumerate(sentences) if sentence.kind == "opener")
    if sentences[0].kind in SLOTS:
        sentences[at] = spare
        return
    sentences[at] = sentences[0]
    sentences[0] = opener


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


def check_count(count: int, split: str = "train") -> None:
    """Refuse a split that doesn't exist or a negative count. Raises ValueError."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if count < 0:
        raise ValueError(f"count must not be negative, but is {count}")


def news_rows(count: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Yield `count` news rows: id, article, highlights (one sentence a line), event, facts."""
    check_count(count, split)
    for index in range(count):
        yield _news_row(f"news-{split}-{seed}-{index:06d}", *news_plan(split, seed, index))


def twin(row: dict, slot: str, seed: int = 0, same_length: Callable[[str, str], bool] | None = None) -> dict:
    """Return the same news row with one fact's value swapped for another of its type, everywhere; the highlight
    follows.

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
    # A highlight's first word has a space before it too: examples.py puts it there.
    leads = {
        (text[a:b], " " if text[:a][-1:] == " " or (not a and text == row["highlights"]) else "")
        for text, a, b in mentions
    }
    rng = generator("twin", row["id"], slot, seed)
    tried = {old.text}
    for _ in range(3000):
        new = draw_value(rng, old.type, split == "test", old.style or None)
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
    plot = choice(rng, wordings.PLOT_NAMES)
    parts = wordings.PLOTS[plot]
    values = _story_values(rng, test, parts["things"][0])
    pronouns = SHE if world.is_she(values["who"].short) else HE
    names: dict[str, object] = {key: [(TEXT, word)] for key, word in pronouns.items()}
    names["a"] = [(TEXT, "an" if values["thing"].text[0] in "aeiou" else "a")]
    ending = choice(rng, tuple(wordings.ENDINGS))
    sentences = []
    for kind, count in wordings.STORY_ORDER.items():
        part = f"ending {ending}" if kind == "ending" else kind
        options = (parts if part in parts else wordings.STORIES)[part][test]
        for wording in shuffled(rng, options)[:count]:
            sentences.append(Sentence(kind, expand(rng, parse(wording), names)))
    told = dict(names)
    told["goal"] = expand(rng, parse(choice(rng, parts["goal"][0])), names)
    promise = expand(rng, parse(wordings.ENDINGS[ending]), names)
    told["ends"] = [(CUE, True), *promise, (CUE, False)]
    return plot, Plan(values, sentences, target=expand(rng, parse(choice(rng, wordings.STORIES["prompt"][0])), told))


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
    """Yield `count` story rows: id, prompt, story, plot, facts; the spans say where the story does what the prompt
    asks."""
    check_count(count, split)
    for index in range(count):
        yield _story_row(f"stories-{split}-{seed}-{index:06d}", *story_plan(split, seed, index))


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------
EMBEDDED_ROWS = {"synthetic_news": news_rows, "synthetic_stories": story_rows}
