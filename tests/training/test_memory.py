"""Free memory, the estimate of training's peak, and the batch that follows from them."""

import subprocess
import sys
import tempfile
from types import SimpleNamespace

import psutil
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from gpt2_interp.data.examples import Example
from gpt2_interp.errors import InputError
from gpt2_interp.model.fast_layers import use_fast_layers
from gpt2_interp.training import memory
from gpt2_interp.training.memory import (
    cgroup_limit,
    choose_batch,
    memory_bytes,
    peak_bytes,
    settle_batch,
    training_bytes,
)
from gpt2_interp.training.trainer import SupervisedTrainer
from tests.runs import FORKS

GB = 10**9


def write(folder, **values):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in values.items():
        (folder / name.replace("__", ".")).write_text(str(text))


def test_cgroup_v2_limits_of_every_level_bind(tmp_path):
    root, own = tmp_path / "fs", tmp_path / "own"
    own.write_text("0::/slice/job\n")
    write(root / "slice" / "job", memory__max="max")
    assert cgroup_limit(root, own) == float("inf")
    write(root / "slice", memory__max=100)
    assert cgroup_limit(root, own) == 100
    write(root / "slice" / "job", memory__max=50)
    assert cgroup_limit(root, own) == 50


def test_cgroup_v1_and_none(tmp_path):
    root, own = tmp_path / "fs", tmp_path / "own"
    assert cgroup_limit(root, own) == float("inf")
    own.write_text("5:cpu:/x\n4:memory:/box\n0::/\n")
    write(root / "memory" / "box", memory__limit_in_bytes=100)
    assert cgroup_limit(root, own) == 100


def test_the_memory_of_a_device_does_not_depend_on_what_runs(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    cpu = torch.device("cpu")
    has = memory_bytes(cpu)
    assert has > 0.5 * GB and has <= psutil.virtual_memory().total
    held = bytearray(3 * 10**8)
    held[::4096] = b"1" * len(held[::4096])
    assert memory_bytes(cpu) == has and 0.05 * GB < peak_bytes(cpu) < 50 * GB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # they share the machine
    assert memory_bytes(cpu) == has // 4


def test_the_peak_is_not_the_one_of_the_process_that_started_this_one():
    """Linux folds a parent's peak into ru_maxrss of a child started by vfork."""
    large = "held = bytearray(12 * 10**8); held[::4096] = b'1' * len(held[::4096])"
    own = "import torch; from gpt2_interp.training.memory import peak_bytes; print(peak_bytes(torch.device('cpu')))"
    started = f"{large}; import subprocess, sys; subprocess.run([sys.executable, '-c', {own!r}], check=True)"
    finished = subprocess.run([sys.executable, "-c", started], capture_output=True, text=True, check=True)
    assert 0.05 * GB < int(finished.stdout) < 1.1 * GB


@pytest.mark.parametrize("share", [1, 12, 16, 7])
@pytest.mark.parametrize("most", [0, 3, 8, 100])
@pytest.mark.parametrize("available", [5, 40, 1000])
def test_the_chosen_batch_is_the_best_of_all(share, most, available):
    def estimate(rows):
        return 4 + 3 * rows

    fitting = [
        rows
        for rows in range(1, share + 1)
        if share % rows == 0 and (rows == 1 or rows <= most) and estimate(rows) <= available * (1 if rows == 1 else 0.8)
    ]
    chosen = choose_batch(share, most, estimate, available)
    assert chosen == ((max(fitting), share // max(fitting)) if fitting else None)


def arguments(rows=None, accumulated=None, effective=None, world_size=1, **more):
    training = SimpleNamespace(
        per_device_train_batch_size=rows, gradient_accumulation_steps=accumulated, world_size=world_size, n_gpu=0,
        device=torch.device("cpu"), bf16=False, fp16=False, activation_checkpointing=False, **more,
    )  # fmt: skip
    return SimpleNamespace(effective_batch_size=effective), training


@pytest.fixture(scope="module")
def model():
    return GPT2LMHeadModel(GPT2Config(n_layer=6, n_embd=64, n_head=2, vocab_size=500, attn_pdrop=0, bos_token_id=None,
                                      eos_token_id=None))  # fmt: skip


EXAMPLES = [SimpleNamespace(input_ids=range(n), target_ids=range(20)) for n in (30, 200, 90)]


@pytest.mark.parametrize(
    ("free", "effective", "world_size", "rows", "accumulated"),
    [(50 * GB, None, 1, 8, 2), (0.05 * GB, None, 1, 2, 8), (50 * GB, 6, 1, 6, 1), (50 * GB, 12, 4, 3, 1)],
)
def test_batch_and_accumulation_fit_and_are_said(monkeypatch, model, free, effective, world_size, rows, accumulated):
    """200 tokens a row: ten of them are as many as help, and eight divide 16."""
    monkeypatch.setattr(memory, "memory_bytes", lambda device: free)
    experiment, training = arguments(effective=effective, world_size=world_size)
    said = settle_batch(experiment, training, model, EXAMPLES)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (rows, accumulated)
    assert experiment.effective_batch_size == (effective or 16) == rows * accumulated * world_size
    processes = f" x {world_size} processes" if world_size > 1 else ""
    assert said.startswith(
        f"batch: {rows} examples x {accumulated} accumulated{processes} = {effective or 16} a step ("
    )


def test_what_was_given_stays(monkeypatch, model):
    monkeypatch.setattr(memory, "memory_bytes", lambda device: 50 * GB)
    experiment, training = arguments(rows=3, accumulated=2)
    assert "batch: 3 examples x 2 accumulated = 6 a step" in settle_batch(experiment, training, model, EXAMPLES)
    assert experiment.effective_batch_size == 6


def test_too_little_memory_and_too_many_processes_are_said(monkeypatch, model):
    monkeypatch.setattr(memory, "memory_bytes", lambda device: 10**6)
    with pytest.raises(InputError, match=r"200 tokens.*0\.0 GB.*--max_source_length.*--tuning lora.*batch_size 1"):
        settle_batch(*arguments(), model, EXAMPLES)
    with pytest.raises(InputError, match="--effective_batch_size 16 is not a multiple of the 3 processes"):
        settle_batch(*arguments(world_size=3), model, EXAMPLES)


def test_the_estimate_grows_with_what_takes_memory(model):
    _, training = arguments()

    def estimate(rows=4, tokens=200, targets=20, **changed):
        return training_bytes(model, SimpleNamespace(**{**vars(training), **changed}), rows, tokens, targets)

    assert estimate(rows=8) > estimate() > estimate(rows=1)
    assert estimate(tokens=300) > estimate() and estimate(targets=200) > estimate()
    assert estimate(activation_checkpointing=True) < estimate()
    assert estimate(world_size=2) > estimate()
    assert estimate(rows=16, bf16=True) < estimate(rows=16)


def measure_training(settings, answer):
    """In a process of its own: sends (measured, estimated) bytes of two steps of a GPT-2 of 6 layers and 19 M
    parameters."""
    cpu = torch.device("cpu")
    before = peak_bytes(cpu)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=6, n_embd=384, n_head=6, vocab_size=20000, attn_pdrop=0.0, bos_token_id=None,
                   eos_token_id=None)
    )  # fmt: skip
    use_fast_layers(model)
    row = Example("a", "a", tuple(range(200)), (1, 2), tuple(range(54)))
    tokenizer = SimpleNamespace(pad_token_id=0, padding_side="right", save_pretrained=lambda *_: None)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=2, per_device_train_batch_size=4, gradient_accumulation_steps=2, save_strategy="no",
            use_cpu=True, report_to="none", disable_tqdm=True, **settings,
        )  # fmt: skip
        estimate = training_bytes(model, arguments, 4, 256, 54)
        SupervisedTrainer(
            model=model, args=arguments, train_examples=[row] * 16, eval_examples=[row], processing_class=tokenizer
        ).train()
    answer.send((peak_bytes(cpu) - before, estimate))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"activation_checkpointing": True}])
def test_the_estimate_is_near_the_measured_peak(settings):
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=measure_training, args=(settings, theirs))
    process.start()
    theirs.close()  # so that its end is noticed
    measured, estimate = ours.recv()
    process.join()
    assert estimate == pytest.approx(measured, rel=0.35)
