"""Values of Hugging Face's flags that can't work here, refused by name before anything is read."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

from gpt2_interp.errors import InputError

# The smallest value of each number; the flags of `_ABOVE` must be larger than it.
LEAST = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"), 1),
    **dict.fromkeys(("save_total_limit", "torch_empty_cache_steps", "dataloader_prefetch_factor", "ddp_timeout"), 1),
    **dict.fromkeys(("seed", "data_seed", "warmup_steps", "weight_decay", "max_grad_norm", "eval_delay"), 0),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "dataloader_num_workers"), 0),
    **dict.fromkeys(("learning_rate", "num_train_epochs", "save_steps", "logging_steps"), 0),
}
_ABOVE = {"learning_rate", "num_train_epochs", "save_steps", "logging_steps"}
LARGEST_SEED = 2**32 - 1  # numpy's

METRICS = ("eval_loss", "eval_perplexity", "loss", "perplexity")

# The package that an optimizer comes from, by a part of the optimizer's name; the first that fits.
OPTIMIZER_PACKAGES = {
    "galore": "galore_torch",
    "apollo": "apollo_torch",
    "adalomo": "lomo_optim",
    "lomo": "lomo_optim",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "stable_adamw": "optimi",
    "torch_xla": "torch_xla",
    "npu": "torch_npu",
    "anyprecision": "torchdistx",
    "torch_4bit": "torchao",
    "torch_8bit": "torchao",
    "8bit": "bitsandbytes",
    "bnb": "bitsandbytes",
    "paged": "bitsandbytes",
    "lion": "bitsandbytes",
    "ademamix": "bitsandbytes",
}
REPORT_PACKAGES = {  # the package that each value of --report_to needs
    **{name: name for name in ("clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "kubeflow", "mlflow")},
    **{name: name for name in ("neptune", "swanlab", "tensorboard", "trackio", "wandb")},
    "azure_ml": "azureml",
    "flyte": "flytekit",
}


def check_values(training: Any) -> None:
    """Refuse numbers out of range, and names that this run can't have. Raises InputError that names the flag.

    training: the settings of TrainingArguments, as the command line gives them.
    """
    for name, least in LEAST.items():
        _check_number(name, getattr(training, name), least)
    for name in ("seed", "data_seed"):
        if (getattr(training, name) or 0) > LARGEST_SEED:
            raise InputError(f"--{name} must be at most {LARGEST_SEED}.")
    if training.max_steps == 0 or training.max_steps < -1:
        raise InputError("--max_steps must be at least 1; leave it out to train for --num_train_epochs.")
    if training.metric_for_best_model not in METRICS:
        raise InputError(
            f"--metric_for_best_model {training.metric_for_best_model}: checkpoints are compared by "
            f"{' or '.join(METRICS[:2])}; ROUGE is scored once, for the finished model."
        )
    if training.lr_scheduler_type == "reduce_lr_on_plateau":
        raise InputError(
            "--lr_scheduler_type reduce_lr_on_plateau depends on evaluations between checkpoints, which are not made "
            "here: give linear, cosine or another schedule of the step alone."
        )
    _check_installed(training)


def _check_number(name: str, value: float | None, least: float) -> None:
    if value is None:
        return
    above = name in _ABOVE
    if not math.isfinite(value) or value < least or (above and value == least):
        raise InputError(f"--{name} must be a number {'above' if above else 'of at least'} {least}, not {value}.")


def _check_installed(training: Any) -> None:
    """Refuse an optimizer or a tracker whose package is missing."""
    optimizer = str(training.optim)
    package = next((package for part, package in OPTIMIZER_PACKAGES.items() if part in optimizer), None)
    if package and not _is_installed(package):
        raise InputError(f"--optim {optimizer} needs the package {package}, which is not installed: install it, or "
                         "leave the flag out.")  # fmt: skip
    given = training.report_to
    for tracker in given if isinstance(given, list) else [given]:
        if tracker in (None, "none", "all"):
            continue
        if tracker not in REPORT_PACKAGES:
            raise InputError(f"--report_to {tracker}: use {', '.join(REPORT_PACKAGES)}, all or none.")
        package = REPORT_PACKAGES[tracker]
        if not _is_installed(package):
            raise InputError(f"--report_to {tracker} needs the package {package}, which is not installed: install it, "
                             "or give tensorboard or none.")  # fmt: skip


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
