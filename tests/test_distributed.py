"""Two processes (torchrun, gloo) train as one process does at the same effective batch, and only one of them writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots import SnapshotStore

REPOSITORY = Path(__file__).resolve().parents[1]
FLAGS = [
    "--dataset_name=synthetic_news", "--max_source_length=200", "--max_train_samples=48", "--max_eval_samples=9",
    "--max_predict_samples=4", "--probe_samples=8", "--max_target_length=24", "--max_steps=8", "--save_steps=4",
    "--logging_steps=1", "--learning_rate=1e-3", "--samples_per_checkpoint=1", "--use_cpu", "--precision=fp32",
    "--resid_pdrop=0", "--embd_pdrop=0", "--lora_dropout=0",
]  # fmt: skip


def train(toy_base, root, name, processes, *flags):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    result = subprocess.run(
        [*(launcher if processes > 1 else [sys.executable]), "gpt2_summarization.py",
         f"--model_name_or_path={toy_base}", *FLAGS, f"--root={root}", f"--run_name={name}", *flags],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return RunPaths(name, root), result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_two_processes_train_as_one(toy_base, tmp_path, tuning):
    one, _ = train(
        toy_base, tmp_path, "one", 1, "--per_device_train_batch_size=4", "--gradient_accumulation_steps=2",
        f"--tuning={tuning}",
    )  # fmt: skip
    two, printed = train(
        toy_base, tmp_path, "two", 2, "--per_device_train_batch_size=2", "--gradient_accumulation_steps=2",
        f"--tuning={tuning}",
    )  # fmt: skip
    logs = [SnapshotStore(paths).read_log() for paths in (one, two)]
    assert [(line["step"], set(line)) for line in logs[0]] == [(line["step"], set(line)) for line in logs[1]]
    for key in ("loss", "grad_norm", "learning_rate", "eval_loss"):
        a, b = ([line[key] for line in log if key in line] for log in logs)
        assert len(a) >= 2 and a == pytest.approx(b, rel=1e-4), key
    for name in ("hidden_pooled", "probe_loss", "weight_change"):
        (steps, a), (same, b) = (SnapshotStore(paths).stack(name) for paths in (one, two))
        assert steps == same == [0, 4, 8]
        torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-2, atol=1e-4, equal_nan=True)
    file = "adapter_model.safetensors" if tuning == "lora" else "model.safetensors"
    a, b = (load_file(paths.model_outputs / "final_model" / file) for paths in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=2e-4)
    # one process speaks and writes, once
    assert printed.count("results are in") == 1
    samples = [json.loads(line) for line in (two.model_outputs / "samples.jsonl").open()]
    assert [sample["step"] for sample in samples] == [4, 8]
    assert {p.name for p in two.checkpoints.glob("*/rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
