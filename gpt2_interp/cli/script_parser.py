"""The argument parser of every script: one sentence for a mistake, with the nearest flag that exists."""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import sys
from collections.abc import Iterable
from typing import NoReturn

from gpt2_interp.errors import InputError

WIDTH = 110  # characters of a line of --help at most, where the terminal has as many


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written; each flag with its default, where it has one that its help does not name."""

    def __init__(self, prog: str):
        columns = shutil.get_terminal_size((WIDTH, 24)).columns
        super().__init__(prog, max_help_position=36, width=max(60, min(WIDTH, columns - 2)))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        is_unset = shown is None or shown is False or shown in ("", argparse.SUPPRESS)
        return text if not text or is_unset or "default:" in text.lower() else f"{text} ({shown})"


class ScriptParser(argparse.ArgumentParser):
    """A parser that raises InputError where argparse would print its usage and end the program."""

    def __init__(self, **settings):
        super().__init__(**{"formatter_class": HelpFormatter, "allow_abbrev": False, **settings})

    def parse_known_args(self, args=None, namespace=None):
        """Parse, as argparse does. Raises InputError for a word or a working folder that no file could hold as text."""
        try:
            here = os.getcwd()
        except OSError:
            raise InputError("the folder that you are in does not exist any more: go to another one.") from None
        for word in [here, *(sys.argv[1:] if args is None else args)]:
            if any("\ud800" <= letter <= "\udfff" for letter in word):
                raise InputError(f"{word!r} is not UTF-8, so it can't be recorded: rename or convert it.")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown == message:
            raise InputError(f"{message.removeprefix('argument ')}; see --help.")
        raise InputError(f"unknown flag {unknown}{nearest_flag(unknown, self._option_string_actions)}; see --help.")


def nearest_flag(words: str, known: Iterable[str]) -> str:
    """Return " (did you mean --flag?)" for the first unknown flag in `words`, or nothing."""
    return nearest(next((word for word in words.split() if word.startswith("-")), "").split("=")[0], known)


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return " (did you mean NAME?)" with the known name that begins so or is most alike, or nothing."""
    known = list(known)
    begun = [name for name in known if wrong.strip("-") and name.startswith(wrong)]  # --temp of --temperature
    near = begun or difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
