"""Every flag of gpt2_summarization.py, its help, and what makes no sense; YAML presets lie under the flags."""

from __future__ import annotations

import difflib
import os

from transformers import HfArgumentParser

from gpt2_interp.cli.checks import validate
from gpt2_interp.cli.presets import _last_value, _underscored, preset_argv, preset_names
from gpt2_interp.cli.training_flags import (
    ALL_ARGUMENTS,
    REFUSED,
    WHOLE_MODEL,
    ExperimentArguments,
    RunTrainingArguments,
)
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.run_paths import RunPaths


class ArgumentParser(HfArgumentParser):
    """HfArgumentParser whose complaints are one sentence, with the nearest flag that exists."""

    def error(self, message: str) -> None:
        raise InputError(f"{message}{self._suggestion(message)}; see --help.")

    def _suggestion(self, message: str) -> str:
        if not message.startswith("unknown flag"):
            return ""
        wrong = next((word for word in message.split() if word.startswith("--")), "")
        near = difflib.get_close_matches(wrong.split("=")[0], self._option_string_actions, n=1, cutoff=0.5)
        return f" (did you mean {near[0]}?)" if near else ""


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, ExperimentArguments, RunTrainingArguments]:
    """Flags over the preset named first (`configs/NAME.yaml` or a path), checked; output_dir follows from run_name."""
    argv = list(argv)
    preset = argv.pop(0) if argv and not argv[0].startswith("-") else None
    parser = ArgumentParser(
        ALL_ARGUMENTS,
        prog="gpt2_summarization.py",
        usage="gpt2_summarization.py [PRESET.yaml] [flags]",
        description="Fine-tune GPT-2 for summarization or creative writing and measure its inside at every checkpoint.",
        epilog=f"Presets: {', '.join(preset_names())}. Any flag overrides the preset's value.",
        allow_abbrev=False,
    )
    argv = [_underscored(word) for word in argv]
    given = preset_argv(preset, parser, argv) + argv
    for name, instead in REFUSED.items():
        if any(word.split("=")[0] == name for word in given):
            raise InputError(f"{name} is not a flag here: {instead}.")
    if any(os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED")):
        raise InputError(f"accelerate is configured to shard the weights: {WHOLE_MODEL}.")
    if not any(word.split("=")[0] == "--run_name" for word in given) and not {"-h", "--help"} & set(argv):
        raise InputError("give the run a name with --run_name; its results are kept under that name.")
    # The parser makes TrainingArguments at once, and those want an output_dir: so find the run's name first.
    name = _last_value(given, "--run_name")
    root = _last_value(given, "--root") or "."
    if name is not None:
        given += ["--output_dir", str(RunPaths(name, root).checkpoints)]
    try:
        model, data, experiment, training, unknown = parser.parse_args_into_dataclasses(
            given, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:  # TrainingArguments' own checks
        raise InputError(" ".join(str(error).split())) from None
    if unknown:
        parser.error(f"unknown flag {' '.join(unknown)}")
    validate(model, data, experiment, training)
    return model, data, experiment, training
