#!/usr/bin/env python
"""Text from any checkpoint: one prompt, a file of prompts, or an interactive session.

    python generate_text.py --model_path model_outputs/quickstart_stories/best_model \\
        --prompt "Once upon a time" --decoding top_p --top_p 0.9 --top_k 50 --num_sequences 5
    python generate_text.py --model_path model_outputs/quickstart/best_model --text_file article.txt --decoding beam
    python generate_text.py --model_path assets/tiny_gpt2 --prompts_file prompts.jsonl --decoding sampling --seed 7
    python generate_text.py --model_path assets/tiny_gpt2                     (interactive; /help lists its commands)
    cat prompts.txt | python generate_text.py --model_path assets/tiny_gpt2 --json

The model is a folder in Hugging Face layout, a LoRA adapter's folder, or a name on the Hub. Text goes to stdout, all
else (settings, notes on what was cut, progress) to stderr. A plain text is printed with the prompt that it goes on
from, a summary or a story alone.

The same seed draws the same text, alone, in a file of prompts or in a session; sequence k of a prompt (from 0) has
seed + k. A flag without effect in the chosen method is an error.

A file of prompts has one JSON object a line: {"prompt": "..."}, or article, text or source in its place, and maybe an
id. Its answers stand in another file, one JSON object a line, each with the line and id of its prompt: in the order of
the prompts when all are done, shorter prompts first until then. A run that was stopped goes on with the same command.

Exit status: 0; 1 if lines of a file of prompts could not be used (they are named, the others are answered); 2 if
something given is wrong; 130 after Ctrl-C (what is done is kept).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from gpt2_interp import startup
from gpt2_interp.data.local_files import whole_text
from gpt2_interp.errors import InputError, is_out_of_memory, run_script
from gpt2_interp.generation import prompts_file
from gpt2_interp.generation.answers import described
from gpt2_interp.generation.settings import SETTINGS, DecodingSettings, read_setting

PROMPT_COLUMNS = prompts_file.PROMPT_COLUMNS
TASKS = ("text", "summarization", "creative_writing")
IMPLEMENTATIONS = ("huggingface", "scratch")
OUT_OF_MEMORY = "lower --batch_size, --num_sequences, --num_beams or --max_new_tokens, or take a smaller model."

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


def main(argv: list[str] | None = None) -> None:
    # --- what is asked: mistakes are said before the libraries are loaded, which takes seconds ------------------
    arguments, settings = parse_arguments(sys.argv[1:] if argv is None else argv)
    text = arguments.prompt if arguments.text_file is None else whole_text(arguments.text_file, "--text_file")
    prompts, broken = [], []
    if arguments.prompts_file is not None:
        prompts, broken = prompts_file.read_prompts(arguments.prompts_file, arguments.text_column)
        for problem in broken:
            say(f"error: {problem}")
    if arguments.output_file is not None:
        is_new = arguments.prompts_file is None and not arguments.overwrite
        prompts_file.check_output(arguments.output_file, arguments.prompts_file, is_new)
    names = {f"--{name}": getattr(arguments, name) for name in ("model_path", "base_model", "compare_to")}
    startup.prepare({flag: name for flag, name in names.items() if name is not None})
    import transformers

    transformers.logging.set_verbosity_error()  # what matters is raised as an error or said by us
    transformers.logging.disable_progress_bar()

    # --- the answers --------------------------------------------------------------------------------------------
    try:
        if arguments.compare_implementations:
            compare_implementations(arguments, text, settings)
        elif arguments.prompts_file is not None:
            answer_file(arguments, prompts, broken, settings)
        else:
            converse(arguments, text, settings)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory: {OUT_OF_MEMORY}") from None


# --- the flags -----------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; --help tells of all flags.")


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, DecodingSettings]:
    """Raises InputError for settings and flags that make no sense together."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = Parser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_model_flags(parser.add_argument_group("model"))
    add_prompt_flags(parser.add_argument_group("prompts (none of the first three: an interactive session)"))
    group = parser.add_argument_group("decoding (in brackets: what holds where a flag is not given)")
    for name, setting in SETTINGS.items():
        reading = {"nargs": "?", "const": True} if setting.kind is bool else {}
        metavar = {int: "N", float: "X", bool: "true|false", str: "METHOD"}[setting.kind]
        group.add_argument(f"--{name}", type=partial(read_setting, name), metavar=metavar, help=setting.help, **reading)
    arguments = parser.parse_args(argv)
    refuse_without_effect(arguments)
    settings = {name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None}
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise InputError("--batch_size must be at least 1.")
    if arguments.prompts_file is not None and arguments.output_file is None:
        arguments.output_file = prompts_file.default_output(arguments.prompts_file)
    return arguments, DecodingSettings(**settings).checked()


def add_model_flags(group) -> None:
    group.add_argument(
        "--model_path", required=True, metavar="MODEL", help="Folder, LoRA adapter's folder or Hub name."
    )
    group.add_argument("--base_model", metavar="MODEL", help="Base of a LoRA adapter, if it is not where it was.")
    group.add_argument(
        "--implementation", choices=IMPLEMENTATIONS, help="Hugging Face's GPT-2 or the one written out (huggingface)."
    )
    group.add_argument(
        "--task",
        choices=TASKS,
        help="text: goes on from the prompt; summarization: it is an article; creative_writing: it says what to write "
        "about (what the model was trained for, if its folder says so; else text).",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1 or mps (the best there is).")
    group.add_argument("--compare_to", metavar="MODEL", help="A second checkpoint, which answers each prompt too.")
    group.add_argument(
        "--compare_implementations",
        action="store_true",
        help="On one prompt: model and decoding written out in this repository, beside Hugging Face's.",
    )


def add_prompt_flags(group) -> None:
    one = group.add_mutually_exclusive_group()
    one.add_argument("--prompt", metavar="TEXT", help="One prompt.")
    one.add_argument("--text_file", metavar="FILE", help="One prompt: all of a text file (- for the standard input).")
    one.add_argument("--prompts_file", type=Path, metavar="FILE.jsonl", help="Many prompts, answered in batches.")
    group.add_argument(
        "--text_column",
        metavar="NAME",
        help=f"Column of --prompts_file with the prompt (the one that a line has of {', '.join(PROMPT_COLUMNS)}).",
    )
    group.add_argument(
        "--output_file",
        type=Path,
        metavar="FILE.jsonl",
        help="Write answers there (of prompts.jsonl to prompts.generated.jsonl; of a single prompt nowhere).",
    )
    group.add_argument("--overwrite", action="store_true", help="Begin --output_file anew.")
    group.add_argument("--batch_size", type=int, metavar="N", help="Sequences or beams at once (16).")
    group.add_argument(
        "--show_probabilities",
        action="store_true",
        help="Also each token's probability and rank in the model's own distribution, and the likeliest tokens there.",
    )
    group.add_argument("--json", action="store_true", help="One JSON object a prompt (and model) instead of text.")


def refuse_without_effect(arguments: argparse.Namespace) -> None:
    """Raises InputError for a flag that changes nothing in this way of asking."""
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


# --- the ways of asking --------------------------------------------------------------------------------------------


def load_model(arguments: argparse.Namespace, path: str, **more: str | None):
    """A TextModel (which imports torch)."""
    from gpt2_interp.generation.text_model import TextModel

    return TextModel(path, arguments.implementation or "huggingface", device=arguments.device, **more)


def answer_file(arguments, prompts, broken: list[str], settings: DecodingSettings) -> None:
    """All prompts of a file, in batches. Exits with 1 if some lines could not be used."""
    problems = []
    if prompts:
        model = load_model(arguments, arguments.model_path, base_model=arguments.base_model, task=arguments.task)
        say(f"{model.path} ({model.task}), {described(settings)}")
        with prompts_file.AnswersFile(arguments.output_file, arguments.overwrite) as out:
            problems = prompts_file.answer_file(
                model, prompts, settings, out, say, arguments.batch_size or 16, arguments.show_probabilities
            )
    for problem in problems:
        say(f"error: {arguments.prompts_file}, {problem}")
    if broken or problems:
        say(f"{len(broken) + len(problems)} of {len(prompts) + len(broken)} prompts could not be used")
        sys.exit(1)


def converse(arguments, text: str | None, settings: DecodingSettings) -> None:
    """One prompt if there is `text`, else a session."""
    from gpt2_interp.generation.session import COMPLETIONS, PipeLines, Session, TerminalLines

    model = load_model(arguments, arguments.model_path, base_model=arguments.base_model, task=arguments.task)
    others = [load_model(arguments, arguments.compare_to, task=model.task)] if arguments.compare_to else []
    session = Session(
        [model, *others],
        settings,
        partial(load_model, arguments),
        sys.stdout,
        sys.stderr,
        probabilities=arguments.show_probabilities,
        as_json=arguments.json,
        aloud=sys.stdout.isatty(),
        batch_size=arguments.batch_size or 16,
    )
    if text is not None:
        say(f"{model.path} ({model.task}), {described(settings)}")
        try:
            session.ask(text)
        finally:  # what was written until Ctrl-C, too
            if arguments.output_file is not None and session.entries:
                save(arguments.output_file, session)
    elif sys.stdin is None:
        raise InputError("there is no standard input to read prompts from: give --prompt.")
    elif sys.stdin.isatty():
        session.greet()
        session.run(TerminalLines(COMPLETIONS, sys.stderr))
    else:
        session.run(PipeLines(sys.stdin.buffer))


def save(path: Path, session) -> None:
    with prompts_file.AnswersFile(path, overwrite=True) as out:
        out.append([answer.record() for answer in session.entries[0].answers])


def compare_implementations(arguments, text: str, settings: DecodingSettings) -> None:
    from gpt2_interp.generation.compare_implementations import compare
    from gpt2_interp.model.task_file import trained_task

    task = arguments.task or (trained_task(arguments.model_path) or {}).get("task", "text")
    found = compare(arguments.model_path, text, settings, task=task, base_model=arguments.base_model)
    if found.note:
        say(f"note: {found.note}")
    print(json.dumps(dataclasses.asdict(found), ensure_ascii=False) if arguments.json else found)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to stop
    run_script(main)
