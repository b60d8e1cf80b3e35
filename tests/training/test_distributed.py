"""Two processes (torchrun, gloo) train as one process does at the same effective batch, and only one of them writes."""

import copy
import json
import subprocess
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from gpt2_interp.snapshots.store import SnapshotStore
from tests.conftest import REPOSITORY
from tests.runs import Run, free_port, one_of_two

FLAGS = [
    "--max_train_samples=48", "--max_eval_samples=9", "--max_predict_samples=4", "--max_target_length=24",
    "--max_steps=8", "--save_steps=4", "--logging_steps=1", "--learning_rate=1e-3", "--precision=fp32",
    "--gradient_accumulation_steps=2", "--attn_pdrop=0", "--resid_pdrop=0", "--embd_pdrop=0", "--lora_dropout=0",
]  # fmt: skip
IN_ONE, IN_TWO = "--per_device_train_batch_size=4", "--per_device_train_batch_size=2"


def by_torchrun(run):
    """What it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "gpt2_summarization.py",
         *run.flags, IN_TWO, "--measures", "hidden", "loss", "weights"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def by_hand(run):
    """The same without torchrun, whose three processes import everything for longer than the run takes."""
    port, both = free_port(), (run, copy.copy(run))
    processes = [one.start(IN_TWO, fault=partial(one_of_two, rank, port)) for rank, one in enumerate(both)]
    assert [one.finish(process) for one, process in zip(both, processes, strict=True)] == [0, 0], run.output
    return "".join(one.output for one in both)


@pytest.mark.slow
@pytest.mark.parametrize(("tuning", "in_two"), [("full", by_torchrun), ("lora", by_hand)])
def test_two_processes_train_as_one(toy_base, tmp_path, tuning, in_two):
    flags = [*FLAGS, f"--tuning={tuning}"]
    alone, shared = (Run(tmp_path, toy_base, name, flags) for name in ("one", "two"))
    assert alone(IN_ONE) == 0, alone.output
    printed = in_two(shared)
    one, two = alone.paths, shared.paths
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
    assert [sample["step"] for sample in samples] == [0, 4, 8]
    assert {p.name for p in two.checkpoints.glob("*/rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
