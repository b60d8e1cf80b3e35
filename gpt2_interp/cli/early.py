"""Answers that need none of the libraries, whose import takes seconds: --help, and most mistakes."""

from __future__ import annotations

import os
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Iterable, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

from gpt2_interp.cli.checks import validate
from gpt2_interp.cli.hugging_face_flags import Flag, flags_of, training_arguments
from gpt2_interp.cli.presets import NO_NAME, Command, preset_names, read_command
from gpt2_interp.cli.script_parser import ScriptParser, nearest
from gpt2_interp.cli.training_flags import OFTEN_USED, ExperimentArguments, TrainingDefaults
from gpt2_interp.cli.training_table import TABLE, WHOLE_MODEL, refusals
from gpt2_interp.cli.training_values import check_values
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.run_paths import RunPaths, check_can_write, check_run_name
from gpt2_interp.training.batch import batch_split

DESCRIPTION = "Fine-tune GPT-2 for summarization or creative writing and measure its inside at every checkpoint."
OURS = (ModelArguments, DataArguments, ExperimentArguments)
LARGEST = 10**12  # of whole numbers that a flag takes; libraries count seconds and steps in fewer digits than Python
_TRUE, _FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")  # as HfArgumentParser reads them


def check_command(argv: Sequence[str]) -> Command:
    """Return the preset and flags of gpt2_summarization.py, checked as far as no library is needed.

    Prints the help and exits if that is asked for. Raises InputError.
    """
    argv = list(argv)
    asked = [i for i, word in enumerate(argv) if word in ("-h", "--help")]
    if asked:
        make_parser(with_all="all" in argv[asked[0] + 1 : asked[0] + 2]).print_help()
        raise SystemExit(0)
    command, parser = read_command(argv), make_parser()
    known = parser._option_string_actions
    for key in command.settings:
        if f"--{key}" not in known:
            raise InputError(f"{command.preset}: unknown setting {key!r}{nearest(f'--{key}', known)}.")
    names = {word.split("=")[0].removeprefix("--") for word in command.flags if word.startswith("--")}
    for name, why in refusals():
        if {name, f"no_{name}"} & {*names, *command.settings}:
            raise InputError(f"--{name} is not a flag here: {why}.")
    if any(os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED")):
        raise InputError(f"accelerate is configured to shard the weights: {WHOLE_MODEL}.")
    given = vars(parser.parse_args(command.words))
    for name, value in given.items():
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise InputError(f"--{name} {value} is beyond any use: give a number below {LARGEST}.")
    if given["run_name"] is None:
        raise InputError(NO_NAME)
    check_run_name(given["run_name"])
    check_can_write(given["root"], RunPaths(given["run_name"], given["root"]).all())
    model, data, experiment = (group(**{one.name: given[one.name] for one in fields(group)}) for group in OURS)
    training = SimpleNamespace(**given)
    validate(model, data, experiment, training)
    # A preset's warm-up may go with the schedule that a flag takes the place of.
    check_values(training, names | set(command.settings) - {"warmup_steps"})
    batch_split(
        experiment.effective_batch_size,
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
        int(os.environ.get("WORLD_SIZE", "1")),
    )
    return command


def make_parser(with_all: bool = False) -> ScriptParser:
    """A parser of all flags. with_all: its help shows the rare ones of Hugging Face's TrainingArguments too."""
    parser = ScriptParser(
        prog="gpt2_summarization.py",
        usage="gpt2_summarization.py [PRESET] [flags]",
        description=DESCRIPTION,
        epilog=f"Presets: {', '.join(preset_names())}, or a path to a .yaml file. Flags override the preset.\n"
        + ("" if with_all else "--help all also shows the other flags of Hugging Face's TrainingArguments."),
    )
    for group in OURS:
        _add(parser.add_argument_group(group._argument_group_name), flags_of(group))
    training = training_arguments() | {one.name: one for one in flags_of(TrainingDefaults)}
    often = {name: training[name] for name in OFTEN_USED}
    _add(parser.add_argument_group("training (Hugging Face's TrainingArguments)"), often.values())
    others = [one for name, one in training.items() if name not in often]
    shown = [one for one in others if with_all and TABLE[one.name].fate != "refused"]
    _add(parser.add_argument_group("training, rarely needed"), shown)
    _add(parser, [one for one in others if one not in shown], hidden=True)
    return parser


def _add(group: Any, flags: Iterable[Flag], hidden: bool = False) -> None:
    """Add each flag to the parser or group, read as HfArgumentParser would read it, except for the library's enums."""
    for one in flags:
        settings = {key: value for key, value in one.metadata.items() if key in ("choices", "nargs", "const", "help")}
        settings["help"] = SUPPRESS if hidden else settings.get("help")
        bare = one.kind.partition("[")[0]
        if one.kind == "bool":
            settings["type"] = _truth
            if one.type == "bool" or one.default is not None:
                settings |= {"nargs": "?", "const": True}
        elif bare == "list":
            settings["nargs"] = "+"
        else:
            settings["type"] = {"int": int, "float": float}.get(one.kind, str)
        metavar = {"int": "N", "float": "X", "bool": "true|false"}.get(bare, "VALUE")
        if "choices" not in settings:
            settings["metavar"] = metavar
        group.add_argument(f"--{one.name}", default=one.default, **settings)
        if one.default is True and one.kind == "bool":
            group.add_argument(f"--no_{one.name}", action="store_false", dest=one.name, default=True, help=SUPPRESS)


def _truth(word: str) -> bool:
    if word.lower() not in _TRUE + _FALSE:
        raise ArgumentTypeError(f"{word!r} is not true or false")
    return word.lower() in _TRUE
