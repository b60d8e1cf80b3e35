"""An interactive session: a line is a prompt, and a line that begins with / is a command. Over a pipe too.

Answers go to `out` (stdout), everything else to `err`, so that a pipe holds answers alone. A mistake is answered with
one sentence and changes nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TextIO

from gpt2_interp.data.local_files import whole_text
from gpt2_interp.errors import InputError, is_out_of_memory
from gpt2_interp.generation.answers import Answer, described, for_reader, json_line, model_header, shown
from gpt2_interp.generation.example_prompts import example_prompts
from gpt2_interp.generation.settings import BATCH_SIZE, SETTINGS, Decoding, DecodingSettings, has_effect, plain
from gpt2_interp.generation.text_model import TextModel

SIGN = "> "
BLOCK_MARK = '"""'  # a line of its own before and after a prompt of several lines
OUT_OF_MEMORY = "out of memory: lower num_sequences, num_beams or max_new_tokens, or take a smaller model."


# --- where lines come from -------------------------------------------------------------------------------------


class PipeLines:
    """Lines of a pipe or a file, as they come."""

    is_terminal = False

    def __init__(self, file: BinaryIO):
        self.file = file

    def read(self, sign: str) -> str | None:
        """The next line without its end; None at the end. Raises InputError for bytes that are no text."""
        line = self.file.readline()
        try:
            return line.decode("utf-8").rstrip("\r\n") if line else None
        except UnicodeDecodeError:
            raise InputError("a line of the input is not UTF-8 text, and was left out.") from None


class TerminalLines:
    """Lines that someone types: with history and completion where readline can be had and stdout is the terminal too,
    for it writes the sign there."""

    is_terminal = True

    def __init__(self, words: list[str], err: TextIO):
        self.err, self.readline = err, None
        if sys.stdout.isatty():
            with contextlib.suppress(ImportError):  # some builds of Python have none
                import readline

                self.readline = readline
                readline.set_completer_delims(" ")
                readline.set_completer(lambda text, n: _completion(words, readline.get_line_buffer(), text, n))
                readline.parse_and_bind("tab: complete")

    def read(self, sign: str) -> str | None:
        try:
            if self.readline is not None:
                return input(sign)
            print(sign, end="", file=self.err, flush=True)
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        except (EOFError, OSError):  # OSError: the terminal is gone
            return None
        except UnicodeDecodeError:
            raise InputError("that line is not UTF-8 text, and was left out.") from None


def _completion(words: list[str], line: str, text: str, n: int) -> str | None:
    """Choice n for the word `text` being typed: readline asks for 0, 1, 2, ... until None."""
    fitting = [word for word in words if word.startswith(text)] if line.startswith("/") else []
    return fitting[n] if n < len(fitting) else None


# --- the session -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A prompt and the answer of each model."""

    prompt: str
    answers: list[Answer]


class Session:
    """The state of a session: which models are asked, and with which settings.

    models: the one that answers, and maybe one to compare it with. load: makes a TextModel of a path, for /compare.
    aloud: write tokens as they come. as_json: a line of JSON instead of text.
    """

    def __init__(
        self,
        models: list[TextModel],
        settings: DecodingSettings,
        load: Callable[[str], TextModel],
        out: TextIO,
        err: TextIO,
        *,
        probabilities: bool = False,
        as_json: bool = False,
        aloud: bool = False,
        batch_size: int = BATCH_SIZE,
    ):
        self.models, self.settings, self.load, self.out, self.err = models, settings, load, out, err
        self.probabilities, self.as_json, self.aloud, self.batch_size = probabilities, as_json, aloud, batch_size
        self.entries: list[Entry] = []
        self.saved_to: set[Path] = set()
        self.is_over = False

    @property
    def decoding(self) -> Decoding:
        """The settings of now, with the defaults."""
        return self.settings.resolve()

    def say(self, text: str) -> None:
        print(for_reader(text, self.err), file=self.err, flush=True)

    # --- one prompt --------------------------------------------------------------------------------------------

    def ask(self, text: str, decoding: Decoding | None = None) -> Entry:
        """Answer one prompt with every model, show the answers, and remember them.

        Raises InputError, and KeyboardInterrupt once what was written until Ctrl-C is shown and remembered.
        """
        decoding = decoding or self.decoding
        prompts = [model.prompt(text, decoding) for model in self.models]
        entry = Entry(text, [])
        for model, prompt in zip(self.models, prompts, strict=True):
            if prompt.note:
                self.say(f"note: {prompt.note}")
            started = time.perf_counter()
            answer = self._answer(model, prompt, decoding)
            if answer.sequences:
                entry.answers.append(answer)
                if len(entry.answers) == 1:
                    self.entries.append(entry)
            if self.aloud:
                self.say(_summary(answer, time.perf_counter() - started))
            if answer.interrupted:
                raise KeyboardInterrupt
        return entry

    def _answer(self, model: TextModel, prompt, decoding: Decoding) -> Answer:
        if len(self.models) > 1 and not self.as_json:
            self.out.write(model_header(model.path))
        aloud = self.out if self.aloud and not self.as_json and not decoding.is_beam else None
        answer = model.answer(prompt, decoding, self.probabilities, self.batch_size, aloud)
        if self.as_json and answer.sequences:
            self.out.write(json_line(answer.record()))
        elif not self.as_json and aloud is None:
            self.out.write(for_reader(shown(answer), self.out))
        self.out.flush()
        return answer

    # --- the loop ----------------------------------------------------------------------------------------------

    def run(self, lines: PipeLines | TerminalLines) -> None:
        """Answer lines until the end of the input or /quit. Raises KeyboardInterrupt on Ctrl-C where nobody sits at a
        terminal, and at a terminal when it comes twice at the sign."""
        warned = False
        while not self.is_over:
            try:
                line, is_prompt = self._read(lines)
            except InputError as problem:
                self.say(f"error: {problem}")
                continue
            except KeyboardInterrupt:
                if lines.is_terminal:
                    self.say("")
                if warned or not lines.is_terminal:
                    raise
                warned = True
                self.say("/quit leaves the session, and so does Ctrl-C once more")
                continue
            warned = False
            if line is None:
                if lines.is_terminal:
                    self.say("")
                return
            self.handle(line, is_prompt, lines.is_terminal)

    def _read(self, lines: PipeLines | TerminalLines) -> tuple[str | None, bool]:
        """(a line, whether it must be a prompt); between two lines of \"\"\" stands one prompt, which may be empty."""
        line = lines.read(SIGN)
        if line is None or line.strip() != BLOCK_MARK:
            return line, False
        block: list[str] = []
        problem = None
        while True:
            try:
                line = lines.read(". ")
            except InputError as error:
                problem = error  # and on to the end: the rest of a block is no prompt of its own
                continue
            if line is None or line.strip() == BLOCK_MARK:
                break
            block.append(line)
        if problem is not None:
            raise problem
        return "\n".join(block), True

    def handle(self, line: str, is_prompt: bool, is_terminal: bool) -> None:
        """Handle one command or prompt. Whatever goes wrong is reported in a sentence. Raises KeyboardInterrupt where
        nobody sits at a terminal."""
        count = len(self.entries)
        try:
            if is_prompt:
                entry = self.ask(line)
            elif line.startswith("/") and not line.startswith("//"):
                entry = self.command(line)
            elif line.strip():
                entry = self.ask(line.removeprefix("/") if line.startswith("//") else line)
            else:
                return
            if entry is not None and not is_terminal and not self.as_json:
                print(file=self.out, flush=True)  # an empty line between answers in a pipe; JSON has its own lines
        except InputError as problem:
            self.say(f"error: {problem}")
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            if len(self.entries) == count:
                self.say("\nstopped: there is nothing to keep")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.say(f"error: {OUT_OF_MEMORY}")

    def command(self, line: str) -> Entry | None:
        """Run one command; return the entry that it made, if any. Raises InputError."""
        name, _, rest = line[1:].strip().partition(" ")
        command = COMMANDS.get(name)
        if command is None:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean /{near[0]}?" if near else "/help lists them."
            raise InputError(f"there is no command /{name}: {hint} (// begins a prompt with /.)")
        return command.do(self, rest.strip())

    # --- commands ----------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Tell someone at a terminal what to know first."""
        main = self.models[0]
        self.say(f"{main.path}: {_TASK_WORDS[main.task]}")
        if len(self.models) > 1:
            self.say(f"compared with {self.models[1].path}")
        self.say(f"{described(self.decoding)}\n")
        self.show_examples()
        self.say("\nType a prompt, /example 1, or /help. Ctrl-C stops a text, /quit leaves.")

    def show_help(self, rest: str) -> None:
        width = max(len(f"/{name} {command.usage}") for name, command in COMMANDS.items())
        for name, command in COMMANDS.items():
            usage = f"/{name} {command.usage}"
            self.say(f"  {usage:<{width}}  {command.help}")
        self.say(
            f"A line is a prompt; // begins one with /. A prompt of several lines stands between lines of {BLOCK_MARK}."
        )

    def examples(self) -> list[str]:
        main = self.models[0]
        return example_prompts(main.path, main.tokenizer, main.task, (main.trained or {}).get("task"))

    def show_examples(self, rest: str = "") -> None:
        for number, text in enumerate(self.examples(), 1):
            self.say(f"  {number}  {shortened(text)}")

    def ask_example(self, rest: str) -> Entry:
        text = _chosen(self.examples(), rest, "/example", "examples")
        if self.models[0].task != "text":  # elsewhere the answer begins with it
            self.say(text)
        return self.ask(text)

    def show_history(self, rest: str) -> None:
        if rest:
            entry = _chosen(self.entries, rest, "/history", "answered prompts")
            self.say(f"{entry.prompt}\n")
            for answer in entry.answers:
                self.say(f"{model_header(answer.model)}{described_record(answer)}\n{shown(answer)}")
            return
        for number, entry in enumerate(self.entries, 1):
            answers = "  |  ".join(shortened(answer.sequences[0].text) for answer in entry.answers)
            self.say(f"  {number}  {shortened(entry.prompt)}\n     {answers}")
        if not self.entries:
            self.say("nothing yet")

    def set(self, rest: str) -> None:
        words = rest.replace("=", " ").split()
        if not words or len(words) % 2:
            raise InputError("write /set NAME VALUE, such as /set temperature 0.8; /settings lists the names.")
        settings = self.settings
        pairs = zip(words[::2], words[1::2], strict=True)
        for name, value in sorted(pairs, key=lambda pair: pair[0] != "decoding"):  # which decides what has an effect
            settings = settings.changed(name, value)
        decoding = settings.resolve()
        gone = set(self.settings.given()) - set(settings.given()) - set(words[::2])
        self.settings = settings
        forgotten = f" (without effect now, and forgotten: {', '.join(sorted(gone))})" if gone else ""
        self.say(described(decoding) + forgotten)

    def show_settings(self, rest: str) -> None:
        method, values, given = self.settings.decoding, self.decoding.record(), self.settings.given()
        idle = []
        for name, setting in SETTINGS.items():
            if not has_effect(name, method):
                idle.append(name)
                continue
            value = plain(values.get(name, "-"))
            mark = "*" if name in given else " "
            line = f" {mark} {name:<18} {value:<8}  {setting.help_with_default()}"
            self.say(textwrap.fill(line, max(60, shutil.get_terminal_size().columns), subsequent_indent=" " * 32))
        if idle:
            self.say(f"With other methods also {', '.join(idle)}.")
        self.say("* was given; /set NAME VALUE changes one, /set NAME default takes it back.")

    def task(self, rest: str) -> None:
        if rest:
            self.models[0].set_task(rest)
            for model in self.models[1:]:
                model.set_task(rest)
        self.say(f"{self.models[0].task}: {_TASK_WORDS[self.models[0].task]}")

    def again(self, rest: str) -> Entry:
        """Answer the last prompt once more, with the seeds that come after those it had."""
        if not self.entries:
            raise InputError("there is no prompt yet to answer again.")
        decoding = self.decoding
        if not decoding.is_random:
            raise InputError(f"{decoding.method} decoding writes the same again: /set decoding top_p draws another.")
        last = self.entries[-1]
        seeds = [one.seed for answer in last.answers for one in answer.sequences if one.seed is not None]
        seed = max(seeds, default=decoding.seed - 1) + 1
        return self.ask(last.prompt, replace(self.settings, seed=seed).resolve())

    def compare(self, rest: str) -> None:
        if rest == "off":
            del self.models[1:]
        elif rest:
            self.say(f"loading {rest} ...")
            other = self.load(rest)
            other.set_task(self.models[0].task)
            self.models[1:] = [other]
        names = " and ".join(model.path for model in self.models)
        self.say(f"each prompt is answered by {names}")

    def set_probabilities(self, rest: str) -> None:
        if rest not in ("on", "off", ""):
            raise InputError("write /probabilities on or /probabilities off.")
        self.probabilities = rest == "on" if rest else self.probabilities
        self.say(f"probabilities are {'on' if self.probabilities else 'off'}")

    def ask_file(self, rest: str) -> Entry:
        return self.ask(whole_text(rest, "/file"))

    def save(self, rest: str, replace_it: bool = False) -> None:
        if not rest:
            raise InputError("write /save FILE.")
        if not self.entries:
            raise InputError("there is nothing to save yet.")
        path = Path(rest).expanduser()
        if path.is_file() and path.resolve() not in self.saved_to and not replace_it:
            raise InputError(f"{path} already exists: give another name, or /save! {rest} to replace it.")
        lines = [
            json_line({"entry": number, **answer.record()})
            for number, entry in enumerate(self.entries, 1)
            for answer in entry.answers
        ]
        try:
            path.write_text("".join(lines), encoding="utf-8")
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise InputError(f"{path} can't be written ({getattr(error, 'strerror', error)}).") from None
        self.saved_to.add(path.resolve())
        self.say(f"{len(lines)} answers to {len(self.entries)} prompts are in {path}")

    def save_over(self, rest: str) -> None:
        self.save(rest, replace_it=True)

    def quit(self, rest: str) -> None:
        self.is_over = True


@dataclass(frozen=True)
class SessionCommand:
    do: Callable[[Session, str], Entry | None]
    usage: str
    help: str


COMMANDS = {
    "help": SessionCommand(Session.show_help, "", "this list"),
    "examples": SessionCommand(Session.show_examples, "", "prompts that suit the model and the task"),
    "example": SessionCommand(Session.ask_example, "NUMBER", "answer one of them"),
    "file": SessionCommand(Session.ask_file, "FILE", "answer the text of a file, an article say"),
    "again": SessionCommand(Session.again, "", "the last prompt with the next seed"),
    "settings": SessionCommand(Session.show_settings, "", "every setting, its value and what it does"),
    "set": SessionCommand(Session.set, "NAME VALUE ...", "change settings, e.g. /set decoding top_p temperature 0.8"),
    "task": SessionCommand(Session.task, "[NAME]", "text, summarization or creative_writing"),
    "compare": SessionCommand(Session.compare, "MODEL | off", "let a second checkpoint answer too"),
    "probabilities": SessionCommand(Session.set_probabilities, "on | off", "a table of each token's probability"),
    "history": SessionCommand(Session.show_history, "[NUMBER]", "what was asked and answered; one of them whole"),
    "save": SessionCommand(Session.save, "FILE", "all prompts, answers and settings as jsonl (/save! replaces a file)"),
    "save!": SessionCommand(Session.save_over, "FILE", "the same over a file that exists"),
    "quit": SessionCommand(Session.quit, "", "leave"),
}
COMPLETIONS = [*(f"/{name}" for name in COMMANDS), *SETTINGS]

_TASK_WORDS = {
    "text": "the text goes on from your prompt",
    "summarization": "your prompt is an article, and the answer its summary",
    "creative_writing": "your prompt says what to write about, and the answer is the story",
}


# --- words -----------------------------------------------------------------------------------------------------


def described_record(answer: Answer) -> str:
    return described(DecodingSettings(**answer.source["settings"]).resolve())


def _summary(answer: Answer, seconds: float) -> str:
    """Return "[37 tokens in 1.2 s; ended: end of text]" for an answer."""
    tokens = " + ".join(str(len(one.tokens)) for one in answer.sequences) or "0"
    ends = list(dict.fromkeys(one.ended for one in answer.sequences)) or ["interrupted"]
    return f"[{tokens} tokens in {seconds:.1f} s; ended: {', '.join(ends)}]"


def shortened(text: str, width: int = 100) -> str:
    """Return a text on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3].rstrip() + "..."


def _chosen(things: list, rest: str, command: str, name: str):
    """Number `rest` of `things`, from 1. Raises InputError."""
    if not things:
        raise InputError(f"there are no {name} yet.")
    if not rest.isdecimal() or not 1 <= int(rest) <= len(things):
        raise InputError(f"write {command} and a number from 1 to {len(things)}.")
    return things[int(rest) - 1]
