"""The scripts on real CNN/DailyMail rows with GPT-2 124M's shape: how one uses data of one's own, on few rows."""

import json
import shutil
import sys

import pytest

import analyze_latent_space
import gpt2_summarization
import visualize_metrics
from gpt2_interp.errors import run_script
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from tests.toy import measure_fewer


@pytest.mark.slow
def test_gpt2_shape_on_cnn_dailymail_rows(real_data, tmp_path, monkeypatch, capsys):
    measure_fewer(monkeypatch)

    def script(module, *flags):
        """What it printed. Any error exits, and so fails the test."""
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, flags), f"--root={tmp_path}", "--run_name=cnn"])
        run_script(module.main)
        return capsys.readouterr().out

    news = real_data / "cnn_dailymail"
    output = script(
        gpt2_summarization, "--config_name=gpt2", f"--tokenizer_name={real_data / 'gpt2_tokenizer'}",
        f"--train_file={news / 'train.jsonl'}", f"--validation_file={news / 'validation.jsonl'}",
        "--text_column=article", "--summary_column=highlights", "--max_source_length=48", "--max_target_length=8",
        "--per_device_train_batch_size=1", "--max_train_samples=8", "--max_eval_samples=2", "--max_predict_samples=2",
        "--probe_samples=8", "--max_steps=2", "--save_steps=2", "--logging_steps=1", "--use_cpu",
        "--measures", "attention", "weights", "hidden",
    )  # fmt: skip
    assert "124,439,808 of 124,439,808 parameters are trained" in output
    assert "no test file" in output
    paths = RunPaths("cnn", tmp_path)
    store = SnapshotStore(paths)
    assert store.steps() == [0, 2]
    assert store.load(2, ["attn_entropy"])["attn_entropy"].shape == (8, 2, 12, 12)
    scores = json.loads((paths.model_outputs / "metrics.json").read_text())
    assert scores["tuned"]["loss"] < scores["base"]["loss"]
    script(analyze_latent_space, "--method=pca")
    script(visualize_metrics)
    assert (paths.visualizations / "interpretability_report.html").stat().st_size < 15_000_000
    shutil.rmtree(tmp_path)  # gigabytes of weights
