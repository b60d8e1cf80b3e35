"""Model cards: a header that the Hub can read, and a snippet that runs as it stands."""

import json
import re
import subprocess
import sys

import pytest
import torch
import yaml
from transformers import GPT2LMHeadModel

from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.run_paths import REPOSITORY, RunPaths
from gpt2_interp.training.model_card import card_header

METRICS = {"tuned": {"rouge1": 12.34567, "rouge1_low": 11.0, "loss": 1.5}, "test": {"source": 'a: "test" # split'}}


def header(metrics=METRICS, tuning="full", **given):
    arguments = dict.fromkeys(("model_name_or_path", "dataset_name", "mixture", "source_files"))
    run_info = {"task": "summarization", "tuning": tuning, "arguments": arguments | given}
    return yaml.safe_load(card_header("my_run", run_info, metrics))


def test_what_is_embedded_has_our_license_and_language():
    found = header(model_name_or_path="assets/tiny_gpt2", dataset_name="synthetic_news")
    assert (found["license"], found["language"], found["library_name"]) == ("mit", "en", "transformers")
    assert not {"base_model", "datasets"} & found.keys()  # neither is on the Hub
    assert header(dataset_name="synthetic_text")["license"] == "mit"  # from random weights


def test_names_on_the_hub_are_named_and_what_is_unknown_stays_out(tmp_path):
    found = header(tuning="lora", model_name_or_path="gpt2", dataset_name="abisee/cnn_dailymail")
    assert (found["base_model"], found["datasets"]) == ("gpt2", ["abisee/cnn_dailymail"])
    assert found["license"] == "unknown" and found["library_name"] == "peft" and "language" not in found
    mixed = header(model_name_or_path="gpt2", mixture=["wikitext=1", "rocstories=2"], source_files=["wikitext=w.jsonl"])
    assert mixed["datasets"] == ["Ximing/ROCStories"]
    assert "base_model" not in header(model_name_or_path=str(tmp_path), dataset_name="abisee/cnn_dailymail")
    files = header(model_name_or_path=str(tmp_path))
    assert not {"datasets", "base_model", "language"} & files.keys()


def test_the_scores_are_a_model_index_of_the_very_model():
    (model,) = header(model_name_or_path="gpt2", dataset_name="owner/rows")["model-index"]
    (result,) = model["results"]
    assert model["name"] == "my_run" and result["dataset"] == {"type": "owner/rows", "name": 'a: "test" # split'}
    assert [(one["type"], one["name"], one["value"]) for one in result["metrics"]] == [
        ("rouge", "rouge1", 12.3457), ("loss", "loss", 1.5)
    ]  # fmt: skip
    assert "model-index" not in header(metrics=None, model_name_or_path="gpt2", dataset_name="owner/rows")


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_snippet_runs_from_another_folder_and_answers_as_the_run_did(toy_base, tmp_path, tuning):
    """The base has float16 on disk, in which an adapter would answer otherwise."""
    base = tmp_path / "base"
    GPT2LMHeadModel.from_pretrained(toy_base, dtype=torch.float16).save_pretrained(base)
    load_tokenizer(str(toy_base)).save_pretrained(base)
    flags = (
        "--model_name_or_path=base --dataset_name=synthetic_news --max_source_length=320 --max_target_length=24 "
        "--max_train_samples=64 --max_eval_samples=8 --max_predict_samples=16 --probe_samples=8 --max_steps=12 "
        "--save_steps=12 --per_device_train_batch_size=4 --learning_rate=1e-2 --use_cpu --measures hidden "
        f"--tuning={tuning} --run_name=toy"
    )
    train = [sys.executable, str(REPOSITORY / "gpt2_summarization.py"), *flags.split()]
    trained = subprocess.run(train, cwd=tmp_path, capture_output=True, text=True)
    assert trained.returncode == 0, trained.stderr[-2000:]
    outputs = RunPaths("toy", tmp_path).model_outputs
    for which in ("best_model", "final_model"):
        card = (outputs / which / "README.md").read_text()
        assert yaml.safe_load(card.split("---\n")[1])["model-index"]
    (snippet,) = re.findall(r"```python\n(.*?)```", (outputs / "best_model" / "README.md").read_text(), re.DOTALL)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    compare = (
        "\nimport json, sys\nfor line in open(sys.argv[1]):\n    row = json.loads(line)\n"
        "    print('COMPARED', json.dumps([answer(row['source']), row['tuned']]))\n"
    )
    predictions = outputs / "predictions.jsonl"
    found = subprocess.run(
        [sys.executable, "-c", snippet + compare, str(predictions)], cwd=elsewhere, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr[-2000:]
    lines = [line.removeprefix("COMPARED ") for line in found.stdout.splitlines() if line.startswith("COMPARED ")]
    pairs = [json.loads(line) for line in lines]
    assert len(pairs) == 16 and [pair for pair in pairs if pair[0] != pair[1]] == []
