"""The presets of the real experiments, end to end on local files, with the toy model in place of GPT-2."""

import json

import pytest

from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from tests.test_gpt2_summarization import run

SMALL = [
    "--probe_samples=8", "--max_target_length=16", "--max_source_length=40", "--max_steps=4", "--save_steps=2",
    "--logging_steps=1", "--per_device_train_batch_size=2", "--gradient_accumulation_steps=1",
    "--samples_per_checkpoint=1", "--use_cpu",
]  # fmt: skip
ROWS = ["--max_train_samples=40", "--max_eval_samples=10", "--max_predict_samples=10"]
SOURCES = ("writingprompts", "rocstories", "wikitext", "openwebtext")


def scores_of(root, name):
    return json.loads((RunPaths(name, root).model_outputs / "metrics.json").read_text())


def test_creative_writing_from_local_files(real_data, toy_base, tmp_path, capsys):
    files = ("writingprompts/train.jsonl", "rocstories/validation.jsonl", "wikitext/train.jsonl", "webtext/train.jsonl")
    given = [f"{name}={real_data / file}" for name, file in zip(SOURCES, files, strict=True)]
    assert run(
        "creative_writing", f"--model_name_or_path={toy_base}", "--source_files", *given, "--block_size=64",
        *SMALL, *ROWS, f"--root={tmp_path}", "--run_name=mixed",
    ) == 0  # fmt: skip
    output = capsys.readouterr().out
    assert "mixture of writingprompts 16, rocstories 8, wikitext 8, openwebtext 8" in output
    assert "without end-of-text" in output and "perplexity_wikitext" in output
    metrics = scores_of(tmp_path, "mixed")
    for system in ("base", "tuned"):
        scores = metrics[system]
        assert scores["n"] == 10
        for name in SOURCES:
            low, high = (scores[f"perplexity_{name}_{side}"] for side in ("low", "high"))
            assert 1 < low <= scores[f"perplexity_{name}"] <= high
        assert scores["perplexity_shuffled_prompt"] > 1
    data = SnapshotStore(RunPaths("mixed", tmp_path)).run_info()["data"]
    assert data["train"]["counts"] == {"writingprompts": 16, "rocstories": 8, "wikitext": 8, "openwebtext": 8}
    assert all(len(data[use]["sha256"]) == 64 for use in data)
    assert all(len(data["train"]["samples"][name]["sha256"]) == 64 for name in SOURCES)
    card = (RunPaths("mixed", tmp_path).model_outputs / "best_model" / "README.md").read_text()
    assert "perplexity_rocstories" in card and "mixture of writingprompts 4" in card


@pytest.mark.parametrize("unit", ["line", "document"])
def test_custom_text_in_blocks(toy_base, tmp_path, unit):
    marks = "\n<|endoftext|>\n" if unit == "document" else "\n"
    path = tmp_path / "mine.txt"
    path.write_text(marks.join(f"Boat {i} lay in the street. " * (1 + i % 12) for i in range(300)))
    assert run(
        "custom_text", f"--model_name_or_path={toy_base}", f"--train_file={path}", f"--text_unit={unit}",
        "--block_size=32", *SMALL, f"--root={tmp_path}", "--run_name=text",
    ) == 0  # fmt: skip
    info = SnapshotStore(RunPaths("text", tmp_path)).run_info()
    assert info["data"]["train"]["rows"] == 270 and info["data"]["train"]["blocks"] > 400
    assert any("the last 10%" in note for note in info["notes"])
    metrics = scores_of(tmp_path, "text")
    assert metrics["tuned"]["n"] > 10 and metrics["tuned"]["perplexity_low"] < metrics["tuned"]["perplexity_high"]


def test_cnn_dailymail_from_local_rows_and_random_weights(real_data, toy_base, tmp_path):
    news = real_data / "cnn_dailymail"
    assert run(
        "cnn_dailymail", "--config_name=gpt2", "--config_overrides=n_layer=1,n_head=2,n_embd=8,n_positions=128",
        f"--tokenizer_name={toy_base}", f"--train_file={news / 'train.jsonl'}", *SMALL, "--num_train_epochs=1",
        f"--validation_file={news / 'validation.jsonl'}", f"--root={tmp_path}", "--run_name=news",
    ) == 0  # fmt: skip
    data = SnapshotStore(RunPaths("news", tmp_path)).run_info()["data"]
    assert [data[use]["rows"] for use in data] == [392, 167, 166, 8]  # all rows of these files, not the preset's counts


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["creative_writing"], ["source writingprompts", "can't be reached", "--source_files writingprompts=FILE"]),
        (["creative_writing", "--source_files=writingprompts=no.jsonl"], ["no.jsonl does not exist", "--source_files"]),
        (["creative_writing", "--mixture=wikitext=1", "--source_files", "wikitext={few}"], ["only 1 usable rows of"]),
        (["custom_text", "--train_file={few}"], ["has 1 rows", "--validation_split_percentage", "--validation_file"]),
        (["custom_text", "--dataset_name=synthetic_text", "--block_size=999"], ["--block_size 999", "384 tokens"]),
        (
            ["quickstart", "--train_file={few}", "--max_train_samples=9", "--validation_file={few}"],
            ["only 1 rows", "9"],
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(flags, words, toy_base, tmp_path, capsys):
    few, root = tmp_path / "few.jsonl", tmp_path / "root"
    few.write_text(json.dumps({"text": "word " * 50, "article": "a", "highlights": "h"}) + "\n")
    flags = [flag.format(few=few) for flag in flags]
    assert run(*flags, f"--model_name_or_path={toy_base}", *SMALL, f"--root={root}", "--run_name=bad") == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not root.exists()
