"""The flags of gpt2_summarization.py as the dataclasses that training works with."""

from __future__ import annotations

import os
from copy import copy
from dataclasses import dataclass

from transformers import HfArgumentParser, TrainingArguments

from gpt2_interp.cli.early import check_command
from gpt2_interp.cli.rehearsal import rehearse
from gpt2_interp.cli.training_flags import ExperimentArguments, TrainingDefaults
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.training.batch import batch_split


@dataclass
class RunTrainingArguments(TrainingDefaults, TrainingArguments):
    """Hugging Face's TrainingArguments with this pipeline's defaults."""


class ArgumentParser(HfArgumentParser):
    """HfArgumentParser whose complaints are one sentence, and which leaves alone what a flag `decides`."""

    @staticmethod
    def _parse_dataclass_field(parser, field) -> None:
        plain = copy(field)  # for argparse, which is handed all the metadata
        plain.metadata = {key: value for key, value in field.metadata.items() if key != "decides"}
        HfArgumentParser._parse_dataclass_field(parser, plain)

    def error(self, message: str) -> None:
        raise InputError(f"{message}; see --help.")


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, ExperimentArguments, RunTrainingArguments]:
    """Parse flags over the preset named first (`configs/NAME.yaml` or a path), and check them; output_dir follows from
    run_name."""
    command = check_command(argv)
    # TrainingArguments are made while parsing, and want an output_dir and evaluations then; when evaluations come is
    # settled afterwards.
    output_dir = RunPaths(command.run_name, command.root).checkpoints
    parser = ArgumentParser(
        (ModelArguments, DataArguments, ExperimentArguments, RunTrainingArguments), allow_abbrev=False
    )
    try:
        model, data, experiment, training = parser.parse_args_into_dataclasses(
            [*command.words, "--output_dir", str(output_dir), "--eval_strategy", "epoch"], look_for_args_file=False
        )
    except ValueError as error:  # TrainingArguments' own checks, and HfArgumentParser's of unknown flags
        raise InputError(" ".join(str(error).split())) from None
    rehearse(training)
    return model, data, experiment, complete_settings(experiment, training)


def _processes() -> int:
    """How many processes torchrun, accelerate or MPI started."""
    names = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    return max(int(os.environ.get(name) or 1) for name in names)


def complete_settings(experiment: ExperimentArguments, training: RunTrainingArguments) -> RunTrainingArguments:
    """Fill in what follows from other settings, and return `training`. Raises InputError for a batch that can't be."""
    if (started := _processes()) > 1 and training.world_size == 1:
        raise InputError(
            f"{started} processes were started, and each would train alone: without GPUs add --use_cpu, or start one."
        )
    if training.n_gpu > 1:
        training._n_gpu = 1  # one process, one device: torchrun takes several (nn.DataParallel would cut packed rows)
    training.per_device_train_batch_size, training.gradient_accumulation_steps = batch_split(
        experiment.effective_batch_size,
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
        training.world_size,
    )
    # A checkpoint is evaluated, so that best_model/ can be chosen among them.
    training.eval_strategy = training.save_strategy
    training.eval_steps = training.save_steps
    return training
