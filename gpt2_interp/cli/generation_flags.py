"""The flags of generate_text.py, and which of them have no effect together. Imports no library."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gpt2_interp.cli.script_parser import ScriptParser
from gpt2_interp.data.settings import TASKS
from gpt2_interp.errors import InputError
from gpt2_interp.generation import prompts_file
from gpt2_interp.generation.prompts_file import PROMPT_COLUMNS
from gpt2_interp.generation.settings import BATCH_SIZE, SETTINGS, DecodingSettings, read_setting
from gpt2_interp.model.settings import IMPLEMENTATIONS

# Flags that have no effect everywhere -> the ways of asking in which they have one.
PROMPT, FILE, SESSION = "with a single prompt", "with --prompts_file", "in an interactive session"
EFFECTS = {
    "output_file": (PROMPT, FILE),
    "overwrite": (PROMPT, FILE),
    "batch_size": (PROMPT, FILE),
    "text_column": (FILE,),
    "json": (PROMPT, SESSION),
    "compare_to": (PROMPT, SESSION),
    "compare_implementations": (PROMPT,),
}
NOT_WITH_IMPLEMENTATIONS = (
    "implementation", "compare_to", "output_file", "overwrite", "batch_size", "show_probabilities", "device",
)  # fmt: skip


def parse_arguments(argv: Sequence[str], doc: str) -> tuple[argparse.Namespace, DecodingSettings]:
    """Return the flags and the settings of decoding. Raises InputError for those that make no sense together.

    doc: what --help says before the flags (first paragraph) and behind them.
    """
    summary, _, rest = doc.partition("\n\n")
    parser = ScriptParser(usage="generate_text.py --model_path MODEL [flags]", description=summary, epilog=rest)
    add_model_flags(parser.add_argument_group("model"))
    add_prompt_flags(parser.add_argument_group("prompts (none of the first three: an interactive session)"))
    group = parser.add_argument_group("decoding (in brackets: the default)")
    for name, setting in SETTINGS.items():
        reading = {"nargs": "?", "const": True} if setting.kind is bool else {}
        metavar = {int: "N", float: "X", bool: "true|false", str: "METHOD"}[setting.kind]
        group.add_argument(
            f"--{name}", type=partial(read_setting, name), metavar=metavar, help=setting.help_with_default(), **reading
        )
    arguments = parser.parse_args(argv)
    refuse_without_effect(arguments)
    settings = {name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None}
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise InputError("--batch_size must be at least 1.")
    if arguments.prompts_file is not None and arguments.output_file is None:
        arguments.output_file = prompts_file.default_output(arguments.prompts_file)
    return arguments, DecodingSettings(**settings)


def add_model_flags(group) -> None:
    group.add_argument(
        "--model_path", required=True, metavar="MODEL", help="Folder, LoRA adapter's folder or Hub name."
    )
    group.add_argument("--base_model", metavar="MODEL", help="Base of a LoRA adapter, if its folder has moved.")
    group.add_argument(
        "--implementation",
        choices=IMPLEMENTATIONS,
        help=f"Hugging Face's GPT-2, or the one from scratch ({IMPLEMENTATIONS[0]}).",
    )
    group.add_argument(
        "--task",
        choices=TASKS,
        help="text: continue the prompt; summarization: the prompt is an article; creative_writing: the prompt says "
        "what to write about (default: the task that the model's folder names, else text).",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest there is).")
    group.add_argument("--compare_to", metavar="MODEL", help="A second checkpoint, which answers each prompt too.")
    group.add_argument(
        "--compare_implementations",
        action="store_true",
        help="On one prompt: this repository's model and decoding from scratch, beside Hugging Face's.",
    )


def add_prompt_flags(group) -> None:
    one = group.add_mutually_exclusive_group()
    one.add_argument("--prompt", metavar="TEXT", help="One prompt.")
    one.add_argument("--text_file", metavar="FILE", help="One prompt: all of a text file (- for the standard input).")
    one.add_argument("--prompts_file", type=Path, metavar="FILE.jsonl", help="Many prompts, answered in batches.")
    group.add_argument(
        "--text_column",
        metavar="NAME",
        help="Column of --prompts_file with the prompt (default: the one that a line has of "
        f"{', '.join(PROMPT_COLUMNS)}).",
    )
    group.add_argument(
        "--output_file",
        type=Path,
        metavar="FILE.jsonl",
        help="Write answers there (default for prompts.jsonl: prompts.generated.jsonl; for a single prompt: nowhere).",
    )
    group.add_argument("--overwrite", action="store_true", help="Begin --output_file anew.")
    group.add_argument("--batch_size", type=int, metavar="N", help=f"Sequences or beams at once ({BATCH_SIZE}).")
    group.add_argument(
        "--show_probabilities",
        action="store_true",
        help="Also each token's probability and rank in the model's own distribution, and the likeliest tokens there.",
    )
    group.add_argument("--json", action="store_true", help="One JSON object a prompt (and model) instead of text.")


def refuse_without_effect(arguments: argparse.Namespace) -> None:
    """Refuse a flag that changes nothing in this way of asking. Raises InputError."""
    single = arguments.prompt is not None or arguments.text_file is not None
    way = PROMPT if single else FILE if arguments.prompts_file is not None else SESSION
    given = {name for name, value in vars(arguments).items() if value not in (None, False)}
    for name, ways in EFFECTS.items():
        if name in given and way not in ways:
            raise InputError(f"--{name} has no effect {way}, only {' and '.join(ways)}: leave it out.")
    if arguments.overwrite and way == PROMPT and arguments.output_file is None:
        raise InputError("--overwrite has no effect without --output_file: leave it out.")
    for name in NOT_WITH_IMPLEMENTATIONS:
        if arguments.compare_implementations and name in given:
            raise InputError(f"--{name} has no effect with --compare_implementations: leave it out.")
