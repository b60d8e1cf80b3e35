"""The one reader of "PRESET --flag value ...": the run's name, its root, and the flags with the preset under them.

`python -m gpt2_interp.cli.presets PRESET [flags]` prints name and root, a line each, for run_experiment.sh.
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpt2_interp.cli.script_parser import ScriptParser
from gpt2_interp.errors import InputError, run_script
from gpt2_interp.run_paths import CONFIGS, check_run_name
from gpt2_interp.startup import HUB_FLAGS

SUFFIXES = (".yaml", ".yml")
NO_NAME = "give the run a name with --run_name; its results are kept under that name."

# A model and a dataset can be given in several ways, of which a run has one; a preset's way gives way to the command
# line's. A schedule and an optimizer take their own settings with them.
_HUB = {"dataset_name", "dataset_config_name", "dataset_revision"}
_FILES = {"train_file", "validation_file", "test_file"}
_MIXTURE = {"mixture", "source_files"}
SUPERSEDED = {
    "--dataset_name": _HUB | _FILES | _MIXTURE,
    "--train_file": _HUB | _MIXTURE,
    "--mixture": _HUB | _FILES,
    "--config_name": {"model_name_or_path"},
    "--model_name_or_path": {"config_name", "config_overrides", "new_tokenizer_size", "copying_start"},
    "--lr_scheduler_type": {"lr_scheduler_kwargs"},
    "--optim": {"optim_args", "optim_target_modules"},
}
_SIZES = {"max_train_samples", "max_eval_samples", "max_predict_samples"}


@dataclass(frozen=True)
class Command:
    """A command line: the preset's file, its settings as far as no flag replaces them, and the flags' words."""

    preset: Path | None
    settings: Mapping[str, Any]
    flags: Sequence[str]

    @property
    def words(self) -> list[str]:
        """Settings and flags as words for a parser. The flags stand last, so that they win."""
        words = []
        for key, value in self.settings.items():
            values = value if isinstance(value, list) else [value]
            words += [f"--{key}", *(json.dumps(one) if isinstance(one, dict) else str(one) for one in values)]
        return words + list(self.flags)

    def values(self, *flags: str) -> dict[str, str]:
        """The last value of each of these flags that was given, by flag. Raises InputError for a flag without value."""
        parser = ScriptParser(add_help=False)
        for flag in flags:
            parser.add_argument(flag, dest=flag)
        found = vars(parser.parse_known_args(self.words)[0])
        return {flag: value for flag, value in found.items() if value is not None}

    @property
    def run_name(self) -> str | None:
        return self.values("--run_name").get("--run_name")

    @property
    def root(self) -> Path:
        return Path(self.values("--root").get("--root", "."))

    @property
    def hub_names(self) -> dict[str, str]:
        """The values of `HUB_FLAGS`, which may have to come from the Hub."""
        return self.values(*HUB_FLAGS)


def preset_names() -> list[str]:
    """Return the names of the presets in configs/, sorted."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def read_command(argv: Sequence[str]) -> Command:
    """Read a preset (`configs/NAME.yaml`, or a path) and the flags behind it; --some-flag counts as --some_flag.

    Raises InputError for a preset that can't be read. Unknown flags are the parser's business.
    """
    argv = list(argv)
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    flags = [_underscored(word) for word in argv]
    if name is None:
        return Command(None, {}, flags)
    path = Path(name) if name.endswith(SUFFIXES) else CONFIGS / f"{name}.yaml"
    settings = _read(path, name)
    settings.setdefault("run_name", path.stem)
    gone = superseded(flags, settings)
    return Command(path, {key: value for key, value in settings.items() if key not in gone}, flags)


def _read(path: Path, name: str) -> dict[str, Any]:
    """The settings in a preset's file; a key without a value keeps its default."""
    if not path.is_file():
        raise InputError(
            f"there is no preset {name!r}: use one of {', '.join(preset_names())}, or a path to a .yaml file."
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path} must hold `flag: value` lines.")
    for key, value in settings.items():
        if not all(_is_plain(one) for one in (value if isinstance(value, list) else [value])):
            raise InputError(f"{path}: {key} must be a value, a list of values, or names with values.")
    return {str(key): value for key, value in settings.items() if value is not None}


def _is_plain(value: Any) -> bool:
    """Return whether `value` can be a word of a command line; an object of JSON's plain values is one."""
    if isinstance(value, dict):
        return all(one is None or isinstance(one, (str, int, float)) for pair in value.items() for one in pair)
    return not isinstance(value, (list, set))


def superseded(flags: Sequence[str], settings: Collection[str]) -> set[str]:
    """Names of the preset's `settings` that the flags take the place of.

    Files in the place of a dataset have sizes of their own: the preset's numbers of rows, which may be more than they
    have, go with its dataset.
    """
    given = {word.partition("=")[0] for word in flags if word.startswith("--")}
    names = set().union(*(SUPERSEDED.get(flag, ()) for flag in given))
    if "--train_file" in given and "train_file" not in settings:
        names |= _SIZES
    return names & set(settings)


def _underscored(word: str) -> str:
    """--run-name=x as --run_name=x; anything else unchanged."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def main() -> None:
    command = read_command(sys.argv[1:])
    if command.run_name is None:
        raise InputError(NO_NAME)
    print(check_run_name(command.run_name), command.root, sep="\n")


if __name__ == "__main__":
    run_script(main)
