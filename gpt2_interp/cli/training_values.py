"""Values of Hugging Face's flags that can't work here, refused by name before anything is read."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Callable, Collection
from typing import Any

from gpt2_interp.cli.training_table import TABLE
from gpt2_interp.errors import InputError

LARGEST_SEED = 2**32 - 1  # numpy's

OBJECTS = ("lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
METRICS = ("eval_loss", "eval_perplexity", "loss", "perplexity")

# Optimizers that can't work here, by a part of their name, and why.
_LINEAR = "it works on the nn.Linear of a model, and GPT-2's matrices are Conv1D"
OPTIMIZERS_REFUSED = {
    "galore": _LINEAR,
    "apollo": _LINEAR,
    "lomo": "it changes weights during the backward pass, before a step can be measured, clipped or refused",
    "schedule_free": "the weights that it evaluates are others than those it trains, and a snapshot has only one kind",
}
# The package of an optimizer, and what pip calls it, by a part of the optimizer's name; the first that fits.
OPTIMIZER_PACKAGES = {
    "grokadamw": ("grokadamw", "grokadamw"),
    "stable_adamw": ("optimi", "torch-optimi"),
    "torch_xla": ("torch_xla", "torch_xla"),
    "npu": ("torch_npu", "torch_npu"),
    "anyprecision": ("torchdistx", "git+https://github.com/pytorch/torchdistx"),
    "torch_4bit": ("torchao", "torchao"),
    "torch_8bit": ("torchao", "torchao"),
    "bit": ("bitsandbytes", "bitsandbytes"),
    "bnb": ("bitsandbytes", "bitsandbytes"),
    "ademamix": ("bitsandbytes", "bitsandbytes"),
}
REPORT_PACKAGES = {  # the package that each value of --report_to needs
    **{name: name for name in ("clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "mlflow", "neptune")},
    **{name: name for name in ("swanlab", "tensorboard", "trackio", "wandb")},
    "azure_ml": "azureml",
    "flyte": "flytekit",
}
KUBEFLOW = "KUBEFLOW_TRAINER_SERVER_URL"  # the variable that a TrainJob of Kubeflow sets; there is no package

# Flags that do nothing without another one: {flag: (whether the settings have the other, what to say)}
NEEDS_OTHERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context"),
        (lambda its: its.dataloader_num_workers > 0, "--dataloader_num_workers of at least 1"),
    ),
    **dict.fromkeys(
        ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        (lambda its: "trackio" in _listed(its.report_to), "--report_to trackio"),
    ),
    **dict.fromkeys(
        ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"),
        (lambda its: its.activation_checkpointing or its.gradient_checkpointing, "--activation_checkpointing"),
    ),
    "optim_args": (
        lambda its: its.optim not in ("adamw_torch", "adamw_torch_fused", "adafactor"),
        "an --optim that has some, such as sgd",
    ),
    "lr_scheduler_kwargs": (
        lambda its: its.lr_scheduler_type not in ("constant", "constant_with_warmup"),
        "an --lr_scheduler_type that has some, such as cosine_with_min_lr",
    ),
    "warmup_steps": (
        lambda its: its.lr_scheduler_type not in ("constant", "reduce_lr_on_plateau", "greedy"),
        "an --lr_scheduler_type that warms up, such as constant_with_warmup",
    ),
}  # fmt: skip


def check_values(training: Any, given: Collection[str]) -> None:
    """Refuse numbers out of range, names that this run can't have, and flags without effect. Raises InputError that
    names the flag.

    training: the settings of TrainingArguments, as the command line gives them. given: names of those that it gives.
    """
    for name, entry in TABLE.items():
        if entry.least is not None:
            _check_number(name, getattr(training, name), entry.least, entry.above)
    for name in ("seed", "data_seed"):
        if (getattr(training, name) or 0) > LARGEST_SEED:
            raise InputError(f"--{name} must be at most {LARGEST_SEED}.")
    for name in ("adam_beta1", "adam_beta2"):
        if getattr(training, name) >= 1:
            raise InputError(f"--{name} must be a number below 1, not {getattr(training, name)}.")
    for name in ("save_steps", "logging_steps"):
        if (value := getattr(training, name)) > 1 and value != int(value):
            raise InputError(f"--{name} must be a whole number or a share of the run below 1, not {value}.")
    if training.max_steps == 0 or training.max_steps < -1:
        raise InputError("--max_steps must be at least 1; leave it out to train for --num_train_epochs.")
    if training.metric_for_best_model not in METRICS:
        raise InputError(
            f"--metric_for_best_model {training.metric_for_best_model}: checkpoints are compared by "
            f"{' or '.join(METRICS[:2])}; ROUGE is scored once, for the finished model."
        )
    for name in OBJECTS:
        if (value := getattr(training, name)) is not None:
            _check_object(name, value)
    for name, (is_given, others) in NEEDS_OTHERS.items():
        if name in given and getattr(training, name) and not is_given(training):
            raise InputError(f"--{name} has no effect without {others}: add that, or leave it out.")
    _check_installed(training)


def _check_number(name: str, value: float | None, least: float, above: bool) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < least or (above and value == least):
        raise InputError(f"--{name} must be a number {'above' if above else 'of at least'} {least:g}, not {value}.")


def _check_object(name: str, value: str) -> None:
    try:
        is_object = isinstance(json.loads(value), dict)
    except ValueError:
        is_object = False
    if not is_object:
        raise InputError(f"--{name} must be a JSON object, such as '{{\"name\": 1}}', not {value}.")


def _listed(trackers: str | list[str] | None) -> list[str]:
    return trackers if isinstance(trackers, list) else [trackers or "none"]


def _check_installed(training: Any) -> None:
    """Refuse an optimizer that can't work, and one or a tracker whose package is missing."""
    optimizer = str(training.optim)
    for part, why in OPTIMIZERS_REFUSED.items():
        if part in optimizer:
            raise InputError(f"--optim {optimizer} can't be used here: {why}.")
    found = next((package for part, package in OPTIMIZER_PACKAGES.items() if part in optimizer), None)
    if found and not _is_installed(found[0]):
        raise InputError(f"--optim {optimizer} needs the package {found[0]}, which is not installed: pip install "
                         f"{found[1]}, or leave the flag out.")  # fmt: skip
    for tracker in _listed(training.report_to):
        if tracker in ("none", "all"):
            continue
        if tracker == "kubeflow":
            if KUBEFLOW not in os.environ:
                raise InputError(f"--report_to kubeflow works inside a TrainJob of Kubeflow, which sets {KUBEFLOW}: "
                                 "give tensorboard or none.")  # fmt: skip
            continue
        if tracker not in REPORT_PACKAGES:
            raise InputError(f"--report_to {tracker}: use {', '.join(REPORT_PACKAGES)}, kubeflow, all or none.")
        package = REPORT_PACKAGES[tracker]
        if not _is_installed(package):
            raise InputError(f"--report_to {tracker} needs the package {package}, which is not installed: install it, "
                             "or give tensorboard or none.")  # fmt: skip


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
