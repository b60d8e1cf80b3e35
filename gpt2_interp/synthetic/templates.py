"""Templates of the synthetic corpus and how they become text, with the span of every value and cue.

A template says "[cue words]", "(this|that)" to choose from and "{key}" for a value or a name.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from gpt2_interp.synthetic.world import Value, choice

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
    """The part of a text that chance decides. Rendering adds no chance, so a twin is a plan with one value replaced."""

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
