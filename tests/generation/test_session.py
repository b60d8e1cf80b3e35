import io
import json
import os
import pty
import random
import select
import signal
import sys
import time
from functools import partial

import pytest

import generate_text
from gpt2_interp.errors import InputError
from gpt2_interp.generation.example_prompts import GENERAL, N_EXAMPLES, example_prompts
from gpt2_interp.generation.session import COMMANDS, PipeLines, Session
from gpt2_interp.generation.settings import SETTINGS, DecodingSettings
from gpt2_interp.generation.text_model import TextModel
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.synthetic.rows import news_rows, story_rows
from tests.conftest import REPOSITORY

EMBEDDED = str(REPOSITORY / "assets" / "tiny_gpt2")
PROMPT = "Everybody knew that in Ravenwell"
DRAWN = DecodingSettings("top_p", max_new_tokens=12, num_sequences=2, seed=5)


class Typed:
    """Lines as someone types them at a terminal; KeyboardInterrupt among them is Ctrl-C."""

    is_terminal = True

    def __init__(self, *lines):
        self.lines = iter(lines)

    def read(self, sign):
        line = next(self.lines, None)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line


class StoppedAt(io.StringIO):
    """An output at which someone presses Ctrl-C as soon as `count` characters are on it."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def write(self, text):
        super().write(text)
        if self.count is not None and len(self.getvalue()) >= self.count:
            self.count = None
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def model():
    return TextModel(EMBEDDED)


@pytest.fixture
def start(model):
    """Makes a session of the embedded model."""

    def make(settings=DRAWN, out=None, **options):
        model.set_task("text")
        return Session([model], settings, TextModel, out or io.StringIO(), io.StringIO(), **options)

    return make


def said(session, line):
    """What a command or a prompt writes to (out, err)."""
    starts = [len(stream.getvalue()) for stream in (session.out, session.err)]
    session.handle(line, False, True)
    return [stream.getvalue()[begin:] for stream, begin in zip((session.out, session.err), starts, strict=True)]


def expected(prompt, *flags, capsys):
    generate_text.main([f"--model_path={EMBEDDED}", f"--prompt={prompt}", *flags])
    return capsys.readouterr().out


FLAGS = ["--decoding=top_p", "--max_new_tokens=12", "--num_sequences=2", "--seed=5"]


# --- prompts ---------------------------------------------------------------------------------------------------


def test_a_prompt_gives_the_text_that_the_flag_gives(start, capsys):
    assert said(start(), PROMPT) == [expected(PROMPT, *FLAGS, capsys=capsys), ""]


@pytest.mark.parametrize("task", ["text", "summarization"])
def test_tokens_as_they_come_make_the_same_page(start, task):
    pieces = []

    class Out(io.StringIO):
        def write(self, text):
            pieces.append(text)
            return super().write(text)

    aloud, whole = start(aloud=True, probabilities=True, out=Out()), start(probabilities=True)
    aloud.models[0].set_task(task)
    assert said(aloud, PROMPT)[0] == said(whole, PROMPT)[0]
    assert len([piece for piece in pieces if piece]) > 2 * 10  # not in one go
    assert aloud.entries[0].answers == whole.entries[0].answers
    assert aloud.err.getvalue().startswith("[12 + 12 tokens in ")


def test_beams_come_at_the_end(start, capsys):
    settings = DecodingSettings("beam", num_beams=3, max_new_tokens=8)
    out, _ = said(start(settings, aloud=True), PROMPT)
    assert out == expected(PROMPT, "--decoding=beam", "--num_beams=3", "--max_new_tokens=8", capsys=capsys)


def test_again_draws_with_the_next_seeds_and_again(start, capsys):
    session = start()
    said(session, PROMPT)
    for seed in (7, 9):
        assert said(session, "/again")[0] == expected(PROMPT, *FLAGS[:3], f"--seed={seed}", capsys=capsys)
    assert session.settings.seed == 5 and len(session.entries) == 3
    said(session, "/set decoding greedy")
    assert "greedy decoding writes the same again" in said(session, "/again")[1]


def test_json_is_a_line_a_prompt_and_nothing_more(start):
    session = start(as_json=True, aloud=True)
    session.run(PipeLines(io.BytesIO(f"{PROMPT}\n/set seed 6\nThe sea\n".encode())))
    records = [json.loads(line) for line in session.out.getvalue().splitlines()]
    assert [(r["prompt"], r["settings"]["seed"]) for r in records] == [(PROMPT, 5), ("The sea", 6)]


# --- commands --------------------------------------------------------------------------------------------------


def test_settings_are_changed_as_by_flags_and_mistakes_change_nothing(start):
    session = start()
    assert "temperature 0.5" in said(session, "/set temperature 0.5 top_k=7")[1]
    assert (session.settings.temperature, session.settings.top_k, session.settings.top_p) == (0.5, 7, None)
    before = session.settings
    for line, words in {
        "/set temperature 0": "--temperature 0 leaves the likeliest token alone",
        "/set temperatur 1": "did you mean temperature?",
        "/set top_k many": "--top_k 'many' can't be read",
        "/set num_beams 3": "--num_beams has no effect with --decoding top_p",
        "/set seed 1 num_beams 3": "--num_beams has no effect",
        "/set seed": "write /set NAME VALUE",
        "/set": "write /set NAME VALUE",
    }.items():
        out, err = said(session, line)
        assert out == "" and err.startswith("error: ") and words in err and err.count("\n") == 1
        assert session.settings == before
    with pytest.raises(InputError) as flag:
        generate_text.main(["--model_path=x", "--decoding=top_p", "--num_beams=3"])
    assert said(session, "/set num_beams 3")[1] == f"error: {flag.value}\n"
    err = said(session, "/set num_beams 3 decoding beam")[1]  # decoding decides what has an effect, so it goes first
    assert "forgotten: seed, temperature, top_k" in err and session.settings.num_beams == 3
    assert "num_sequences 5" in said(session, "/set num_sequences 5 num_beams 6")[1]  # they are judged together
    said(session, "/set num_beams default num_sequences 1")
    assert session.settings.num_beams is None


def test_settings_are_listed_with_their_values(start):
    err = said(start(), "/settings")[1]
    assert " * num_sequences      2 " in err and "   temperature        1 " in err
    assert "With other methods also num_beams, early_stopping, length_penalty." in err
    assert all(name in err for name in SETTINGS)


def test_history_shows_what_was_asked_and_answered(start):
    session = start()
    assert said(session, "/history")[1] == "nothing yet\n"
    first = said(session, PROMPT)[0]
    said(session, "The sea")
    err = said(session, "/history")[1]
    assert f"  1  {PROMPT}\n" in err and "  2  The sea\n" in err
    assert first in said(session, "/history 1")[1]
    assert "a number from 1 to 2" in said(session, "/history 3")[1]


def test_saved_entries_say_with_what_they_were_made(start, tmp_path):
    session, file = start(), tmp_path / "with space.jsonl"
    assert "nothing to save" in said(session, f"/save {file}")[1]
    said(session, PROMPT)
    said(session, "/set seed 8 num_sequences default")
    said(session, PROMPT)
    assert "2 answers to 2 prompts" in said(session, f"/save {file}")[1]
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record.pop("entry") for record in records] == [1, 2]
    assert records == [answer.record() for entry in session.entries for answer in entry.answers]
    assert [record["settings"]["seed"] for record in records] == [5, 8]
    said(session, PROMPT)
    assert "3 answers" in said(session, f"/save {file}")[1]  # our own file
    (tmp_path / "other").write_text("precious")
    assert "already exists" in said(session, f"/save {tmp_path / 'other'}")[1]
    assert (tmp_path / "other").read_text() == "precious"
    said(session, f"/save! {tmp_path / 'other'}")
    assert (tmp_path / "other").read_text() == file.read_text()
    assert "can't be written" in said(session, f"/save {tmp_path}/no/such/folder")[1]
    assert "can't be written" in said(session, f"/save {tmp_path}")[1]


def test_two_models_answer_each_prompt_until_it_is_taken_back(start, toy_base):
    session = start()
    alone = said(session, PROMPT)[0]
    assert f"{EMBEDDED} and {toy_base}" in said(session, f"/compare {toy_base}")[1]
    out = said(session, PROMPT)[0]
    other = io.StringIO()
    Session([TextModel(str(toy_base))], DRAWN, TextModel, other, io.StringIO()).ask(PROMPT)
    assert out == f"=== {EMBEDDED} ===\n{alone}=== {toy_base} ===\n{other.getvalue()}"
    assert [answer.model for answer in session.entries[-1].answers] == [EMBEDDED, str(toy_base)]
    assert said(session, "/compare no/such/model")[1].splitlines()[-1].startswith("error: model 'no/such/model'")
    assert len(session.models) == 2
    said(session, "/compare off")
    assert said(session, PROMPT)[0] == alone


def test_the_task_is_changed_for_all_models(start, toy_base):
    session = start()
    said(session, f"/compare {toy_base}")
    assert "error: --task poem is not known" in said(session, "/task poem")[1]
    assert "article" in said(session, "/task summarization")[1]
    assert [model.task for model in session.models] == ["summarization"] * 2
    assert PROMPT not in said(session, PROMPT)[0]
    assert session.entries[-1].answers[0].source["task"] == "summarization"


def test_probabilities_are_switched(start):
    session = start()
    said(session, "/probabilities on")
    assert "likeliest tokens" in said(session, PROMPT)[0]
    assert "write /probabilities on or" in said(session, "/probabilities maybe")[1]
    said(session, "/probabilities off")
    assert "likeliest tokens" not in said(session, PROMPT)[0]


def test_a_block_with_bytes_that_are_no_text_is_left_out_whole(start):
    session = start()
    session.run(PipeLines(io.BytesIO(b'"""\none\n\xff\ntwo\n"""\n')))
    assert session.err.getvalue() == "error: a line of the input is not UTF-8 text, and was left out.\n"
    assert session.out.getvalue() == ""


def test_a_file_and_a_block_are_prompts_with_line_breaks(start, tmp_path):
    (tmp_path / "article.txt").write_text("One line\nand another")
    session = start(as_json=True)
    said(session, f"/file {tmp_path / 'article.txt'}")
    session.run(PipeLines(io.BytesIO(b'"""\r\nOne line\r\nand another\r\n"""\n//one\n   \n"""\n"""\n"""\nto the end')))
    prompts = [json.loads(line)["prompt"] for line in session.out.getvalue().splitlines()]
    assert prompts == ["One line\nand another"] * 2 + ["/one", "", "to the end"]
    assert "can't be read" in said(session, "/file /no/such/file")[1]


def test_unknown_commands_name_the_nearest(start):
    session = start()
    assert "did you mean /settings?" in said(session, "/setings")[1]
    assert "/help lists them" in said(session, "/xyzzy")[1]
    err = said(session, "/help")[1]
    assert all(f"/{name} {command.usage}" in err and command.help in err for name, command in COMMANDS.items())


# --- examples --------------------------------------------------------------------------------------------------


def test_examples_are_listed_and_answered(start, capsys):
    session = start()
    err = said(session, "/examples")[1]
    first = example_prompts(EMBEDDED, session.models[0].tokenizer, "text", None)[0]
    assert f"  1  {first}\n" in err and len(err.splitlines()) == N_EXAMPLES
    assert said(session, "/example 1")[0] == expected(first, *FLAGS, capsys=capsys)
    for wrong in ("/example", "/example 0", "/example 9", "/example one"):
        assert "a number from 1 to 4" in said(session, wrong)[1]


def test_examples_suit_model_and_task(toy_base, tmp_path):
    embedded, other = load_tokenizer(EMBEDDED), load_tokenizer(str(toy_base))
    stories, news = list(story_rows(N_EXAMPLES, split="test")), list(news_rows(N_EXAMPLES, split="test"))
    assert example_prompts(EMBEDDED, embedded, "summarization", None) == [row["article"] for row in news]
    assert example_prompts(EMBEDDED, embedded, "creative_writing", None) == [row["prompt"] for row in stories]
    openings = example_prompts(EMBEDDED, embedded, "text", None)
    assert all(row["story"].startswith(opening) for row, opening in zip(stories, openings, strict=True))
    for task, prompts in GENERAL.items():
        assert example_prompts(str(toy_base), other, task, None) == prompts and 3 <= len(prompts) <= 5
    rows = [{"source": f"article {i}", "reference": "x"} for i in range(9)]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "best_model").mkdir()
    of_run = partial(example_prompts, str(tmp_path / "best_model"), embedded)
    assert of_run("summarization", "summarization") == [f"article {i}" for i in range(N_EXAMPLES)]
    assert of_run("text", "summarization") == openings
    (tmp_path / "predictions.jsonl").write_text('{"source": "", "reference": "a b c d e f g h"}\n')
    assert of_run("creative_writing", "creative_writing") == ["a b c d e f"]
    (tmp_path / "predictions.jsonl").write_text("broken")
    assert of_run("summarization", "summarization") == [row["article"] for row in news]


# --- pipes, Ctrl-C, garbage ------------------------------------------------------------------------------------


def test_a_pipe_gets_answers_alone_and_ends_with_its_input(toy_base, monkeypatch, capsys):
    lines = f"{PROMPT}\n/set top_k x\n\n/set seed 9\nThe sea"  # without a line break at its end
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    generate_text.main([f"--model_path={EMBEDDED}", *FLAGS])
    out, err = capsys.readouterr()
    first, second = expected(PROMPT, *FLAGS, capsys=capsys), expected("The sea", *FLAGS[:3], "--seed=9", capsys=capsys)
    assert out == f"{first}\n{second}\n"
    assert err.startswith("error: --top_k 'x' can't be read") and "seed 9" in err


def test_quit_leaves_the_rest_unread(start):
    session = start()
    session.run(Typed("/quit", PROMPT))
    assert session.out.getvalue() == "" and not session.entries


@pytest.mark.parametrize("num_sequences", [1, 2])
def test_ctrl_c_keeps_what_is_written_and_the_session_goes_on(start, num_sequences):
    settings = DecodingSettings("top_p", max_new_tokens=40, num_sequences=num_sequences)
    whole = start(settings)
    said(whole, PROMPT)
    session = start(settings, aloud=True, out=StoppedAt(len(PROMPT) + 60))
    session.run(Typed(PROMPT, "/set max_new_tokens 3", "The sea"))
    (stopped,), (after,) = [entry.answers for entry in session.entries]
    assert stopped.interrupted and stopped.sequences[0].ended == "interrupted" and len(stopped.sequences) == 1
    text = stopped.sequences[0].text
    assert len(text) > 10 and whole.entries[0].answers[0].sequences[0].text.startswith(text)
    assert PROMPT + text in session.out.getvalue()
    assert "ended: interrupted]" in session.err.getvalue()
    assert after.prompt == "The sea" and after.sequences[0].ended == "length"


def test_ctrl_c_in_a_pipe_ends_it_with_what_is_written(start):
    session = start(DecodingSettings(max_new_tokens=40), aloud=True, out=StoppedAt(len(PROMPT) + 20))
    with pytest.raises(KeyboardInterrupt):
        session.run(PipeLines(io.BytesIO(f"{PROMPT}\nThe sea\n".encode())))
    assert session.out.getvalue().startswith(PROMPT) and len(session.entries) == 1


def test_ctrl_c_at_the_sign_warns_and_a_second_one_leaves(start):
    session = start()
    session.run(Typed(KeyboardInterrupt, "/probabilities", KeyboardInterrupt, "/quit"))
    assert session.err.getvalue().count("/quit leaves the session, and so does Ctrl-C once more") == 2
    with pytest.raises(KeyboardInterrupt):
        start().run(Typed(KeyboardInterrupt, KeyboardInterrupt, "/quit"))


def test_a_full_memory_is_said_and_the_session_goes_on(start, monkeypatch):
    session = start()
    monkeypatch.setattr(TextModel, "answer", lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert "error: out of memory: lower num_sequences" in said(session, PROMPT)[1]
    monkeypatch.undo()
    assert said(session, PROMPT)[0].startswith("--- 1 of 2")


def test_garbage_costs_a_sentence_and_no_traceback(start):
    rng = random.Random(0)
    words = [f"/{name}".encode() for name in COMMANDS if name not in ("quit", "save", "save!")]
    words += [name.encode() for name in SETTINGS] + [
        b'"""',
        b"\n",
        b"\n",
        b"\n",
        b" ",
        b"0",
        b"-1",
        b"1e99",
        b"nan",
        b"//",
    ]
    data = b"".join(
        rng.choice(words)
        if rng.random() < 0.7
        else bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9))) + b" "
        for _ in range(600)
    )
    session = start(DecodingSettings(max_new_tokens=1))
    session.settings = DecodingSettings(max_new_tokens=1)
    session.run(PipeLines(io.BytesIO(data + b'\n"""\n' + f"{PROMPT}\n".encode())))
    assert "is not UTF-8 text, and was left out" in session.err.getvalue()
    assert "Traceback" not in session.err.getvalue()


# The script, but with a pause behind every piece of text: 90 s for all of it, so that Ctrl-C comes in its middle even
# where the machine is fast.
SLOWLY = """
import runpy, sys, time
from gpt2_interp.generation.answers import Page
write = Page.write
Page.write = lambda page, piece: (write(page, piece), time.sleep(0.2))
sys.argv = ["generate_text.py", *sys.argv[1:]]
runpy.run_path("generate_text.py", run_name="__main__")
"""


@pytest.mark.slow
def test_at_a_terminal(tmp_path):
    """The script at a pseudo-terminal: the sign, tokens as they come, Ctrl-C in the middle, completion, the end."""
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job ignores Ctrl-C, and so would its children
        flags = ["--max_new_tokens=450", "--no_repeat_ngram=3"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TERM": "dumb", "COLUMNS": "300"}
        os.chdir(REPOSITORY)
        environment["PYTHONPATH"] = str(REPOSITORY)
        os.execve(sys.executable, [sys.executable, "-c", SLOWLY, f"--model_path={EMBEDDED}", *flags], environment)
    seen = b""

    def until(words, seconds=300, key=b""):
        """What is shown up to these words. key: pressed again every ten seconds until then, because Python may miss
        a Ctrl-C between showing the sign and waiting for a key."""
        nonlocal seen
        start, began, presses = len(seen), time.monotonic(), 0
        while words not in seen[start:]:
            assert time.monotonic() < began + seconds, seen.decode(errors="replace")
            if key and time.monotonic() >= began + 10 * presses:
                os.write(terminal, key)
                presses += 1
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 4096)
        return seen[start:]

    greeting = until(b"> ")
    assert b"greedy: no_repeat_ngram 3" in greeting and b"  1  Everybody knew that in" in greeting
    os.write(terminal, b"/example 1\n")
    until(b"lived")  # it is being written
    os.write(terminal, b"\x03")
    assert b"ended: interrupted]" in until(b"> ")
    os.write(terminal, b"/prob\t on\n")  # completed by readline
    assert b"probabilities are on" in until(b"> ")
    os.write(terminal, f"/save {tmp_path / 's.jsonl'}\n".encode())
    until(b"> ")
    until(b"so does Ctrl-C once more", key=b"\x03")
    until(b"interrupted", key=b"\x03")
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130 and b"Traceback" not in seen
    (record,) = map(json.loads, (tmp_path / "s.jsonl").read_text().splitlines())
    assert record["sequences"][0]["ended"] == "interrupted" and 0 < len(record["sequences"][0]["tokens"]) < 450
