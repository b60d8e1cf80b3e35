"""Presets (YAML files of flags) and the flags laid over them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import CONFIGS
from gpt2_interp.startup import HUB_FLAGS

if TYPE_CHECKING:
    from transformers import HfArgumentParser


def preset_names() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def preset_argv(preset: str | None, parser: HfArgumentParser, argv: Sequence[str]) -> list[str]:
    """A preset's settings as command-line words, so that the flags of `argv` behind them win; without those that the
    flags take the place of."""
    if preset is None:
        return []
    path = CONFIGS / f"{preset}.yaml" if not preset.endswith((".yaml", ".yml")) else Path(preset)
    if not path.is_file():
        raise InputError(
            f"there is no preset {preset!r}: use one of {', '.join(preset_names())}, or a path to a .yaml file."
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path} must hold `flag: value` lines.")
    settings.setdefault("run_name", path.stem)
    words, gone = [], superseded(argv, settings)
    for key, value in settings.items():
        if f"--{key}" not in parser._option_string_actions:
            near = difflib.get_close_matches(f"--{key}", parser._option_string_actions, n=1)
            raise InputError(
                f"{path}: unknown setting {key!r}" + (f" (did you mean {near[0][2:]!r}?)." if near else ".")
            )
        if key in gone:
            continue
        words.append(f"--{key}")
        if isinstance(value, list):
            words += [str(item) for item in value]
        else:
            words.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return words


def _underscored(word: str) -> str:
    """--run-name=x as --run_name=x; anything else unchanged."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value


def _last_value(words: list[str], name: str) -> str | None:
    value = None
    for i, word in enumerate(words):
        if word == name and i + 1 < len(words):
            value = words[i + 1]
        elif word.startswith(f"{name}="):
            value = word.split("=", 1)[1]
    return value


# A flag that is given -> settings of the preset that it takes the place of. The base model and the data can each be
# named in several ways, of which a run has one; a preset's way gives way to the command line's.
_HUB = {"dataset_name", "dataset_config_name", "dataset_revision"}


_FILES = {"train_file", "validation_file", "test_file"}


_MIXTURE = {"mixture", "source_files"}


SUPERSEDED = {
    "--dataset_name": _HUB | _FILES | _MIXTURE,
    "--train_file": _HUB | _MIXTURE,
    "--mixture": _HUB | _FILES,
    "--config_name": {"model_name_or_path"},
    "--model_name_or_path": {"config_name", "config_overrides", "new_tokenizer_size", "copying_start"},
}


_SIZES = {"max_train_samples", "max_eval_samples", "max_predict_samples"}


def superseded(argv: Iterable[str], settings: Collection[str]) -> set[str]:
    """Names of the preset's `settings` that the flags in `argv` take the place of.

    Files in the place of a dataset have sizes of their own: the preset's numbers of rows, which may be more than they
    have, go with its dataset.
    """
    flags = {_flag(word) for word in argv}
    names = set().union(*(SUPERSEDED.get(flag, ()) for flag in flags))
    if "--train_file" in flags and "train_file" not in settings:
        names |= _SIZES
    return names & set(settings)


def _flag(word: str) -> str:
    """--dataset_name of "--dataset-name=x"; any other word as it is."""
    return "--" + word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else word


def given_names(argv: Sequence[str], configs: Path) -> dict[str, str]:
    """Values of `HUB_FLAGS` in a preset and the flags over it, read without the real parser, which imports torch."""
    found: dict[str, str] = {}
    if argv and not argv[0].startswith("-"):
        preset = Path(argv[0]) if argv[0].endswith((".yaml", ".yml")) else configs / f"{argv[0]}.yaml"
        if preset.is_file():
            lines = re.findall(r"^(\w+): *([^\s#]+)", preset.read_text(encoding="utf-8"), re.MULTILINE)
            gone = superseded(argv, dict(lines))
            found = {f"--{key}": value for key, value in lines if f"--{key}" in HUB_FLAGS and key not in gone}
    for i, word in enumerate(argv):
        flag, (_, equals, value) = _flag(word), word.partition("=")
        if flag in HUB_FLAGS and (equals or i + 1 < len(argv)):
            found[flag] = value if equals else argv[i + 1]
    return found
