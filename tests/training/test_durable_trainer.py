"""A run that is killed, interrupted or out of disk, and resumed, ends bit for bit like one that was never stopped."""

import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2LMHeadModel, TrainerCallback, TrainingArguments

from gpt2_interp.data.examples import ExampleBuilder
from gpt2_interp.errors import DiskFullError, InputError, Interrupted
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.recording.recorder import SnapshotRecorder
from gpt2_interp.synthetic.rows import news_rows
from gpt2_interp.training.checkpoints import MANIFEST, all_checkpoints, newest_intact, remove, step_of, verify
from gpt2_interp.training.durable_trainer import DurableTrainer
from gpt2_interp.training.pace import TIMING
from gpt2_interp.training.trainer import SupervisedTrainer
from tests.runs import FORKS, STEPS, Run, differences, free_port, one_of_two, outcome
from tests.training.test_checkpoints import DAMAGES, flip

TUNINGS = {"full": [], "lora": ["--tuning=lora"]}


@pytest.fixture(scope="module")
def references(toy_base, tmp_path_factory):
    """Outcome of the uninterrupted run, by tuning."""
    made = {}

    def get(tuning):
        if tuning not in made:
            run = Run(tmp_path_factory.mktemp(tuning), toy_base, flags=TUNINGS[tuning])
            assert run() == 0, run.output
            made[tuning] = run, outcome(run.paths)
        return made[tuning]

    return get


def assert_same(run, expected):
    assert differences(outcome(run.paths), expected) == []
    assert not list(run.paths.root.rglob(".*.tmp"))


# --- faults, set in the child before the script begins ----------------------------------------------------------


def at_step(step, action):
    """action() in the second micro-batch of an optimizer step."""
    original, count = DurableTrainer.training_step, iter(range(10**6))

    def training_step(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        if self.state.global_step + 1 == step and next(count) == 1:
            action()
        return loss

    DurableTrainer.training_step = training_step


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(module, name, number):
    """SIGKILL before the number-th call of a module's function."""
    module = importlib.import_module(module)
    original, count = getattr(module, name), iter(range(1, 10**6))

    def function(*args, **kwargs):
        if next(count) == number:
            die()
        return original(*args, **kwargs)

    setattr(module, name, function)


def die_after(seconds):
    """SIGKILL so long after training began."""
    original = DurableTrainer.train

    def train(self, *args, **kwargs):
        threading.Timer(seconds, die).start()
        return original(self, *args, **kwargs)

    DurableTrainer.train = train


def signal_at_step(number, step):
    at_step(step, partial(os.kill, os.getpid(), number))


def two_signals_at_step(step):
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.1)

    at_step(step, twice)


# --- killed ----------------------------------------------------------------------------------------------------


def random_moment(rng):
    """In training at a random time; or before the n-th write of a checkpoint's parts, flush, rename or removal."""
    kind = rng.choice(["time", "time", "part", "seal", "seal", "flush", "rename", "remove"])
    if kind == "time":
        return partial(die_after, rng.uniform(0.1, 0.6))
    module, name, most = {
        "part": ("torch", "save", 8),
        "seal": ("gpt2_interp.training.checkpoints", "flush_to_disk", 40),
        "flush": ("os", "fsync", 60),
        "rename": ("os", "replace", 25),
        "remove": ("shutil", "rmtree", 1),
    }[kind]
    return partial(die_at_call, module, name, rng.randint(1, most))


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNINGS)
def test_killed_at_ten_random_moments_and_resumed(tuning, references, toy_base, tmp_path):
    """Ten kills, one after the other; where a run ends before its kill it is compared and begun again. More than ten
    where a busy machine lets too few of them leave a checkpoint without its seal, or go on in the middle."""
    _, expected = references(tuning)
    run, rng = Run(tmp_path, toy_base, flags=TUNINGS[tuning]), random.Random(tuning)
    kills = inside = resumed = 0
    flag = "--overwrite"
    while kills < 10 or inside < 2 or resumed < 2:
        assert kills < 50
        status = run(flag, fault=random_moment(rng))
        assert status in (0, -signal.SIGKILL), run.output
        kills += status != 0
        unsealed = [path for path in all_checkpoints(run.paths.checkpoints) if not (path / MANIFEST).exists()]
        inside += status != 0 and bool(unsealed)
        resumed += "resuming from" in run.output
        if status == 0:
            assert_same(run, expected)
        flag = "--resume" if status and any(path.exists() for path in run.paths.all()) else "--overwrite"
    assert run(flag) == 0, run.output
    assert_same(run, expected)


def test_killed_while_it_is_scored(references, toy_base, tmp_path):
    """After training, before metrics.json: nothing is trained, and no scalar stands twice in TensorBoard."""
    run = Run(tmp_path, toy_base)
    assert run(fault=partial(die_at_call, "gpt2_interp.training.model_card", "write_model_cards", 1)) == -signal.SIGKILL
    (run.paths.model_outputs / "best_model" / "model.safetensors").write_bytes(b"half")
    cards = partial(die_at_call, "gpt2_interp.training.model_card", "write_model_cards", 1)
    assert run("--resume", fault=cards) == -signal.SIGKILL, run.output
    assert run("--resume") == 0 and "'loss'" not in run.output
    assert_same(run, references("full")[1])


def test_a_finished_run_is_left_as_it_is(references):
    run, _ = references("full")
    before = {path: path.stat().st_mtime_ns for folder in run.paths.all() for path in folder.rglob("*")}
    assert run("--resume") == 0
    assert "is finished" in run.output and "validation" not in run.output
    assert before == {path: path.stat().st_mtime_ns for folder in run.paths.all() for path in folder.rglob("*")}
    assert run("--resume", "--seed=7") == 2 and "--seed was 42 and is now 7" in run.output


def test_killed_while_an_earlier_run_is_deleted(references, toy_base, tmp_path):
    """What is left of the earlier run is not taken for one that could be resumed, or that is finished."""
    run = Run(tmp_path / "copy", toy_base)
    shutil.copytree(references("full")[0].paths.root, run.paths.root)
    assert run("--overwrite", fault=partial(die_at_call, "shutil", "rmtree", 2)) == -signal.SIGKILL, run.output
    assert run.paths.metrics.exists() and not run.paths.checkpoints.exists()
    assert run("--resume") == 0 and "starting from the beginning" in run.output
    assert_same(run, references("full")[1])


def test_a_run_on_another_disk_is_overwritten_and_resumed_like_any(references, toy_base, tmp_path):
    """Each of its folders is a link, with another run in it; killed after that is deleted."""
    run, disk = Run(tmp_path / "root", toy_base), tmp_path / "disk"
    for folder in run.paths.all():
        place = disk / folder.parent.name
        place.mkdir(parents=True)
        folder.parent.mkdir(parents=True)
        folder.symlink_to(place)
        (place / "old.txt").touch()
    shutil.copytree(references("lora")[0].paths.checkpoints, run.paths.checkpoints, dirs_exist_ok=True)
    killed = run("--overwrite", fault=partial(die_at_call, "gpt2_interp.training.checkpoints", "flush_to_disk", 1))
    assert killed == -signal.SIGKILL, run.output
    assert run("--resume") == 0 and "starting from the beginning" in run.output, run.output
    assert all(folder.is_symlink() for folder in run.paths.all()) and not list(disk.rglob("old.txt"))
    assert_same(run, references("full")[1])


def test_a_checkpoint_that_is_a_link_is_only_unlinked(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / MANIFEST).touch()
    (tmp_path / "checkpoint-1").symlink_to(tmp_path / "kept")
    remove(tmp_path / "checkpoint-1")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", MANIFEST]


# --- damaged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_file_of_the_newest_checkpoint_damaged_in_turn(damage, references, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(references("full")[0].paths.checkpoints, folder)
    newest, older = folder / f"checkpoint-{STEPS}", folder / "checkpoint-6"
    names = sorted(path.name for path in newest.iterdir())
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", MANIFEST,
            "running_loss.json", "training_args.bin", "config.json", "tokenizer.json"} <= set(names)  # fmt: skip
    for name in names:
        original = (newest / name).read_bytes()
        damage(newest / name)
        said = []
        assert newest_intact(folder, said.append) == older
        assert len(said) == 1 and str(newest) in said[0] and name in said[0]
        (newest / name).write_bytes(original)
        assert newest_intact(folder, said.append) == newest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", MANIFEST])
def test_a_run_goes_on_from_the_older_checkpoint(name, references, tmp_path, toy_base):
    reference, expected = references("full")
    run = Run(tmp_path / "copy", toy_base)
    shutil.copytree(reference.paths.root, run.paths.root)
    flip(run.paths.checkpoints / f"checkpoint-{STEPS}" / name)
    (run.paths.model_outputs / "metrics.json").unlink()
    assert run("--resume") == 0
    assert f"checkpoint-{STEPS} is skipped: {name}" in run.output and "resuming from" in run.output
    assert_same(run, expected)


# --- stopped ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "flags", "steps"),
    [
        (signal.SIGINT, [], [1, 5, 7]),  # 5: the end of an epoch; all between logs and checkpoints
        (signal.SIGTERM, ["--tuning=lora", "--train_sampling_strategy=random"], [3, 4, STEPS]),  # 3, 8: just saved
    ],
)
def test_a_signal_finishes_the_step_and_nothing_is_lost(number, flags, steps, toy_base, tmp_path):
    whole = Run(tmp_path / "whole", toy_base, flags=flags)
    assert whole() == 0
    run = Run(tmp_path / "stopped", toy_base, flags=flags)
    for i, step in enumerate(steps):
        assert run(*["--resume"] * (i > 0), fault=partial(signal_at_step, number, step)) == 128 + number, run.output
        newest = all_checkpoints(run.paths.checkpoints)[-1]
        assert step_of(newest) == step and verify(newest) is None
        assert json.loads((newest / MANIFEST).read_text())["interruption"] == (step not in (3, STEPS))
        assert "again to stop at once" in run.output and "Traceback" not in run.output
        last = run.output.splitlines()[-1]
        assert f"{number.name} after step {step} of {STEPS}" in last and "--resume" in last
    assert run("--resume") == 0, run.output
    assert_same(run, outcome(whole.paths))


def test_an_epochs_checkpoint_is_not_lost_to_a_signal_at_its_last_step(toy_base, tmp_path):
    flags = ["--save_strategy=epoch", "--logging_strategy=epoch"]
    whole, run = (Run(tmp_path / name, toy_base, flags=flags) for name in ("whole", "stopped"))
    assert whole() == 0, whole.output
    assert [step_of(path) for path in all_checkpoints(whole.paths.checkpoints)] == [5, 8]
    assert run(fault=partial(signal_at_step, signal.SIGINT, 5)) == 130
    assert run("--resume", fault=partial(signal_at_step, signal.SIGINT, 7)) == 130
    assert run("--resume") == 0
    assert_same(run, outcome(whole.paths))


def test_a_second_signal_stops_at_once(toy_base, tmp_path):
    run = Run(tmp_path, toy_base)
    assert run(fault=partial(two_signals_at_step, 2)) == 130
    assert not all_checkpoints(run.paths.checkpoints)


# --- early stopping and rotation ---------------------------------------------------------------------------------


def worse_and_worse(then=None):
    """The evaluation loss rises with every step; then another fault."""
    original = DurableTrainer.log

    def log(self, logs, *args, **kwargs):
        if "eval_loss" in logs:
            logs["eval_loss"] = 1.0 + self.state.global_step
        original(self, logs, *args, **kwargs)

    DurableTrainer.log = log
    if then is not None:
        then()


def die_after_seal(number):
    die_at_call("gpt2_interp.training.checkpoints", "rotate", number)


@pytest.mark.slow
def test_early_stopping_counts_on_and_stays_stopped(toy_base, tmp_path):
    flags = ["--early_stopping_patience=2", "--max_steps=20"]  # evaluated at 3 (best), 6, 9: stops there
    whole = Run(tmp_path / "whole", toy_base, flags=flags)
    assert whole(fault=worse_and_worse) == 0, whole.output
    assert "(step 3 of 9)" in whole.output
    run = Run(tmp_path / "killed", toy_base, flags=flags)
    for i, kill in enumerate((partial(at_step, 7, die), partial(die_after_seal, 1))):  # counted one; decided to stop
        assert run(*["--resume"] * i, fault=partial(worse_and_worse, kill)) == -signal.SIGKILL, run.output
    assert step_of(all_checkpoints(run.paths.checkpoints)[-1]) == 9
    assert run("--resume", fault=worse_and_worse) == 0
    assert_same(run, outcome(whole.paths))
    # the best checkpoint damaged: the next best becomes best_model/
    (run.paths.model_outputs / "metrics.json").unlink()
    flip(run.paths.checkpoints / "checkpoint-3" / "model.safetensors")
    assert run("--resume") == 0
    assert "checkpoint-3, step 3 with eval_loss 4, can't be best_model/: model.safetensors is damaged" in run.output
    assert "(step 6 of 9)" in run.output
    best = run.paths.model_outputs / "best_model" / "model.safetensors"
    assert best.read_bytes() == (run.paths.checkpoints / "checkpoint-6" / "model.safetensors").read_bytes()


def test_save_total_limit_keeps_the_newest_and_the_best(toy_base, tmp_path):
    run = Run(tmp_path, toy_base)
    assert run("--save_total_limit=1", fault=partial(worse_and_worse, partial(at_step, 7, die))) == -signal.SIGKILL
    assert [step_of(path) for path in all_checkpoints(run.paths.checkpoints)] == [3, 6]
    assert run("--resume", "--save_total_limit=2", fault=worse_and_worse) == 0  # may change
    assert [step_of(path) for path in all_checkpoints(run.paths.checkpoints)] == [3, 6, STEPS]
    assert f"(step 3 of {STEPS})" in run.output


# --- refused -----------------------------------------------------------------------------------------------------


def test_other_settings_are_refused_before_anything_is_touched(toy_base, tmp_path):
    run = Run(tmp_path, toy_base)
    assert run(fault=partial(at_step, 5, die)) == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for folder in run.paths.all() for path in folder.rglob("*")}
    assert run("--resume", "--learning_rate=1e-4", "--per_device_train_batch_size=4") == 2
    assert run.output.startswith("error: ") and run.output.count("\n") == 1
    assert "--learning_rate was 0.01 and is now 0.0001" in run.output
    assert "--per_device_train_batch_size was 2 and is now 4" in run.output
    assert before == {path: path.stat().st_mtime_ns for folder in run.paths.all() for path in folder.rglob("*")}


def wait_for(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_second_process_on_the_same_run_is_refused(toy_base, tmp_path):
    first = Run(tmp_path, toy_base, name="shared")
    process = first.start(fault=partial(at_step, 2, partial(time.sleep, 60)))
    snapshot = first.paths.metrics / "step_00000000.json"
    wait_for(snapshot.exists)
    try:
        second = SimpleNamespace(run=Run(tmp_path, toy_base, name="shared"))
        for flag in ("--resume", "--overwrite"):
            assert second.run(flag) == 2
            assert second.run.output.count("\n") == 1
            assert "'shared' is in use by process" in second.run.output and str(process.pid) in second.run.output
        assert snapshot.exists()
        assert Run(tmp_path, toy_base, name="other")("--max_steps=1") == 0  # runs don't block each other
    finally:
        process.kill()
    first.finish(process)
    assert first("--resume") == 0  # the kernel has freed the lock


# --- numbers that are none -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(toy_base):
    return load_tokenizer(str(toy_base))


@pytest.fixture(scope="module")
def examples(tokenizer):
    rows = [{"id": f"row{i}", "source": r["article"], "target": r["highlights"]} for i, r in enumerate(news_rows(16))]
    return ExampleBuilder(tokenizer, "summarization", 40, 20, 384).build(rows)[0]


def make_trainer(toy_base, tokenizer, examples, folder, *callbacks, model=None, **settings):
    settings = {
        "max_steps": 6, "save_steps": 2, "logging_steps": 1, "gradient_accumulation_steps": 2,
        "train_sampling_strategy": "sequential",
    } | settings  # fmt: skip
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, learning_rate=1e-3, disable_tqdm=True, use_cpu=True,
        logging_nan_inf_filter=False, report_to="none", **settings,
    )  # fmt: skip
    return SupervisedTrainer(
        model=model or GPT2LMHeadModel.from_pretrained(toy_base), args=args, train_examples=examples,
        eval_examples=examples[:2], processing_class=tokenizer, callbacks=list(callbacks),
    )  # fmt: skip


class Break(TrainerCallback):
    """Calls action(model) at an event of a step."""

    def __init__(self, event, step, action):
        def call(args, state, control, model=None, **kwargs):
            if state.global_step == step:
                action(model)

        setattr(self, event, call)


def poison(model):
    next(model.parameters()).data[0] = float("nan")


def test_a_non_finite_loss_stops_before_the_weights_change(toy_base, tokenizer, examples, tmp_path):
    trainer = make_trainer(toy_base, tokenizer, examples, tmp_path)
    compute_loss = trainer.compute_loss

    def one_bad_batch(model, inputs, **kwargs):  # micro-batches of 4 rows: the second of optimizer step 4 is bad
        loss = compute_loss(model, inputs, **kwargs)
        return loss * (float("inf") if trainer.state.global_step == 3 and len(trainer._batches) == 1 else 1)

    trainer.compute_loss = one_bad_batch
    with pytest.raises(InputError) as error:
        trainer.train()
    message = str(error.value)
    assert "the loss of optimizer step 4 is not a finite number, on examples row12, row13, row14, row15:" in message
    assert f"the last good checkpoint is {tmp_path}/checkpoint-2" in message and "--learning_rate" in message
    assert "\n" not in message
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [2]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_many_examples_are_counted(toy_base, tokenizer, examples, tmp_path):
    trainer = make_trainer(toy_base, tokenizer, examples, tmp_path, Break("on_step_begin", 0, poison))
    with pytest.raises(InputError, match="step 1 .* row0, row1, row2, row3 and 4 more.*there is no checkpoint yet"):
        trainer.train()


def test_a_non_finite_gradient_stops_too(toy_base, tokenizer, examples, tmp_path):
    model = GPT2LMHeadModel.from_pretrained(toy_base)
    weight = model.transformer.h[0].mlp.c_fc.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weight.detach().clone()
    trainer = make_trainer(toy_base, tokenizer, examples, tmp_path, model=model)
    with pytest.raises(InputError, match="the gradient of optimizer step 1 .* row0, row1, row2, row3 and 4 more"):
        trainer.train()
    assert torch.equal(weight, before)


def test_non_finite_weights_are_not_saved(toy_base, tokenizer, examples, tmp_path):
    trainer = make_trainer(toy_base, tokenizer, examples, tmp_path, Break("on_step_end", 4, poison))
    with pytest.raises(InputError, match="step 4 made weights that are not finite.*checkpoint-2"):
        trainer.train()
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [2]


def test_an_overflow_of_scaled_half_precision_is_normal(toy_base, tokenizer, examples, tmp_path):
    trainer = make_trainer(toy_base, tokenizer, examples, tmp_path)
    batches = [(["a"], torch.tensor(1.0))]
    for scale, is_refused in ((65536.0, False), (1.0, True)):
        trainer.accelerator.scaler = SimpleNamespace(get_scale=lambda scale=scale: scale)
        trainer._batches = list(batches)
        if is_refused:
            with pytest.raises(InputError, match="gradient"):
                trainer._refuse_non_finite(torch.tensor(float("inf")))
        else:
            trainer._refuse_non_finite(torch.tensor(float("inf")))


# --- two processes ---------------------------------------------------------------------------------------------------


def train_as_one_of_two(rank, port, toy_base, folder, fault, answers):
    """What torchrun starts: one process of data-parallel training. Answers with how it ended and its weights' sum."""
    one_of_two(rank, port)
    tokenizer = load_tokenizer(str(toy_base))
    rows = [{"id": f"row{i}", "source": r["article"], "target": r["highlights"]} for i, r in enumerate(news_rows(16))]
    trainer = make_trainer(
        toy_base, tokenizer, ExampleBuilder(tokenizer, "summarization", 40, 20, 384).build(rows)[0], folder,
        save_steps=3, logging_steps=2, save_total_limit=1, train_sampling_strategy="random",
    )  # fmt: skip
    if fault is not None and rank == 1:
        fault(trainer)
    checkpoint = trainer.resume_point()
    try:
        trainer.train(str(checkpoint) if checkpoint else None)
        how = "done"
    except (Interrupted, InputError) as error:
        how = str(error)
    weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in trainer.model.parameters())).hexdigest()
    answers.send((how, weights, [line["loss"] for line in trainer.state.log_history if "loss" in line]))


def stop_at_step_4(trainer):
    signal_at_step(signal.SIGTERM, 4)


def infinite_at_step_5(trainer):
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: (
        compute_loss(*args, **kwargs) * (float("inf") if trainer.state.global_step == 4 else 1)
    )


def two_processes(toy_base, folder, fault=None):
    """What both answered."""
    port = free_port()
    pipes = [FORKS.Pipe() for _ in range(2)]
    processes = [
        FORKS.Process(target=train_as_one_of_two, args=(rank, port, toy_base, folder, fault, pipes[rank][1]))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        for theirs in pipes:
            assert theirs[0].poll(60), "the processes wait for each other"
        return [ours.recv() for ours, _ in pipes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(toy_base, tmp_path):
    """A signal or a non-finite loss in one of them stops both at the same step; one writes, and nothing is lost."""
    whole = two_processes(toy_base, tmp_path / "whole")
    assert whole[0] == whole[1] and whole[0][0] == "done"
    stopped = two_processes(toy_base, tmp_path / "stopped", stop_at_step_4)
    assert stopped[0] == stopped[1] and "SIGTERM after step 4" in stopped[0][0]
    newest = newest_intact(tmp_path / "stopped")
    names = {path.name for path in newest.iterdir()}
    assert newest.name == "checkpoint-4"
    assert {"rng_state_0.pth", "rng_state_1.pth", "running_loss_0.json", "running_loss_1.json"} <= names
    assert two_processes(toy_base, tmp_path / "stopped") == whole
    assert [path.name for path in all_checkpoints(tmp_path / "stopped")] == ["checkpoint-6"]
    broken = two_processes(toy_base, tmp_path / "broken", infinite_at_step_5)
    assert broken[0][:2] == broken[1][:2]
    assert "the loss of optimizer step 5 is not a finite number, on examples row" in broken[0][0]
    assert "checkpoint-3" in broken[0][0]


# --- a full disk -----------------------------------------------------------------------------------------------------


def limit_file_size(limit):
    """Writes beyond so many bytes fail with EFBIG from now on (Python ignores the signal that comes with it)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def limit_in_snapshot(step):
    original = SnapshotRecorder.snapshot

    def snapshot(self, model, at, *more, **settings):
        if at == step:
            limit_file_size(1000)
        original(self, model, at, *more, **settings)

    SnapshotRecorder.snapshot = snapshot


FULL = {
    "log": partial(at_step, 5, partial(limit_file_size, 1)),
    "weights": partial(at_step, 5, partial(limit_file_size, 100_000)),
    "optimizer": partial(at_step, 5, partial(limit_file_size, 300_000)),
    "snapshot": partial(limit_in_snapshot, 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_one_sentence_and_leaves_the_earlier_checkpoints(what, references, toy_base, tmp_path):
    run = Run(tmp_path, toy_base)
    assert run(fault=FULL[what]) == 2, run.output
    assert run.output.splitlines()[-1].startswith("error: disk is full while") and "Traceback" not in run.output
    assert "--resume" in run.output
    assert [step_of(path) for path in all_checkpoints(run.paths.checkpoints)] == [3]
    assert verify(run.paths.checkpoints / "checkpoint-3") is None
    assert run("--resume") == 0, run.output
    assert_same(run, references("full")[1])


@pytest.mark.slow
def test_a_really_full_disk(references, toy_base, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine lets no test mount a small disk")
    try:
        run = Run(disk, toy_base)
        assert run() == 2
        assert run.output.splitlines()[-1].startswith("error: disk is full while"), run.output
        assert "Traceback" not in run.output
        intact = [path for path in all_checkpoints(run.paths.checkpoints) if verify(path) is None]
        assert intact and intact == all_checkpoints(run.paths.checkpoints)
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        assert run("--resume") == 0, run.output
        assert_same(run, references("full")[1])
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_checkpoint_that_can_not_fit_is_not_begun(toy_base, tokenizer, examples, tmp_path, monkeypatch):
    full = partial(monkeypatch.setattr, shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    trainer = make_trainer(toy_base, tokenizer, examples, tmp_path, Break("on_step_end", 4, lambda model: full()))
    with pytest.raises(DiskFullError, match=r"disk is full while saving checkpoint-4 \(0.\d MB needed, 0.0 MB free\)"):
        trainer.train()
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [2]
    assert verify(tmp_path / "checkpoint-2") is None


# --- the Trainer's own loss ------------------------------------------------------------------------------------------


def test_the_mean_loss_after_a_resume_is_the_whole_runs(toy_base, tokenizer, examples, tmp_path):
    settings = {"logging_steps": 5, "max_steps": 7, "save_steps": 3}
    whole = make_trainer(toy_base, tokenizer, examples, tmp_path / "whole", **settings)
    whole.train()
    resumed = make_trainer(toy_base, tokenizer, examples, tmp_path / "whole", **settings)
    resumed.train(str(tmp_path / "whole" / "checkpoint-3"))
    lines = [[line for line in t.state.log_history if "loss" in line] for t in (whole, resumed)]
    logs = [[{key: line[key] for key in line if key not in TIMING} for line in log] for log in lines]
    assert logs[0] == logs[1] and [line["step"] for line in logs[0]] == [5]
    assert resumed._total_loss_scalar == whole._total_loss_scalar
    assert not any("train_runtime" in line for line in resumed.state.log_history)
