"""generate_text.py with one prompt, and what it refuses. For files of prompts and sessions there are other tests."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

import generate_text
from gpt2_interp.errors import InputError
from gpt2_interp.generation.text_model import TextModel
from gpt2_interp.model.load import add_lora
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.model.task_file import TASK_FILE
from gpt2_interp.model.tokenizers import load_tokenizer
from tests.conftest import REPOSITORY, decoding

EMBEDDED = REPOSITORY / "assets" / "tiny_gpt2"
DRAWN = ["--decoding=top_p", "--top_p=0.9", "--top_k=50", "--max_new_tokens=12"]


@pytest.fixture
def ask(toy_base, capsys):
    """Runs main with flags; returns (stdout, stderr)."""

    def run(*flags, model=toy_base):
        generate_text.main([f"--model_path={model}", *flags])
        return capsys.readouterr()

    return run


# --- what is printed -------------------------------------------------------------------------------------------


def test_a_text_is_printed_behind_its_prompt_and_nothing_else_on_stdout(ask, toy_base):
    out, err = ask("--prompt=The old bridge", "--max_new_tokens=10")
    tokenizer, model = AutoTokenizer.from_pretrained(toy_base), GPT2LMHeadModel.from_pretrained(toy_base).eval()
    ids = tokenizer("The old bridge", return_tensors="pt")["input_ids"]
    expected = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, pad_token_id=0
    )
    assert out == tokenizer.decode(expected[0]) + "\n"
    assert err == f"{toy_base} (text), greedy: max_new_tokens 10\n"


def test_a_summary_is_printed_alone_and_several_under_headers_with_their_seeds(ask):
    out, _ = ask("--prompt=The old bridge is closed.", "--task=summarization", *DRAWN, "--num_sequences=3", "--seed=7")
    lines = out.split("--- ")[1:]
    assert [line.split(" ---\n")[0] for line in lines] == ["1 of 3, seed 7", "2 of 3, seed 8", "3 of 3, seed 9"]
    assert "bridge is closed" not in out
    alone, _ = ask("--prompt=The old bridge is closed.", "--task=summarization", *DRAWN, "--seed=8")
    assert alone == lines[1].split(" ---\n")[1]
    assert len({line.split(" ---\n")[1] for line in lines}) == 3


def test_json_tells_prompt_model_settings_and_every_sequence(ask, toy_base):
    out, _ = ask("--prompt=The old", "--json", *DRAWN, "--num_sequences=2", "--show_probabilities")
    record = json.loads(out)
    assert list(record) == ["prompt", "model", "weights", "implementation", "task", "settings", "sequences"]
    assert (record["prompt"], record["model"], record["task"]) == ("The old", str(toy_base), "text")
    assert record["settings"] == {
        "decoding": "top_p", "top_p": 0.9, "top_k": 50, "temperature": 1.0, "no_repeat_ngram": 0,
        "repetition_penalty": 1.0, "max_new_tokens": 12, "num_sequences": 2, "seed": 42,
    }  # fmt: skip
    tokenizer = load_tokenizer(str(toy_base))
    for k, sequence in enumerate(record["sequences"]):
        assert sequence["seed"] == 42 + k and sequence["ended"] == "length" and len(sequence["tokens"]) == 12
        assert tokenizer.decode(sequence["tokens"]) == sequence["text"]
        assert [choice["token"] for choice in sequence["probabilities"]] == sequence["tokens"]
        for choice in sequence["probabilities"]:
            assert [len(choice["alternatives"]), choice["rank"] > 0] == [5, True]
            best = [one["probability"] for one in choice["alternatives"]]
            assert best == sorted(best, reverse=True)
            if choice["rank"] <= 5:
                assert choice["alternatives"][choice["rank"] - 1]["token"] == choice["token"]


def test_the_table_shows_each_token_its_probability_and_rank(ask):
    out, _ = ask("--prompt=The old", "--max_new_tokens=3", "--show_probabilities", model=EMBEDDED)
    header, *rows = out.rstrip("\n").split("\n\n")[1].splitlines()
    assert header.split() == ["token", "probability", "rank", "likeliest", "tokens"]
    model, tokenizer = GPT2LMHeadModel.from_pretrained(EMBEDDED).float().eval(), load_tokenizer(str(EMBEDDED))
    ids = tokenizer("The old")["input_ids"]
    assert len(rows) == 3
    for row in rows:  # greedy: every token is the likeliest
        with torch.no_grad():
            p, token = model(torch.tensor([ids])).logits[0, -1].softmax(0).max(0)
        ids.append(int(token))
        shown = json.dumps(tokenizer.decode([int(token)]), ensure_ascii=False)
        assert row.startswith(f"{shown:<18} {float(p):>11.4f}      1   {shown} {float(p):.3f}  ")


def test_the_end_of_a_text_has_its_probability_and_half_a_character_its_bytes(toy_base):
    model = TextModel(str(toy_base))
    end = model.tokenizer.eos_token_id
    byte = model.tokenizer.convert_tokens_to_ids("Ģ")  # how a byte-level vocabulary writes 0x80
    with torch.no_grad():
        model.model.transformer.wte.weight[end] = 0
        model.model.transformer.ln_f.weight.zero_()  # the same distribution everywhere
        model.model.transformer.ln_f.bias.copy_(50 * model.model.transformer.wte.weight[byte])
    settings = decoding(max_new_tokens=2)
    answer = model.answer(model.prompt("The", settings), settings, probabilities=True)
    assert [choice.chosen.text for choice in answer.sequences[0].probabilities] == ["<80>", "<80>"]
    with torch.no_grad():
        model.model.transformer.ln_f.bias.copy_(-model.model.transformer.ln_f.bias)
        model.model.transformer.wte.weight[end] = model.model.transformer.ln_f.bias
    answer = model.answer(model.prompt("The", settings), settings, probabilities=True)
    (sequence,) = answer.sequences
    assert (sequence.text, sequence.ended, sequence.tokens) == ("", "end of text", ())
    assert [choice.chosen.text for choice in sequence.probabilities] == [model.tokenizer.eos_token]


def test_a_long_prompt_is_cut_and_that_is_said(ask):
    words = " ".join(f"word{i}" for i in range(500))
    out, err = ask(f"--prompt={words}", "--max_new_tokens=5")
    assert "note: the text's beginning was cut" in err
    assert "word3 " not in out and "word499" in out
    out, err = ask(f"--prompt={words}", "--max_new_tokens=5", "--json", "--task=summarization")
    assert "note: the text's end was cut" in err and json.loads(out)["note"] in err


def test_both_checkpoints_answer_under_their_names(ask, toy_base, tmp_path):
    model = GPT2LMHeadModel.from_pretrained(toy_base)
    torch.nn.init.normal_(model.transformer.h[0].mlp.c_fc.weight, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path / "other")
    load_tokenizer(str(toy_base)).save_pretrained(tmp_path / "other")
    flags = ["--prompt=The old", "--max_new_tokens=8"]
    out, _ = ask(*flags, f"--compare_to={tmp_path / 'other'}")
    first, other = ask(*flags).out, ask(*flags, model=tmp_path / "other").out
    assert out == f"=== {toy_base} ===\n{first}=== {tmp_path / 'other'} ===\n{other}"
    assert first != other
    records = [
        json.loads(line) for line in ask(*flags, "--json", f"--compare_to={tmp_path / 'other'}").out.splitlines()
    ]
    assert len({record["weights"] for record in records}) == 2


def test_both_implementations_write_the_same_text(ask):
    flags = ["--prompt=The old", *DRAWN, "--json"]
    own, theirs = json.loads(ask(*flags, "--implementation=scratch").out), json.loads(ask(*flags).out)
    assert own["implementation"] == "scratch" and own["sequences"] == theirs["sequences"]
    assert own["weights"] == theirs["weights"]


def test_an_adapter_is_a_model_like_any_other(ask, toy_base, tmp_path):
    tuned = add_lora(GPT2LMHeadModel.from_pretrained(toy_base), ModelArguments(lora_target_modules=["c_attn"]), 0)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(2))
    tuned.save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "moved/away"}))
    with pytest.raises(InputError, match="moved/away.*--base_model"):
        ask("--prompt=The old", model=tmp_path / "adapter")
    out, _ = ask("--prompt=The old", "--max_new_tokens=8", f"--base_model={toy_base}", model=tmp_path / "adapter")
    assert out.startswith("The old") and out != ask("--prompt=The old", "--max_new_tokens=8").out


def test_what_a_model_was_trained_for_is_its_task(ask, toy_base, tmp_path):
    shutil.copytree(toy_base, tmp_path / "model")
    trained = {"task": "summarization", "max_source_length": 5, "max_target_length": 8}
    (tmp_path / "model" / TASK_FILE).write_text(json.dumps(trained))
    flags = ["--prompt=The old bridge over the river is closed", "--max_new_tokens=4", "--json"]
    record = json.loads(ask(*flags, model=tmp_path / "model").out)
    assert record["task"] == "summarization" and "of which 5 are used" in record["note"]
    assert json.loads(ask(*flags, "--task=text", model=tmp_path / "model").out)["task"] == "text"


def test_the_comparison_of_implementations_is_printed(ask):
    out, err = ask("--prompt=" + "The old bridge " * 300, "--compare_implementations", "--max_new_tokens=4")
    assert "transformers.generate" in out and "pipeline" in out
    assert "note: the text's beginning was cut" in err
    record = json.loads(ask("--prompt=The old bridge", "--compare_implementations", "--max_new_tokens=4", "--json").out)
    (continuation,) = record["continuations"]
    assert continuation["own"] == continuation["transformers"] and len(continuation["own"]) == 4


def test_output_file_keeps_the_record_and_is_not_overwritten(ask, tmp_path):
    file = tmp_path / "kept.jsonl"
    out, _ = ask("--prompt=The old", "--max_new_tokens=4", f"--output_file={file}")
    assert json.loads(file.read_text())["sequences"][0]["text"] == out.removeprefix("The old").removesuffix("\n")
    with pytest.raises(InputError, match="already exists"):
        ask("--prompt=The new", "--max_new_tokens=4", f"--output_file={file}")
    ask("--prompt=The new", "--max_new_tokens=4", f"--output_file={file}", "--overwrite")
    assert [json.loads(line)["prompt"] for line in file.read_text().splitlines()] == ["The new"]


def test_ctrl_c_shows_and_keeps_what_is_there(ask, toy_base, tmp_path, monkeypatch, capsys):
    steps = 0

    def stop_at_the_fifth(*_):
        nonlocal steps
        steps += 1
        if steps == 5:
            raise KeyboardInterrupt

    forward = GPT2LMHeadModel.forward
    monkeypatch.setattr(GPT2LMHeadModel, "forward", lambda *a, **k: stop_at_the_fifth() or forward(*a, **k))
    with pytest.raises(KeyboardInterrupt):
        ask("--prompt=The old", *DRAWN, "--num_sequences=2", f"--output_file={tmp_path / 'o.jsonl'}")
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "o.jsonl").read_text())
    assert [(len(one["tokens"]), one["ended"]) for one in record["sequences"]] == [(4, "interrupted")] * 2
    assert all(f"The old{one['text']}\n" in out for one in record["sequences"])
    monkeypatch.undo()
    whole = json.loads(ask("--prompt=The old", *DRAWN, "--num_sequences=2", "--json").out)
    assert [one["tokens"][:4] for one in whole["sequences"]] == [one["tokens"] for one in record["sequences"]]


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--prompt=x", "--decoding=sampling", "--temperature=0"], "--temperature 0 .*use --decoding greedy"),
        (["--prompt=x", "--top_k=3"], "--top_k has no effect with --decoding greedy"),
        (["--prompt=x", "--top_k=many"], "--top_k 'many' can't be read"),
        (["--prompt=x", "--max_length=9", "--max_new_tokens=3"], "--max_length.*--max_new_tokens"),
        (["--prompt=x", "--prompts_file=y"], "not allowed with argument --prompt"),
        (["--prompt=x", "--text_column=y"], "--text_column has no effect with a single prompt"),
        (["--prompt=x", "--overwrite"], "--overwrite has no effect without --output_file"),
        (["--prompts_file=x", "--json"], "--json has no effect with --prompts_file"),
        (["--prompts_file=x", "--compare_to=y"], "--compare_to has no effect with --prompts_file"),
        (["--output_file=x"], "--output_file has no effect in an interactive session"),
        (["--batch_size=2"], "--batch_size has no effect in an interactive session"),
        (["--compare_implementations"], "--compare_implementations has no effect in an interactive session"),
        (["--prompt=x", "--compare_implementations", "--implementation=scratch"], "--implementation has no effect"),
        (["--prompt=x", "--batch_size=0"], "--batch_size must be at least 1"),
        (["--prompt=x", "--task=poem"], "invalid choice: 'poem'"),
        (["--prompt=x", "--no_such_flag"], "unknown flag --no_such_flag"),
        (["--prompt=x", "--temp=1"], "--temp.*--temperature"),
        (["--prompt=x", "--device=nonsense"], "--device nonsense is not known"),
        (["--prompt=x", "--device=cuda:99"], "--device cuda:99 can't be used here"),
        (["--prompt=a\udcff"], "not UTF-8"),
        (["--prompt= ", "--task=summarization"], "empty"),
        (["--prompt=x", "--output_file=/no/such/folder/x.jsonl"], "folder .* does not exist"),
        (["--text_file=/no/such/file"], "--text_file /no/such/file can't be read"),
    ],
)
def test_mistakes_are_one_sentence_that_names_the_flag(ask, flags, words):
    with pytest.raises(InputError, match=words) as error:
        ask(*flags)
    assert "\n" not in str(error.value)


def test_a_folder_without_tokenizer_is_refused(ask, toy_base, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(toy_base / name, tmp_path)
    with pytest.raises(InputError, match="has no tokenizer"):
        ask("--prompt=x", model=tmp_path)


def test_a_full_memory_is_said_with_this_scripts_flags(ask, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(GPT2LMHeadModel, "forward", full)
    with pytest.raises(InputError, match="out of memory: lower --batch_size"):
        ask("--prompt=x")


def test_text_file_is_one_prompt_with_its_line_breaks(ask, tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffThe old\nbridge".encode())
    record = json.loads(ask(f"--text_file={tmp_path / 'a.txt'}", "--max_new_tokens=2", "--json").out)
    assert record["prompt"] == "The old\nbridge"


# --- as a process ----------------------------------------------------------------------------------------------


def test_help_and_mistakes_come_before_the_libraries():
    code = (
        "import sys, generate_text\n"
        "for flags in (['--help'], ['--model_path=x', '--top_k=3'], ['--model_path=gpt2', '--prompt=x']):\n"
        "    try: generate_text.main(flags)\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "    except generate_text.InputError as error: print(error)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    nowhere = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/no/such/cache"}
    start = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=nowhere, capture_output=True, text=True)
    assert time.monotonic() - start < 20  # the libraries' own retries take 23 s and more
    assert result.returncode == 0, result.stderr
    assert "--prompts_file" in result.stdout and "Exit status" in result.stdout
    *_, effect, hub = result.stdout.splitlines()
    assert effect.startswith("--top_k has no effect") and hub.startswith("--model_path gpt2: ")


@pytest.mark.slow
def test_a_reader_of_the_pipe_may_leave(toy_base):
    command = [sys.executable, "generate_text.py", f"--model_path={toy_base}", "--text_file=-", *DRAWN]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.close()
        process.stdin.write("The old")
        process.stdin.close()
        assert process.stderr.read() == (
            f"{toy_base} (text), top_p: temperature 1, top_k 50, top_p 0.9, max_new_tokens 12, seed 42\n"
        )
    assert process.returncode == 141
