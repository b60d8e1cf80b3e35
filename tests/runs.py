"""Runs of gpt2_summarization.py in processes of their own, which may be killed, and what a run leaves behind.

A process costs a second, not ten: it is forked from a server that has imported everything. The server is started for
this, because pytest's own process may have threads, which a fork does not copy.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

import gpt2_summarization
from gpt2_interp.errors import run_script
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.training.checkpoints import MANIFEST
from gpt2_interp.training.pace import TIMING
from tests.toy import measure_fewer

torch.set_num_threads(1)  # before the first operation: threads of a pool would not survive a fork
tqdm.set_lock(threading.RLock())  # its own is a semaphore between processes, which a killed one leaves behind
gc.freeze()  # what was imported is no garbage: a collection in a child takes a third of a second otherwise

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "tests.runs"])

# Dropout, an accumulated batch, checkpoints between logs, and epochs that end between checkpoints.
TRAINING = "gpt2_summarization"
STEPS = 8
FLAGS = [
    "--dataset_name=synthetic_news", "--max_source_length=64", "--max_target_length=12", "--max_train_samples=20",
    "--max_eval_samples=4", "--max_predict_samples=2", "--probe_samples=8", "--samples_per_checkpoint=1",
    f"--max_steps={STEPS}", "--save_steps=3", "--logging_steps=2", "--gradient_accumulation_steps=2",
    "--per_device_train_batch_size=2", "--learning_rate=1e-2", "--attn_pdrop=0.1", "--use_cpu", "--disable_tqdm=true",
]  # fmt: skip


class Run:
    """One run: starts processes of it, with the same flags each time."""

    def __init__(self, root: Path, base: Path, name: str = "toy", flags: list[str] = ()):
        self.paths = RunPaths(name, root)
        self.flags = [f"--model_name_or_path={base}", *FLAGS, f"--root={root}", f"--run_name={name}", *flags]
        self.output = ""

    def start(self, *flags: str, fault: Callable[[], None] | None = None, script: str = TRAINING):
        """A process of this run. fault: called in it before the script (breaks something)."""
        self._reader, writer = FORKS.Pipe(duplex=False)  # not a file: its size could be limited, its disk full
        names = [f for f in self.flags if f.startswith(("--root=", "--run_name="))]
        mine = {TRAINING: self.flags, "generate_text": []}.get(script, names)
        process = FORKS.Process(target=_main, args=(script, [*mine, *flags], writer, fault))
        process.start()
        writer.close()
        return process

    def finish(self, process, timeout: float = 600) -> int:
        """Exit status, negative for the signal that killed it; `output` holds what it printed."""
        process.join(timeout)
        assert process.exitcode is not None, "the process hangs"
        with open(self._reader.fileno(), "rb", closefd=False) as file:
            self.output = file.read().decode(errors="replace")
        return process.exitcode

    def __call__(self, *flags: str, fault: Callable[[], None] | None = None, script: str = TRAINING) -> int:
        return self.finish(self.start(*flags, fault=fault, script=script))


def _main(script: str, argv: list[str], output, fault: Callable[[], None] | None) -> None:
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    sys.stdout, sys.stderr = (open(k, "w", buffering=1, closefd=False) for k in (1, 2))  # noqa: SIM115
    sys.argv = [f"{script}.py", *argv]
    gpt2_summarization.draw_training_curves = lambda *args: None  # a second of matplotlib
    measure_fewer(pytest.MonkeyPatch())
    if fault is not None:
        fault()
    run_script(importlib.import_module(script).main)


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def one_of_two(rank: int, port: str) -> None:
    """What torchrun tells a process: this is the rank-th of two. A fault of `Run.start`, for one."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=port)


# --- what a run leaves behind ----------------------------------------------------------------------------------


def outcome(paths: RunPaths) -> dict[str, Any]:
    """Everything that must not depend on how often a run was stopped: {what: content}, without times."""
    found: dict[str, Any] = {"files": _files(paths)}
    for folder in (paths.model_outputs, paths.checkpoints, paths.metrics, paths.attention, paths.latent):
        for path in folder.rglob("*"):
            if path.suffix in (".safetensors", ".pt", ".pth") or path.name.endswith("config.json"):
                found[str(path.relative_to(paths.root))] = path.read_bytes()
    for name in ("samples.jsonl", "predictions.jsonl", "metrics.json"):
        found[name] = (paths.model_outputs / name).read_text()
    found["training_log"] = [
        _without_times(json.loads(line)) for line in (paths.metrics / "training_log.jsonl").read_text().splitlines()
    ]
    return found | tensorboard(paths)


def tensorboard(paths: RunPaths) -> dict[str, list]:
    """{tag: [(step, value)]} of scalars and texts, but for times and for the arguments, which name folders."""
    events = EventAccumulator(str(paths.logs), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}
    texts = {tag: [(e.step, e.tensor_proto.string_val[0]) for e in events.Tensors(tag)] for tag in tags["tensors"]}
    texts["args/text_summary"] = len(texts["args/text_summary"])
    return _without_times(found) | texts


def _without_times(values: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between a run and its repetition; keys of the log or tags of TensorBoard."""
    times = {*TIMING, *(f"train/{name}" for name in TIMING), "eval/runtime"}
    return {key: value for key, value in values.items() if key not in times}


def _files(paths: RunPaths) -> set[str]:
    """Names of all files but TensorBoard's, which hold processes and times in their names."""
    found = (path.relative_to(paths.root) for folder in paths.all() for path in folder.rglob("*") if path.is_file())
    return {str(name) for name in found if "tfevents" not in name.name}


def whole_outcome(paths: RunPaths) -> dict[str, Any]:
    """The content of every file of a whole experiment, pictures and reports too, without times: {path: content}."""
    found = {str(path.relative_to(paths.root)): path for path in paths.root.rglob("*") if path.is_file()}
    del found[f"checkpoints/.{paths.run_name}.lock"]  # the last process's number
    contents = {name: timeless(path) for name, path in found.items() if "tfevents" not in path.name}
    return contents | {f"logs: {tag}": values for tag, values in tensorboard(paths).items()}


# Keys of JSON files that hold times, or the sha256 of a file that does.
TIMES = {*TIMING, "written", "seconds", "seconds_by_group", "created", "trainer_state.json"}


def timeless(path: Path) -> Any:
    """The content of one file, and not when or how fast it was made."""
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = [data] if path.suffix == ".json" else data.splitlines()
        values = [_without_keys(json.loads(line), TIMES) for line in lines]
        if path.name == MANIFEST:
            del values[0]["sha256"]  # its own
        return values
    if path.name == "sha256sums.txt":
        return [line.partition("  ")[2] for line in data.decode().splitlines()]  # some of the files hold times
    if path.name == "README.md":
        return re.sub(rb"training time \| \d+ min", b"", data)
    if path.name == "interpretability_report.html":
        started = rb'<th scope="row">started</th><td>[^<]+</td>'
        costs = rb"took [\d.,]+ s and .*?A group is what --measures chooses"
        return re.sub(costs, b"", re.sub(started, b"", data), flags=re.DOTALL)
    return data


def _without_keys(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without_keys(item, keys) for key, item in value.items() if key not in keys}
    return [_without_keys(item, keys) for item in value] if isinstance(value, list) else value


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Names of what differs between two outcomes."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
