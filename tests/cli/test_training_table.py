"""The table of TrainingArguments: complete, and true. Each flag that works is started with another value than its
default."""

import copy
import json
from dataclasses import fields
from functools import partial

import pytest
import torch
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from gpt2_interp.cli.early import check_command
from gpt2_interp.cli.training_table import TABLE
from gpt2_interp.cli.training_values import OPTIMIZER_PACKAGES, OPTIMIZERS_REFUSED, REPORT_PACKAGES
from gpt2_interp.errors import InputError
from gpt2_interp.snapshots.store import SnapshotStore
from tests.runs import Run, free_port, one_of_two

SHORT = ["--max_steps=2", "--save_steps=1", "--measures=loss", "--logging_steps=1"]
ORDER = [
    "--max_steps=-1", "--num_train_epochs=1", "--per_device_train_batch_size=8", "--gradient_accumulation_steps=1",
    "--dataloader_drop_last", "--train_sampling_strategy=sequential", "--save_strategy=epoch",
    "--logging_strategy=epoch", "--seed=7", "--data_seed=3",
]  # fmt: skip
STEP = [
    "--optim=sgd", "--optim_args=momentum=0.9", "--lr_scheduler_type=cosine_with_min_lr",
    '--lr_scheduler_kwargs={"min_lr": 5e-3}', "--learning_rate=1e-2", "--warmup_steps=1", "--weight_decay=0.1",
    "--max_grad_norm=0.001", "--dataloader_num_workers=1", "--dataloader_persistent_workers",
    "--dataloader_prefetch_factor=3", "--dataloader_multiprocessing_context=fork", "--dataloader_pin_memory=false",
    "--gradient_checkpointing", '--gradient_checkpointing_kwargs={"use_reentrant": false}',
]  # fmt: skip
LOG = [
    "--max_steps=3", "--lr_scheduler_type=reduce_lr_on_plateau", "--full_determinism",
    '--lr_scheduler_kwargs={"patience": 0, "threshold": 0.9, "factor": 0.5}', "--learning_rate=1e-2",
    "--adam_beta1=0.8", "--adam_beta2=0.9", "--adam_epsilon=1e-6", "--metric_for_best_model=eval_perplexity",
    "--greater_is_better=true", "--save_total_limit=1", "--eval_on_start=false", "--use_cache=false",
    "--logging_first_step", "--logging_steps=3", "--include_num_input_tokens_seen=true", "--disable_tqdm=false",
    "--log_level=info", "--torch_empty_cache_steps=1", "--report_to=none", "--per_device_eval_batch_size=3",
]  # fmt: skip
COMPILED = [
    "--torch_compile", "--torch_compile_backend=aot_eager",
    "--activation_checkpointing", '--activation_checkpointing_kwargs={"every_n_layers": 2}',
]  # fmt: skip
IN_TWO = [
    "--ddp_find_unused_parameters=true", "--ddp_bucket_cap_mb=1", "--ddp_broadcast_buffers=false",
    "--ddp_backend=gloo", "--ddp_timeout=600", "--log_level_replica=info",
]  # fmt: skip
ELSEWHERE = ["--run_name=x", "--use_cpu", "--torch_compile_mode=default"]  # by each `Run`; test_speed_flags.py
STARTED = [*SHORT, *ORDER, *STEP, *LOG, *COMPILED, *IN_TWO, *ELSEWHERE]


def test_each_field_of_the_installed_library_has_an_entry():
    assert set(TABLE) == {one.name for one in fields(TrainingArguments) if one.init}


def test_each_flag_that_works_is_started():
    works = {name for name, entry in TABLE.items() if entry.fate == "works"}
    assert {word[2:].partition("=")[0] for word in STARTED} & set(TABLE) == works


@pytest.mark.parametrize("name", [name for name, entry in TABLE.items() if entry.fate == "refused"])
def test_a_refused_flag_is_named_with_its_reason(name):
    with pytest.raises(InputError) as error:
        check_command(["quickstart", f"--{name}=1"])
    assert str(error.value) == f"--{name} is not a flag here: {TABLE[name].why}."


def test_each_optimizer_is_of_torch_or_refused_or_has_a_package():
    ours = {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"}
    for one in OptimizerNames:
        known = [part for part in (*OPTIMIZERS_REFUSED, *OPTIMIZER_PACKAGES) if part in one.value]
        assert bool(known) != (one.value in ours), one


def test_each_tracker_of_the_library_is_known():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(INTEGRATION_TO_CALLBACK) == {*REPORT_PACKAGES, "kubeflow"}


# --- each flag that works, started -------------------------------------------------------------------------------


@pytest.fixture
def ended(toy_base, tmp_path):
    """ended(flags) -> a run that has ended with these flags."""

    def make(flags):
        run = Run(tmp_path, toy_base, flags=[*SHORT, *flags])
        assert run() == 0, run.output
        return run

    return make


def log_of(run):
    return SnapshotStore(run.paths).read_log()


def state_of(run, step):
    return torch.load(run.paths.checkpoints / f"checkpoint-{step}" / "optimizer.pt", weights_only=True)


def values(log, key):
    return {line["step"]: line[key] for line in log if key in line}


@pytest.mark.slow
def test_order_and_length(ended):
    run = ended(ORDER)
    assert {path.name for path in run.paths.checkpoints.glob("checkpoint-*")} == {"checkpoint-2"}  # 20 rows by 8
    assert set(values(log_of(run), "loss")) == {2}
    assert SnapshotStore(run.paths).run_info()["arguments"]["seed"] == 7


@pytest.mark.slow
def test_the_step(ended):
    run = ended(STEP)
    state = state_of(run, 2)
    assert "momentum_buffer" in state["state"][0] and state["param_groups"][0]["weight_decay"] == 0.1
    rates = values(log_of(run), "learning_rate")
    assert rates[1] == 0 and 5e-3 <= rates[2] <= 1e-2


@pytest.mark.slow
def test_log_and_choice(ended):
    run = ended(LOG)
    log = log_of(run)
    rates, losses = values(log, "learning_rate"), values(log, "eval_loss")
    assert rates[1] == 1e-2 and rates[3] < 1e-2  # no evaluation was better by nine tenths
    assert set(losses) == {1, 2, 3}  # none of the base
    best = json.loads((run.paths.model_outputs / "metrics.json").read_text())["best_step"]
    assert losses[best] == max(losses.values())
    assert {path.name for path in run.paths.checkpoints.glob("checkpoint-*")} <= {f"checkpoint-{best}", "checkpoint-3"}
    assert values(log, "num_input_tokens_seen")[3] > 0
    group = state_of(run, 3)["param_groups"][0]
    assert tuple(group["betas"]) == (0.8, 0.9) and group["eps"] == 1e-6
    config = json.loads((run.paths.model_outputs / "best_model" / "config.json").read_text())
    assert config["use_cache"] is False
    assert "Running training" in run.output and "3/3" in run.output  # --log_level, --disable_tqdm


@pytest.mark.slow
def test_compiled_and_checkpointed(ended):
    assert set(values(log_of(ended(COMPILED)), "loss")) == {1, 2}


@pytest.mark.slow
def test_two_processes(toy_base, tmp_path):
    run = Run(tmp_path, toy_base, flags=[*SHORT, *IN_TWO])
    port, both = free_port(), (run, copy.copy(run))
    processes = [one.start(fault=partial(one_of_two, rank, port)) for rank, one in enumerate(both)]
    assert [one.finish(process) for one, process in zip(both, processes, strict=True)] == [0, 0], run.output
    assert "Running training" in both[1].output and "Running training" not in run.output  # --log_level_replica
