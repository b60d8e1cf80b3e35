"""Combinations of flags that can't work, refused by name."""

from __future__ import annotations

from typing import Any

from gpt2_interp.cli.training_flags import ExperimentArguments
from gpt2_interp.data.mixture import mixture_shares, pairs
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.snapshots.schedule import Schedule, check_groups


def validate(model: ModelArguments, data: DataArguments, experiment: ExperimentArguments, training: Any) -> None:
    """Refuse, by the flag's name, what can't work. Changes nothing. Raises InputError.

    training: TrainingArguments, or what the command line says of them.
    """
    if experiment.resume and experiment.overwrite:
        raise InputError(
            "--resume and --overwrite exclude each other: one goes on with the earlier run, one deletes it."
        )
    Schedule.parse(experiment.snapshot_schedule)
    check_groups(experiment.measures)
    if model.model_name_or_path and model.config_name:
        raise InputError(
            "--model_name_or_path loads weights and --config_name starts without them: give one of the two."
        )
    if not (model.model_name_or_path or model.config_name):
        raise InputError(
            "give a base model with --model_name_or_path, or a shape for random weights with --config_name."
        )
    if not model.config_name and (model.config_overrides or model.new_tokenizer_size or model.copying_start):
        raise InputError(
            "--config_overrides, --new_tokenizer_size and --copying_start describe a model from random weights: "
            "give --config_name."
        )
    if model.new_tokenizer_size and model.tokenizer_name:
        raise InputError("--new_tokenizer_size learns a tokenizer and --tokenizer_name loads one: give one of the two.")
    if model.new_tokenizer_size and model.new_tokenizer_size < 300:
        raise InputError("--new_tokenizer_size must be at least 300: 256 bytes come first.")
    if model.tuning == "lora" and model.config_name:
        raise InputError(
            "--tuning lora needs trained weights to adapt: give --model_name_or_path, or train all with --tuning full."
        )
    _validate_data(data)
    for name in ("max_source_length", "max_target_length"):
        if getattr(data, name) < 1:
            raise InputError(f"--{name} must be at least 1.")
    for name in ("max_train_samples", "max_eval_samples", "max_predict_samples"):
        value = getattr(data, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1.")
    if experiment.probe_samples < 8:
        raise InputError("--probe_samples must be at least 8: fewer say nothing about the model.")
    if training.learning_rate <= 0:
        raise InputError("--learning_rate must be above 0.")
    if experiment.early_stopping_patience is not None and experiment.early_stopping_patience < 1:
        raise InputError("--early_stopping_patience must be at least 1.")
    if experiment.samples_per_checkpoint < 0:
        raise InputError("--samples_per_checkpoint must be at least 0.")
    if experiment.null_training < 0:
        raise InputError("--null_training must be at least 0, the number of runs.")
    if experiment.null_training and model.config_name:
        raise InputError(
            "--null_training trains the base on with text of its own kind, and a model from random weights "
            "(--config_name) has none: leave one of the two out."
        )
    if experiment.num_beams < 1:
        raise InputError("--num_beams must be at least 1.")
    if training.save_strategy not in ("steps", "epoch"):
        raise InputError("--save_strategy must be steps or epoch: a snapshot belongs to every checkpoint.")


def _validate_data(data: DataArguments) -> None:
    """Refuse, by the flag's name, data that can't be had or used. Raises InputError."""
    if sum(map(bool, (data.dataset_name, data.train_file, data.mixture))) != 1:
        raise InputError("give the training data with one of --dataset_name, --train_file and --mixture.")
    if (data.validation_file or data.test_file) and not data.train_file:
        raise InputError("--validation_file and --test_file belong to --train_file: give that too.")
    if data.mixture and data.task != "creative_writing":
        raise InputError("--mixture is of creative writing: give --task creative_writing.")
    foreign = set(pairs("--source_files", data.source_files)) - set(
        mixture_shares(data.mixture) if data.mixture else ()
    )
    if foreign:
        raise InputError(f"--source_files: {', '.join(sorted(foreign))} is not in --mixture; give it a weight there.")
    if data.block_size is not None and (data.block_size < 8 or data.task != "creative_writing"):
        raise InputError("--block_size must be at least 8, and is for --task creative_writing: a summary is never cut.")
    if not 0 < data.validation_split_percentage <= 50:
        raise InputError("--validation_split_percentage must be above 0 and at most 50.")
