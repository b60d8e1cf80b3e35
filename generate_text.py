#!/usr/bin/env python
"""Text from any checkpoint: one prompt, a file of prompts, or an interactive session.

    python generate_text.py --model_path model_outputs/quickstart_stories/best_model \\
        --prompt "Once upon a time" --decoding top_p --top_p 0.9 --top_k 50 --num_sequences 5
    python generate_text.py --model_path model_outputs/quickstart/best_model --text_file article.txt --decoding beam
    python generate_text.py --model_path assets/tiny_gpt2 --prompts_file prompts.jsonl --decoding sampling --seed 7
    python generate_text.py --model_path assets/tiny_gpt2                     (interactive; /help lists its commands)
    cat prompts.txt | python generate_text.py --model_path assets/tiny_gpt2 --json

The model is a folder in Hugging Face layout, a LoRA adapter's folder, or a name on the Hub. Text goes to stdout,
everything else (settings, notes on what was cut, progress) to stderr. A plain text is printed with the prompt that it
continues, a summary or a story alone.

The same seed draws the same text, alone, in a file of prompts or in a session; sequence k of a prompt (from 0) has
seed + k. A flag without effect in the chosen method is an error.

A file of prompts has one JSON object a line: {"prompt": "..."}, or article, text or source in place of prompt, and an
optional id. The answers are written to another file, one JSON object a line, each with the line and id of its prompt.
Shorter prompts are answered first; when all are done, the answers are put into the order of the prompts. To go on
with a run that was stopped, give the same command.

Exit status: 0; 1 if lines of a file of prompts could not be used (they are named, the others are answered); 2 for a
mistake in what was given; 130 after Ctrl-C (finished answers are kept).
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import argparse
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

from gpt2_interp.cli.generation_flags import parse_arguments
from gpt2_interp.data.local_files import whole_text
from gpt2_interp.errors import InputError, is_out_of_memory, run_script
from gpt2_interp.generation import prompts_file
from gpt2_interp.generation.answers import described
from gpt2_interp.generation.settings import BATCH_SIZE, Decoding, DecodingSettings
from gpt2_interp.model.settings import IMPLEMENTATIONS

OUT_OF_MEMORY = "lower --batch_size, --num_sequences, --num_beams or --max_new_tokens, or take a smaller model."


def main(argv: list[str] | None = None) -> None:
    # --- what is asked: mistakes are reported before the libraries are loaded, which takes seconds ------------------
    arguments, settings = parse_arguments(sys.argv[1:] if argv is None else argv, __doc__)
    decoding = settings.resolve()
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

    transformers.logging.set_verbosity_error()  # what matters is raised as an error or printed by us
    transformers.logging.disable_progress_bar()

    # --- the answers --------------------------------------------------------------------------------------------
    try:
        if arguments.compare_implementations:
            compare_implementations(arguments, text, decoding)
        elif arguments.prompts_file is not None:
            answer_file(arguments, prompts, broken, decoding)
        else:
            converse(arguments, text, settings)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory: {OUT_OF_MEMORY}") from None


# --- the ways of asking --------------------------------------------------------------------------------------------


def load_model(arguments: argparse.Namespace, path: str, **more: str | None):
    """A TextModel (which imports torch)."""
    from gpt2_interp.generation.text_model import TextModel

    return TextModel(path, arguments.implementation or IMPLEMENTATIONS[0], device=arguments.device, **more)


def answer_file(arguments, prompts, broken: list[str], decoding: Decoding) -> None:
    """All prompts of a file, in batches. Exits with 1 if some lines could not be used."""
    problems = []
    if prompts:
        model = load_model(arguments, arguments.model_path, base_model=arguments.base_model, task=arguments.task)
        say(f"{model.path} ({model.task}), {described(decoding)}")
        with prompts_file.AnswersFile(arguments.output_file, arguments.overwrite) as out:
            problems = prompts_file.answer_file(
                model, prompts, decoding, out, say, arguments.batch_size or BATCH_SIZE, arguments.show_probabilities
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
        batch_size=arguments.batch_size or BATCH_SIZE,
    )
    if text is not None:
        say(f"{model.path} ({model.task}), {described(session.decoding)}")
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


def compare_implementations(arguments, text: str, decoding: Decoding) -> None:
    from gpt2_interp.generation.compare_implementations import compare
    from gpt2_interp.model.task_file import trained_task

    task = arguments.task or (trained_task(arguments.model_path) or {}).get("task", "text")
    found = compare(arguments.model_path, text, decoding, task=task, base_model=arguments.base_model)
    if found.note:
        say(f"note: {found.note}")
    print(json.dumps(dataclasses.asdict(found), ensure_ascii=False) if arguments.json else found)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
