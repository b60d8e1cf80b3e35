import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

import generate_text
from gpt2_interp.errors import InputError, Interrupted
from gpt2_interp.generation import prompts_file
from gpt2_interp.generation.prompts_file import PromptLine, default_output, read_prompts
from gpt2_interp.generation.text_model import TextModel
from tests.conftest import REPOSITORY

EMBEDDED = REPOSITORY / "assets" / "tiny_gpt2"  # whose texts differ from prompt to prompt
DRAWN = ["--decoding=top_p", "--max_new_tokens=6", "--num_sequences=2", "--seed=5"]
# The shortest is not the first, ids are text or numbers or missing, one is long enough to be cut.
ROWS = [
    {"prompt": "The council of the old town met again", "id": "council"},
    {"article": "The river", "highlights": "of another column"},
    {"prompt": "", "id": 3},
    {"text": "word " * 600, "id": "long"},
    {"prompt": "A bridge \u2014 and \U0001f309"},
]


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.fixture
def ask(toy_base, prompts, capsys):
    """Runs main over the file of prompts; returns (bytes of the answers, stderr)."""

    def run(*flags, file=prompts, model=toy_base):
        generate_text.main([f"--model_path={model}", f"--prompts_file={file}", "--batch_size=4", *DRAWN, *flags])
        captured = capsys.readouterr()
        assert captured.out == ""
        return default_output(file).read_bytes(), captured.err

    return run


# --- the prompts -----------------------------------------------------------------------------------------------


def test_every_broken_line_is_named_and_the_others_are_read(tmp_path):
    file = tmp_path / "p.jsonl"
    lines = [
        b'\xef\xbb\xbf{"prompt": "one", "id": 7}', b"", b"no json", b'["list"]', b'{"title": "x"}', b'{"prompt": 5}',
        b'{"prompt": "a", "text": "b"}', b'{"prompt": "again", "id": 7}', b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}', b'{"prompt": "x", "id": [1]}', b'{"prompt": "x", "id": true}', b"[" * 100_000,
        b"  \r", b'{"source": "two"}\r',
    ]  # fmt: skip
    file.write_bytes(b"\n".join(lines))
    found, problems = read_prompts(file)
    assert found == [PromptLine(1, 7, "one"), PromptLine(15, None, "two")]
    words = {
        3: "not valid JSON", 4: "not a JSON object", 5: "no column 'prompt' or", 6: "no text in column 'prompt' but 5",
        7: r"several columns (prompt, text); give --text_column", 8: "the id 7 of line 1 again", 9: "not UTF-8",
        10: "half a character", 11: "an id that is neither", 12: "an id that is neither", 13: "not valid JSON",
    }  # fmt: skip
    assert len(problems) == len(words)
    for (number, what), problem in zip(words.items(), problems, strict=True):
        assert problem.startswith(f"{file}, line {number} ") and what in problem and "\n" not in problem


def test_text_column_says_which_column(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a", "body": "b"}\n{"prompt": "c"}\n')
    assert read_prompts(file, "body") == ([PromptLine(1, None, "b")], [f"{file}, line 2 has no column 'body'"])


def test_an_empty_or_missing_file_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text(" \n\n")
    for file, words in (
        (tmp_path / "empty.jsonl", "is empty"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "read"),
    ):
        with pytest.raises(InputError, match=words):
            read_prompts(file)


def test_the_answers_stand_beside_the_prompts(tmp_path):
    assert default_output(tmp_path / "a.b.jsonl") == tmp_path / "a.b.generated.jsonl"
    with pytest.raises(InputError, match="--prompts_file"):
        default_output(Path(""))  # --prompts_file=
    assert default_output(tmp_path / "prompts.txt") == tmp_path / "prompts.txt.generated.jsonl"


# --- the answers -----------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_prompts_alone_in_their_order(ask, capsys):
    data, err = ask(model=EMBEDDED)
    records = [json.loads(line) for line in data.splitlines()]
    assert [record.pop("line") for record in records] == [1, 2, 3, 4, 5]
    assert [record.pop("id", None) for record in records] == ["council", None, 3, "long", None]
    for row, record in zip(ROWS, records, strict=True):
        prompt = next(row[name] for name in ("prompt", "article", "text") if name in row)
        generate_text.main([f"--model_path={EMBEDDED}", f"--prompt={prompt}", "--json", *DRAWN])
        assert record == json.loads(capsys.readouterr().out)
        assert [sequence["seed"] for sequence in record["sequences"]] == [5, 6]
    assert len({sequence["text"] for record in records for sequence in record["sequences"]}) == 10
    assert "1 prompt was cut to fit the context (line 4)" in err and "note" in records[3]
    assert "5 answers are in " in err


def spy(monkeypatch):
    """The texts of the prompts that are given to the model, call by call."""
    asked = []
    answer_many = TextModel.answer_many

    def note(self, prompts, *more):
        asked.append([prompt.text for prompt in prompts])
        return answer_many(self, prompts, *more)

    monkeypatch.setattr(TextModel, "answer_many", note)
    return asked


def test_a_killed_run_goes_on_where_it_stopped(ask, prompts, monkeypatch):
    whole, _ = ask()
    lines = whole.splitlines(keepends=True)
    asked = spy(monkeypatch)
    default_output(prompts).write_bytes(
        lines[2] + lines[1] + lines[4][:30]
    )  # in the order of lengths, the last one torn
    data, err = ask()
    assert data == whole
    assert [text[:5] for text in asked.pop()] == ["The c", "word ", "A bri"]
    assert "half a line at its end" in err and "2 of 5 prompts are answered already" in err
    data, err = ask()  # nothing left to do
    assert data == whole and not asked and "5 of 5 prompts are answered already\n" in err
    with open(prompts, "a") as file:
        file.write('{"prompt": "One more"}\n')
    data, _ = ask()
    assert data.startswith(whole) and asked == [["One more"]]


def test_ctrl_c_keeps_the_batches_that_are_done(ask, prompts, monkeypatch):
    whole, _ = ask()
    default_output(prompts).unlink()
    append, batches = prompts_file.AnswersFile.append, []

    def stop_after_the_first(self, records):
        append(self, records)
        batches.append(len(records))
        raise KeyboardInterrupt

    monkeypatch.setattr(prompts_file.AnswersFile, "append", stop_after_the_first)
    with pytest.raises(Interrupted, match="interrupted: 2 of 5 answers are in .*; the same command goes on") as stop:
        ask()
    assert stop.value.exit_status == 130
    lines = default_output(prompts).read_bytes().splitlines(keepends=True)
    assert sorted(lines) == sorted(whole.splitlines(keepends=True)[1:3])  # the shortest prompts, two sequences of each
    monkeypatch.undo()
    assert ask()[0] == whole


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--seed=6"], "seed 5 there, 6 here"),
        (["--task=summarization"], "task text there, summarization here"),
        (["--implementation=scratch"], "implementation huggingface there, scratch here"),
        (["--show_probabilities"], "without --show_probabilities there"),
        (["--temperature=0.5"], "temperature 1.0 there, 0.5 here"),
    ],
)
def test_answers_of_another_kind_are_not_gone_on_with(ask, prompts, flags, words):
    whole, _ = ask()
    with pytest.raises(InputError, match=words):
        ask(*flags)
    assert default_output(prompts).read_bytes() == whole


def test_answers_to_other_prompts_are_not_gone_on_with(ask, prompts):
    whole, _ = ask()
    prompts.write_text(prompts.read_text().replace("The river", "The lake"))
    with pytest.raises(InputError, match="another prompt in line 2"):
        ask()
    prompts.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:4]))
    with pytest.raises(InputError, match="another prompt in line 5"):
        ask()
    assert default_output(prompts).read_bytes() == whole
    data, _ = ask("--overwrite")
    assert data == b"".join(whole.splitlines(keepends=True)[:4])


def test_answers_of_other_weights_are_not_gone_on_with_and_a_model_may_move(ask, toy_base, tmp_path):
    whole, _ = ask()
    shutil.copytree(toy_base, tmp_path / "moved")
    assert ask(model=tmp_path / "moved")[0] == whole
    model = GPT2LMHeadModel.from_pretrained(toy_base)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.weight.mul_(1.001)
    model.save_pretrained(tmp_path / "moved")
    with pytest.raises(InputError, match="of another model"):
        ask(model=tmp_path / "moved")


@pytest.mark.parametrize(
    "content", [b"my notes", b"my notes\n", b'{"line": 1}\n', b'{"a": 1}\n{"line": 1, "pro', b"[]\n"]
)
def test_a_file_of_something_else_is_left_alone(ask, tmp_path, content):
    (tmp_path / "notes").write_bytes(content)
    with pytest.raises(InputError, match="notes, line 1 is no answer of this script"):
        ask(f"--output_file={tmp_path / 'notes'}")
    assert (tmp_path / "notes").read_bytes() == content


@pytest.mark.parametrize(
    "path, words",
    [("no/such/x.jsonl", "does not exist"), (".", "is a folder"), ("prompts.jsonl", "is the file of prompts itself")],
)
def test_a_place_that_cannot_be_written_is_said_before_the_model_is_loaded(ask, tmp_path, path, words):
    with pytest.raises(InputError, match=words):
        ask(f"--output_file={tmp_path / path}", model="/no/such/model")


def test_broken_lines_cost_nobody_else_and_the_exit_status_says_so(ask, prompts, capsys):
    whole, _ = ask()
    default_output(prompts).unlink()
    with open(prompts, "a") as file:
        file.write('{"prompt": \n')
    with pytest.raises(SystemExit) as stop:
        ask()
    assert stop.value.code == 1 and default_output(prompts).read_bytes() == whole
    err = capsys.readouterr().err
    assert f"error: {prompts}, line 6 is not valid JSON" in err and "1 of 6 prompts could not be used" in err


def test_a_prompt_that_the_task_cannot_take_is_named(ask, prompts, capsys):
    with pytest.raises(SystemExit) as stop:
        ask("--task=summarization")
    assert stop.value.code == 1
    err = capsys.readouterr().err
    assert f"{prompts}, line 3: --task summarization takes a text" in err and "1 of 5 prompts" in err
    numbers = [json.loads(line)["line"] for line in default_output(prompts).read_bytes().splitlines()]
    assert numbers == [1, 2, 4, 5]


def test_a_full_disk_keeps_what_is_done_and_says_how_to_go_on(ask, prompts, monkeypatch):
    whole, _ = ask()
    lines = whole.splitlines(keepends=True)
    default_output(prompts).write_bytes(lines[0])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="disk is full while writing .*the same command goes on"):
        ask()
    monkeypatch.undo()
    assert default_output(prompts).read_bytes().startswith(lines[0])
    assert ask()[0] == whole


def test_two_processes_do_not_write_one_file(ask, prompts):
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'a')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(default_output(prompts))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match="is being written by another process"):
            ask()
        other.stdin.close()
    assert len(ask()[0].splitlines()) == 5


def test_probabilities_stand_in_the_answers(ask):
    data, _ = ask("--show_probabilities")
    for line in data.splitlines():
        for sequence in json.loads(line)["sequences"]:
            assert [choice["token"] for choice in sequence["probabilities"]] == sequence["tokens"]
