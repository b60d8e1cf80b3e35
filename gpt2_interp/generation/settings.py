"""Settings of generation: what each means, where it has an effect, and which make no sense together.

Field names are the flags' names. This module imports no library, so that --help and mistakes are answered at once.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gpt2_interp.errors import InputError

METHODS = ("greedy", "beam", "sampling", "top_k", "top_p")
RANDOM = ("sampling", "top_k", "top_p")  # the methods that draw
TRUNCATED = ("top_k", "top_p")


@dataclass(frozen=True)
class Setting:
    """One setting: its type, where it has an effect, its default there (method -> value, or one for all methods), its
    range (`least` and `most` are allowed themselves, `above` is not), and one line of help without the default."""

    kind: type
    help: str
    methods: tuple[str, ...] = METHODS
    default: Any = None
    least: float | None = None
    most: float | None = None
    above: float | None = None

    def default_in(self, method: str) -> Any:
        return self.default.get(method) if isinstance(self.default, Mapping) else self.default

    def help_with_default(self) -> str:
        """Return the line of help, with the default in brackets before its full stop."""
        if isinstance(self.default, Mapping):
            words = [f"{plain(value)} with --decoding {method}" for method, value in self.default.items()]
        else:
            words = [] if self.default is None else [plain(self.default)]
        return self.help.removesuffix(".") + (f" ({', '.join(words)})." if words else ".")

    def range(self) -> str:
        """The values allowed, in words."""
        if self.above is not None:
            return f"above {self.above:g}" + (f" and at most {self.most:g}" if self.most is not None else "")
        if self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        return f"at least {self.least:g}"

    def allows(self, value: float) -> bool:
        too_low = (self.least is not None and value < self.least) or (self.above is not None and value <= self.above)
        return math.isfinite(value) and not too_low and (self.most is None or value <= self.most)


SETTINGS: dict[str, Setting] = {
    "decoding": Setting(
        str,
        "greedy (the likeliest token), beam (the likeliest of several continuations), sampling (a token by its "
        "probability), top_k (among the k likeliest), top_p (among the likeliest that together have probability p).",
        default="greedy",
    ),
    "num_beams": Setting(int, "beam: continuations kept at each step.", ("beam",), 4, least=2, most=1000),
    "early_stopping": Setting(
        bool,
        "beam: stop as soon as num_beams continuations have ended, though a better one may come.",
        ("beam",),
        False,
    ),
    "length_penalty": Setting(
        float,
        "beam: log-probabilities are divided by length ** this; above 0 favours long texts, below 0 short ones.",
        ("beam",),
        1.0,
        least=-10,
        most=10,
    ),
    "no_repeat_ngram": Setting(
        int, "No n tokens in a row occur twice, the prompt's included; 0 allows it.", default=0, least=0
    ),
    "repetition_penalty": Setting(
        float,
        "Logits of tokens that occurred (in the prompt too) are divided by this, negative ones multiplied; 1 is off.",
        default=1.0,
        least=0.01,  # below, float32 overflows
        most=100,
    ),
    "temperature": Setting(
        float, "Logits are divided by this: below 1 is safer, above 1 more varied.", RANDOM, 1.0, 0.01, 100
    ),
    "top_k": Setting(
        int,
        "Draw among the k likeliest tokens.",
        TRUNCATED,
        {"top_k": 50},
        least=1,
    ),
    "top_p": Setting(
        float,
        "Draw among the fewest tokens that have probability p together, after top_k.",
        TRUNCATED,
        {"top_p": 0.9},
        above=0,
        most=1,
    ),
    "max_length": Setting(int, "Most tokens of prompt and continuation together.", least=2),
    "max_new_tokens": Setting(
        int, "Most tokens of a continuation; fewer where the context ends.", default=100, least=1
    ),
    "max_seconds": Setting(
        float, "Stop after X seconds and keep what is written; a batch of prompts shares them.", above=0
    ),
    "num_sequences": Setting(
        int,
        "Continuations of each prompt: drawn ones, or the best beams.",
        ("beam", *RANDOM),
        1,
        least=1,
        most=1000,
    ),
    "seed": Setting(int, "The same seed draws the same text, alone or in a batch.", RANDOM, 42, least=0, most=2**32),
}
BATCH_SIZE = 16  # sequences or beams that are written at once


def has_effect(name: str, method: str) -> bool:
    """Return whether setting `name` belongs to what `method` does; greedy search has one sequence, and no more."""
    return method in SETTINGS[name].methods or name == "num_sequences"


@dataclass(frozen=True)
class DecodingSettings:
    """The settings of one request; None means that a setting was not given. `filled()` puts the defaults in."""

    decoding: str = SETTINGS["decoding"].default
    num_beams: int | None = None
    early_stopping: bool | None = None
    length_penalty: float | None = None
    no_repeat_ngram: int | None = None
    repetition_penalty: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    max_length: int | None = None
    max_new_tokens: int | None = None
    max_seconds: float | None = None
    num_sequences: int | None = None
    seed: int | None = None

    def given(self) -> dict[str, Any]:
        """Return the settings that are not None, by name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def resolve(self) -> Decoding:
        """Check the settings and add the default of every other one that has an effect with this method.

        Raises InputError that names the flag.
        """
        if self.decoding not in METHODS:
            raise InputError(f"--decoding {self.decoding} is not known: use one of {', '.join(METHODS)}.")
        given = self.given()
        for name, value in given.items():
            _check_value(name, value)
        for name, value in given.items():
            self._check_effect(name, value)
        if self.max_length is not None and self.max_new_tokens is not None:
            raise InputError("--max_length counts the prompt too and --max_new_tokens does not: give one of the two.")
        values = {
            name: setting.kind(given[name]) if name in given else setting.default_in(self.decoding)
            for name, setting in SETTINGS.items()
            if name != "decoding" and has_effect(name, self.decoding)
        }
        if self.max_length is not None:
            values["max_new_tokens"] = None
        default_length = self.max_length is None and self.max_new_tokens is None
        found = Decoding(self.decoding, **values, default_length=default_length)
        if found.method == "beam" and found.num_sequences > found.num_beams:
            raise InputError(
                f"--num_sequences {found.num_sequences} exceeds --num_beams {found.num_beams}: "
                f"beam search has no more continuations than beams."
            )
        return found

    def _check_effect(self, name: str, value: Any) -> None:
        """Refuse setting `name` if it changes nothing with this method. Raises InputError."""
        if self.decoding in SETTINGS[name].methods:
            return
        if name == "num_sequences":
            if value == 1:
                return
            raise InputError(
                "--num_sequences: greedy decoding has one continuation; use --decoding beam, sampling, top_k or top_p."
            )
        use = " or ".join(m for m in SETTINGS[name].methods if name not in TRUNCATED or m == name)
        raise InputError(
            f"--{name} has no effect with --decoding {self.decoding}: use --decoding {use}, or leave it out."
        )

    def changed(self, name: str, text: str) -> DecodingSettings:
        """Return the settings with one read from `text`; "none" and "default" take it back.

        `decoding` takes along only the settings that have an effect with the new method. Raises InputError for an
        unknown name (the nearest one is named) and for an unreadable value; `resolve` finds the other mistakes.
        """
        name, text = name.strip().lstrip("-").replace("-", "_"), text.strip()
        if name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SETTINGS)}."
            raise InputError(f"there is no setting {name!r}: {hint}")
        value = None if text.lower() in ("none", "default") else read_setting(name, text)
        if name == "decoding":
            value = value or SETTINGS[name].default
            kept = {key: v for key, v in self.given().items() if value in SETTINGS[key].methods}
            return DecodingSettings(**{**kept, "decoding": value})
        other = {"max_length": "max_new_tokens", "max_new_tokens": "max_length"}.get(name)
        return replace(self, **{name: value, **({other: None} if other and value is not None else {})})


@dataclass(frozen=True)
class Decoding:
    """Every setting of how texts are written, with its value, as `DecodingSettings.resolve` has checked it.

    A setting without effect in this method has the value that changes nothing. None: no such limit; for seed: nothing
    is drawn. Exactly one of max_length (tokens, the prompt's counted) and max_new_tokens is set.
    """

    method: str
    num_beams: int = 1
    early_stopping: bool = False
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0
    num_sequences: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    max_length: int | None = None
    max_new_tokens: int | None = None
    max_seconds: float | None = None
    default_length: bool = field(default=False, compare=False)  # nobody asked for max_new_tokens, the default

    @property
    def is_beam(self) -> bool:
        return self.method == "beam"

    @property
    def is_random(self) -> bool:
        return self.method in RANDOM

    def record(self) -> dict[str, Any]:
        """Return the settings that have an effect, by the flags' names: what is kept beside an answer."""
        values = {"decoding": self.method}
        values |= {name: getattr(self, name) for name in SETTINGS if name != "decoding"}
        return {name: value for name, value in values.items() if value is not None and has_effect(name, self.method)}

    def room(self, prompt_length: int, n_positions: int) -> int:
        """Return the most new tokens behind a prompt of `prompt_length` tokens: the number asked for, or what the
        context of `n_positions` tokens leaves. Raises InputError if it leaves no token."""
        left = n_positions - prompt_length
        if left < 1:
            raise InputError(
                f"the prompt has {prompt_length} tokens and the model's context {n_positions}: shorten the prompt."
            )
        if self.max_length is None:
            return min(left, self.max_new_tokens)
        if self.max_length <= prompt_length:
            raise InputError(
                f"the prompt's {prompt_length} tokens leave nothing of --max_length {self.max_length}: raise it, or "
                f"use --max_new_tokens, which does not count the prompt."
            )
        return min(left, self.max_length - prompt_length)


def _check_value(name: str, value: Any) -> None:
    """Refuse a value of the wrong type or out of range. Raises InputError."""
    setting = SETTINGS[name]
    if setting.kind in (str, bool):
        if not isinstance(value, setting.kind):
            raise InputError(
                f"--{name} must be {'true or false' if setting.kind is bool else 'a word'}, not {value!r}."
            )
        return
    numbers = (int,) if setting.kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, numbers):
        kind = "a whole number" if setting.kind is int else "a number"
        raise InputError(f"--{name} must be {kind}, not {value!r}.")
    if name == "temperature" and value == 0:
        raise InputError("--temperature 0 leaves the likeliest token alone: use --decoding greedy.")
    if name == "num_beams" and value == 1:
        raise InputError("--num_beams 1 is greedy search: use --decoding greedy, or at least 2 beams.")
    if not setting.allows(value):
        raise InputError(f"--{name} {value:g} is out of range: it must be {setting.range()}.")


def plain(value: object) -> str:
    """Return a setting's value as it is typed: 1 for 1.0, true for True."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_setting(name: str, text: str) -> Any:
    kind = SETTINGS[name].kind
    if kind is bool:
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if text.lower() not in words:
            raise InputError(f"--{name} {text}: write true or false.")
        return words[text.lower()]
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"--{name} {text!r} can't be read: write {what}, or none for the default.") from None
