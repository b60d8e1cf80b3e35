#!/usr/bin/env python
"""Text from any checkpoint: one prompt, a file of prompts, or an interactive session.

    python generate_text.py --model_path model_outputs/quickstart_stories/best_model \
        --prompt "Once upon a time" --decoding top_p --top_p 0.9 --top_k 50 --num_sequences 5
    python generate_text.py --model_path model_outputs/quickstart/best_model --text_file article.txt --decoding beam
    python generate_text.py --model_path assets/tiny_gpt2 --prompts_file prompts.jsonl --decoding sampling --seed 7
    python generate_text.py --model_path assets/tiny_gpt2                      (interactive; /help lists its commands)
    cat prompts.txt | python generate_text.py --model_path assets/tiny_gpt2 --json

The model is a folder in Hugging Face layout, a LoRA adapter's folder, or a name on the Hub. Text goes to stdout, everything
else (settings, notes on what was cut, progress) to stderr. A plain text is printed with the prompt it goes on from, a
summary or a story alone.

The same seed gives the same text, alone, in a file of prompts or in a session; sequence k of a prompt has seed + k. A
flag without effect in the chosen method is an error.

A file of prompts has one JSON object a line: {"prompt": "..."}, or article, text or source in its place, and maybe an
id. Its answers stand in another file, one JSON object a line, each with the line and id of its prompt: in the order of
the prompts when all are done, shorter prompts first until then. A run that was stopped goes on with the same command.

Exit status: 0; 1 if lines of a file of prompts could not be used (they are named, the others are answered); 2 if
something given is wrong; 130 after Ctrl-C (what is done is kept).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from gpt2_interp import prompts_file, startup
from gpt2_interp.decoding_settings import METHODS, SETTING_HELP, SETTINGS, DecodingSettings, read_setting
from gpt2_interp.errors import InputError, is_out_of_memory, run_script

IMPLEMENTATIONS = ("huggingface", "scratch")
TASKS = ("text", "summarization", "creative_writing")
ADVICE = "lower --batch_size, --num_sequences, --num_beams or --max_new_tokens, or take a smaller model."


def main(argv: list[str] | None = None) -> None:
    # --- what is asked: mistakes are found before the libraries are loaded, which takes seconds -----------------
    arguments, settings = parse_arguments(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character is no reason to stop
        stream.reconfigure(errors="backslashreplace")
    prompts, broken = [], []
    if arguments.prompts_file:
        prompts, broken = prompts_file.read_prompts(arguments.prompts_file, arguments.text_column)
        for problem in broken:
            say(f"error: {problem}")
    text = arguments.prompt
    if arguments.text_file:
        text = read_text_file(arguments.text_file)
    if arguments.output_file:
        is_fresh = not (arguments.prompts_file or arguments.overwrite)
        prompts_file.check_output(arguments.output_file, arguments.prompts_file, is_fresh)
    names = {"--model_path": arguments.model_path, "--base_model": arguments.base_model}
    names["--compare_to"] = arguments.compare_to
    startup.prepare({flag: name for flag, name in names.items() if name is not None})

    # --- the model -----------------------------------------------------------------------------------------------
    import transformers

    from gpt2_interp.text_model import TextModel

    transformers.logging.set_verbosity_error()  # what matters is raised as an error or said by us
    transformers.logging.disable_progress_bar()
    if arguments.compare_implementations:
        return compare_implementations(arguments, text, settings)
    load = partial(TextModel, implementation=arguments.implementation, device=arguments.device)
    model = load(arguments.model_path, base_model=arguments.base_model, task=arguments.task)
    models = [model]
    if arguments.compare_to:
        models.append(load(arguments.compare_to, task=model.task))
    try:
        if arguments.prompts_file:
            answer_file(arguments, model, prompts, broken, settings)
        else:
            converse(arguments, models, load, text, settings)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory: {ADVICE}") from None


def answer_file(arguments, model, prompts, broken: list[str], settings: DecodingSettings) -> None:
    """All prompts of a file, in batches. Exits with 1 if some could not be used."""
    say(f"{arguments.model_path} ({model.task}), {described(settings)}")
    with prompts_file.AnswersFile(arguments.output_file, arguments.overwrite) as out:
        problems = prompts_file.answer_file(
            model, prompts, settings, out, say, arguments.batch_size, arguments.show_probabilities
        )
    for problem in problems:
        say(f"error: {arguments.prompts_file}, {problem}")
    if broken or problems:
        say(f"{len(broken) + len(problems)} of {len(prompts) + len(broken)} lines could not be used")
        sys.exit(1)
