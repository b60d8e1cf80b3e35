"""The answer of a model to one prompt, as it is kept (one JSON object) and as it is shown (text, a table of tokens).

An `Answer` knows where it comes from: the model's path and a fingerprint of its weights, the task, and every setting
that had an effect. Everything that is saved or printed about generated text is made from it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from gpt2_interp.errors import CONTROLS
from gpt2_interp.generation.settings import Decoding, plain

TOKEN_WIDTH = 18  # columns of a token in the table of probabilities


# --- what is kept ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A token that the model weighed. `text` is readable on its own: part of a character is written as its bytes."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class TokenChoice:
    """One token of the answer under the model's own distribution: before temperature, truncation and penalties.

    `rank` 1 is the likeliest token. `alternatives`: the likeliest tokens, the chosen one maybe among them.
    """

    chosen: Candidate
    rank: int
    alternatives: tuple[Candidate, ...]

    def record(self) -> dict[str, Any]:
        alternatives = [vars(candidate) for candidate in self.alternatives]
        return {**vars(self.chosen), "rank": self.rank, "alternatives": alternatives}


@dataclass(frozen=True)
class Continuation:
    """One generated text. `tokens` are the new ones without end-of-text; `ended` says why there are no more.

    `probabilities` (None: not asked for) has one entry more than `tokens` where the model itself ended the text: that
    of the end-of-text token.
    """

    text: str
    tokens: tuple[int, ...]
    ended: str  # "end of text" | "length" | "time" | "interrupted"
    seed: int | None
    probabilities: tuple[TokenChoice, ...] | None = None

    def record(self) -> dict[str, Any]:
        record = {"text": self.text, "ended": self.ended, "tokens": list(self.tokens), "seed": self.seed}
        if self.probabilities is not None:
            record["probabilities"] = [choice.record() for choice in self.probabilities]
        return record


@dataclass(frozen=True)
class Answer:
    """All sequences of one prompt; fewer than asked for if it was `interrupted`.

    `lead` is what stands before each of them when they are shown: the prompt that a plain text goes on from, as far as
    the model read it; empty where the answer stands alone (a summary, a story). `note`: what was cut, if anything.
    """

    prompt: str
    lead: str
    note: str | None
    source: dict[str, Any]  # model, weights, implementation, task, settings
    sequences: tuple[Continuation, ...]
    interrupted: bool = False

    @property
    def model(self) -> str:
        return self.source["model"]

    def record(self) -> dict[str, Any]:
        """Plain JSON values, the same on the screen, in files of answers and in saved sessions."""
        note = {"note": self.note} if self.note else {}
        return {"prompt": self.prompt, **note, **self.source, "sequences": [one.record() for one in self.sequences]}


def json_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


# --- how it is shown -------------------------------------------------------------------------------------------


def for_reader(text: str, out: TextIO) -> str:
    """The text as `out` should get it: unchanged in a file or pipe; at a terminal with control characters spelled out.

    An escape sequence in a generated text or a prompt could otherwise clear the screen or set the window's title.
    """
    return text.translate(CONTROLS) if out.isatty() else text


class Page:
    """Text for a reader: each sequence under its header, behind its lead; whole, or piece by piece while it is written.

    strip: without white space around the sequences, as of a summary, which continues nothing.
    """

    def __init__(self, out: TextIO, lead: str, strip: bool):
        self.out, self.lead, self.strip = out, lead, strip

    def _put(self, text: str) -> None:
        self.out.write(for_reader(text, self.out))

    def begin(self, index: int, count: int, seed: int | None) -> None:
        """The header of sequence `index` (from 0) of `count` (none above a single one), and the lead."""
        if count > 1:
            self._put(f"--- {index + 1} of {count}{'' if seed is None else f', seed {seed}'} ---\n")
        self._put(self.lead)
        self.is_empty, self.held = True, ""
        self.out.flush()

    def write(self, piece: str) -> None:
        text = self.held + piece
        self.held = ""
        if self.strip:
            text = text.lstrip() if self.is_empty else text
            kept = text.rstrip()
            text, self.held = kept, text[len(kept) :]  # white space stays only if something follows
        self.is_empty = self.is_empty and not text
        self._put(text)
        self.out.flush()

    def end(self, sequence: Continuation | None = None) -> None:
        """The line break after a sequence, and its table."""
        self._put("\n")
        if sequence is not None and sequence.probabilities is not None:
            self._put("".join(f"{line}\n" for line in ("", *_table(sequence.probabilities), "")))
        self.out.flush()


def shown(answer: Answer) -> str:
    """The answer as text for a reader, ending in a line break."""
    page = Page(io.StringIO(), answer.lead, strip=False)
    for index, sequence in enumerate(answer.sequences):
        page.begin(index, len(answer.sequences), sequence.seed)
        page.write(sequence.text)
        page.end(sequence)
    return page.out.getvalue()


def model_header(model: str) -> str:
    """The line above an answer where two models answer."""
    return f"=== {model} ===\n"


def _table(choices: Sequence[TokenChoice]) -> Iterator[str]:
    """One line a token: the token, its probability, its rank and the likeliest tokens there."""
    yield f"{'token':<{TOKEN_WIDTH}} probability   rank   likeliest tokens"
    for choice in choices:
        alternatives = "  ".join(f"{quoted(one.text)} {one.probability:.3f}" for one in choice.alternatives)
        token, probability = quoted(choice.chosen.text), choice.chosen.probability
        yield f"{token:<{TOKEN_WIDTH}} {probability:>11.4f} {choice.rank:>6}   {alternatives}"


def quoted(text: str) -> str:
    """Put a text in quotation marks, with line breaks and tabs visible: a token's spaces belong to it."""
    return json.dumps(text, ensure_ascii=False)


OFF = {"no_repeat_ngram": 0, "repetition_penalty": 1, "num_sequences": 1}  # what changes nothing is not worth a word


def described(decoding: Decoding) -> str:
    """The settings that have an effect, on a line: "top_p: temperature 1, top_p 0.9, max_new_tokens 100, seed 42" """
    values = decoding.record()
    method = values.pop("decoding")
    words = [f"{name} {plain(value)}" for name, value in values.items() if OFF.get(name) != value]
    return f"{method}: {', '.join(words)}"
