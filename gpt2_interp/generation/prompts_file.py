"""A file of prompts -> a file of answers: in batches, one JSON object a line, and never lost.

Each answer is written as soon as its batch is done, so the file can be read while it grows, and a stopped run goes on
where it stopped: what is in the file is kept, and checked to be of the same model, settings and prompts. Shorter
prompts come first, because a batch is as long as its longest prompt; when all are answered the lines are put into the
order of the prompts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2_interp.errors import DiskFullError, InputError, Interrupted, is_disk_full
from gpt2_interp.files import lock, write_atomically
from gpt2_interp.generation.answers import Answer, json_line
from gpt2_interp.generation.settings import BATCH_SIZE, Decoding

if TYPE_CHECKING:  # it imports torch, and mistakes in the file of prompts are found before that
    from gpt2_interp.generation.text_model import TextModel

ANSWER_FIELDS = {"line", "prompt", "model", "weights", "settings", "sequences"}  # of each line of the file of answers
LINE_BEGINNING = b'{"line": '  # of each of its lines, and so of half a line
PROMPT_COLUMNS = ("prompt", "article", "text", "source")  # a line has one of them, or --text_column says which


# --- the prompts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptLine:
    """One prompt of the file; `id` is None where the line has none."""

    number: int  # of the line, from 1
    id: str | int | None
    text: str

    def record(self) -> dict[str, Any]:
        """Return what names the prompt in the line of its answer."""
        return {"line": self.number} if self.id is None else {"line": self.number, "id": self.id}


def read_prompts(path: Path, text_column: str | None = None) -> tuple[list[PromptLine], list[str]]:
    """The prompts of a jsonl file, and one sentence for each line that is none. Empty lines count as nothing.

    Raises InputError if the file can't be read or has no line at all.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except FileNotFoundError:
        raise InputError(f"--prompts_file {path} does not exist: check the path.") from None
    except OSError as error:
        raise InputError(f"--prompts_file {path} can't be read ({error.strerror}).") from None
    prompts, problems, seen = [], [], {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = _prompt(number, line, text_column)
            if prompt.id is not None and seen.setdefault(prompt.id, number) != number:
                raise ValueError(f"has the id {json.dumps(prompt.id)} of line {seen[prompt.id]} again")
            prompts.append(prompt)
        except ValueError as what:
            problems.append(f"{path}, line {number} {what}")
    if not prompts and not problems:
        raise InputError(f'--prompts_file {path} is empty: write one JSON object a line, such as {{"prompt": "..."}}.')
    return prompts, problems


def _prompt(number: int, line: bytes, text_column: str | None) -> PromptLine:
    """Return the prompt of a line. Raises ValueError with what is wrong with the line."""
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None
    if not isinstance(record, dict):
        raise ValueError('is not a JSON object such as {"prompt": "..."}')
    columns = [text_column] if text_column else [name for name in PROMPT_COLUMNS if name in record]
    if not columns or columns[0] not in record:
        wanted = repr(text_column) if text_column else " or ".join(map(repr, PROMPT_COLUMNS))
        raise ValueError(f"has no column {wanted}" + ("" if text_column else "; give --text_column"))
    if len(columns) > 1:
        raise ValueError(f"has several columns ({', '.join(columns)}); give --text_column")
    text, identity = record[columns[0]], record.get("id")
    if not isinstance(text, str):
        raise ValueError(f"has no text in column {columns[0]!r} but {json.dumps(text)[:40]}")
    if not isinstance(identity, str | int | None) or isinstance(identity, bool):
        raise ValueError(f"has an id that is neither text nor a whole number: {json.dumps(identity)[:40]}")
    if any("\ud800" <= character <= "\udfff" for character in f"{text}{identity}"):
        raise ValueError("has half a character (a lone surrogate)")
    return PromptLine(number, identity, text)


# --- the answers -----------------------------------------------------------------------------------------------


def default_output(prompts_file: Path) -> Path:
    """stories.jsonl -> stories.generated.jsonl, beside it."""
    if not prompts_file.name:
        raise InputError(f"--prompts_file {prompts_file} is a folder: give a file with one JSON object a line.")
    return prompts_file.with_name(f"{prompts_file.name.removesuffix('.jsonl')}.generated.jsonl")


def check_output(path: Path, prompts_file: Path | None, is_fresh: bool) -> None:
    """Refuse, before anything is loaded, a file of answers that can't be written. Raises InputError.

    is_fresh: whether it must not exist yet.
    """
    if prompts_file is not None and path.resolve() == prompts_file.resolve():
        raise InputError(f"--output_file {path} is the file of prompts itself: give another one.")
    if path.is_dir():
        raise InputError(f"--output_file {path} is a folder: give a file in it, such as {path / 'answers.jsonl'}.")
    if path.exists() and not path.is_file():
        raise InputError(f"--output_file {path} is no ordinary file: give the path of one.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"the folder of --output_file {path} does not exist: make it first, or check the path.")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise InputError(f"--output_file {path} can't be written: check its permissions.")
    if is_fresh and path.exists():
        raise InputError(f"--output_file {path} already exists: give another one, or --overwrite.")


class AnswersFile:
    """The growing file of answers. Only whole lines count. Nothing is written to a file that holds anything else.

    Use as a context manager; meanwhile no second process can write to it.
    """

    def __init__(self, path: Path, overwrite: bool = False):
        self.path, self.overwrite = path, overwrite

    def __enter__(self) -> AnswersFile:
        try:
            self.file = open(self.path, "a+b")  # noqa: SIM115, closed in __exit__
        except OSError as error:
            raise InputError(f"--output_file {self.path} can't be written ({error.strerror}).") from None
        is_ours = True
        with contextlib.suppress(OSError):  # a system that knows no locks
            is_ours = lock(self.file)
        if not is_ours:
            self.file.close()
            raise InputError(f"--output_file {self.path} is being written by another process: wait until it ends.")
        if self.overwrite:
            self.file.truncate(0)
        return self

    def __exit__(self, *exception) -> None:
        self.file.close()

    def _read(self) -> bytes:
        self.file.seek(0)
        return self.file.read()

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (line, record) of what is there. Raises InputError for a line that this script can't have written."""
        *lines, half = self._read().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                is_answer = isinstance(record, dict) and set(record) >= ANSWER_FIELDS
            except ValueError:
                is_answer = False
            if not is_answer:
                raise self._foreign(number)
            yield number, record
        if not half.startswith(LINE_BEGINNING[: len(half)]):
            raise self._foreign(len(lines) + 1)

    def _foreign(self, number: int) -> InputError:
        return InputError(
            f"--output_file {self.path}, line {number} is no answer of this script: give another file, or --overwrite "
            f"to begin anew."
        )

    def cut_half_line(self) -> bool:
        """Take away what a kill left of the last line, once `done` has found all to be ours. Whether there was any."""
        data = self._read()
        whole = data.rfind(b"\n") + 1
        self.file.truncate(whole)
        return whole < len(data)

    def done(self, prompts: Sequence[PromptLine], source: dict[str, Any], probabilities: bool) -> set[int]:
        """Lines of the prompts that are answered already. Raises InputError if the answers are not to these prompts, or
        not of this model and these settings (`source`, as an Answer has it)."""
        by_number = {prompt.number: prompt for prompt in prompts}
        numbers: set[int] = set()
        for line, record in self.records():
            difference = _difference(record, source, probabilities)
            prompt = by_number.get(record["line"])
            if prompt is None or (prompt.text, prompt.id) != (record["prompt"], record.get("id")):
                difference = f"another prompt in line {record['line']}"
            if record["line"] in numbers:
                difference = f"two answers to line {record['line']}"
            if difference:
                raise InputError(
                    f"{self.path} holds answers of another kind ({difference}; see its line {line}): give another "
                    f"--output_file, or --overwrite to begin anew."
                )
            numbers.add(record["line"])
        return numbers

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Write whole lines and flush them. Raises DiskFullError."""
        try:
            self.file.write("".join(map(json_line, records)).encode())
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self.file.close()  # which tries once more to write what is left
            if is_disk_full(error):
                raise DiskFullError(
                    f"writing {self.path}",
                    "what is done is kept; free some space, and the same command goes on.",
                ) from None
            raise

    def sort(self) -> None:
        """Put the lines into the order of the prompts, in one step that a kill can't leave half done."""
        data = self._read()
        lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
        ordered = b"".join(sorted(lines, key=lambda line: json.loads(line)["line"]))
        if ordered != data:
            write_atomically(self.path.resolve(), ordered)


def _difference(record: dict[str, Any], source: dict[str, Any], probabilities: bool) -> str | None:
    """Return in words what an answer of an earlier run was made with and this run is not. A model may have moved."""
    there, here = record["settings"], source["settings"]
    for name in sorted({*there, *here}):
        if there.get(name) != here.get(name):
            return f"{name} {there.get(name)} there, {here.get(name)} here"
    if record["weights"] != source["weights"]:
        return f"of another model: {record['model']}, with weights {record['weights']}, not {source['weights']}"
    for name in ("task", "implementation"):
        if record.get(name) != source[name]:
            return f"{name} {record.get(name)} there, {source[name]} here"
    has_probabilities = any("probabilities" in sequence for sequence in record["sequences"])
    if has_probabilities != probabilities:
        return "with --show_probabilities there" if has_probabilities else "without --show_probabilities there"
    return None


# --- from one to the other -------------------------------------------------------------------------------------


def answer_file(
    model: TextModel,
    prompts: Sequence[PromptLine],
    decoding: Decoding,
    out: AnswersFile,
    say: Callable[[str], None],
    batch_size: int = BATCH_SIZE,
    probabilities: bool = False,
) -> list[str]:
    """Answer what is not answered yet; returns a sentence for each prompt that can't be.

    Raises InputError if `out` holds answers of another kind, and Interrupted (a KeyboardInterrupt) on Ctrl-C: what is
    done is kept.
    """
    done = out.done(prompts, model.source(decoding), probabilities)
    if out.cut_half_line():
        say(f"{out.path}: half a line at its end, of a run that was killed, was cut off")
    if done:
        rest = "" if len(done) == len(prompts) else ", going on with the others"
        say(f"{out.path}: {len(done)} of {len(prompts)} prompts are answered already{rest}")
    lines, built, problems = [], [], []
    for line in (line for line in prompts if line.number not in done):
        try:
            built.append(model.prompt(line.text, decoding))
            lines.append(line)
        except InputError as problem:
            problems.append(f"line {line.number}: {problem}")
    _say_notes([line for line, prompt in zip(lines, built, strict=True) if prompt.note], say)

    def on_answers(answers: list[tuple[int, Answer]]) -> None:
        out.append([{**lines[i].record(), **answer.record()} for i, answer in answers])

    try:
        if built:
            model.answer_many(built, decoding, on_answers, batch_size, probabilities)
        _sort(out, say)
    except KeyboardInterrupt:
        count = sum(1 for _ in out.records())
        message = f"interrupted: {count} of {len(prompts)} answers are in {out.path}; the same command goes on"
        raise Interrupted(message, signal.SIGINT) from None
    say(f"{len(done) + len(built)} answers are in {out.path}")
    return problems


def _sort(out: AnswersFile, say: Callable[[str], None]) -> None:
    try:
        out.sort()
    except OSError as error:  # a full disk, say: nothing is lost by it
        say(f"{out.path}: its lines stay in the order in which they were finished ({error.strerror})")


def _say_notes(lines: Sequence[PromptLine], say: Callable[[str], None]) -> None:
    """One line about all prompts that were cut; the answer to each has its note."""
    if lines:
        numbers = ", ".join(str(line.number) for line in lines[:5]) + (", ..." if len(lines) > 5 else "")
        what = "1 prompt was" if len(lines) == 1 else f"{len(lines)} prompts were"
        say(f"{what} cut to fit the context (line {numbers}): the field note of the answer says by how much")
