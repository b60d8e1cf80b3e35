"""Every flag of gpt2_summarization.py, its help, and what makes no sense; YAML presets lie under the flags."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments

from gpt2_interp.errors import InputError
from gpt2_interp.local_files import TEXT_UNITS
from gpt2_interp.measure_table import GROUPS
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshot_plan import Schedule, check_groups
from gpt2_interp.startup import superseded
from gpt2_interp.writing_sources import SOURCES, pairs, weights

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def flag(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with its --help text."""
    return field(default=default, metadata={"help": text, **metadata})


def flags(default: list, text: str) -> Any:
    """A dataclass field that takes several values."""
    return field(default_factory=lambda: list(default), metadata={"help": text})


@dataclass
class ModelArguments:
    _argument_group_name = "model"

    model_name_or_path: str | None = flag(
        None, "Base model: a name on the Hub (gpt2, gpt2-medium, ...) or a local folder in Hugging Face layout."
    )
    config_name: str | None = flag(
        None,
        "Start from random weights of this shape instead: gpt2, gpt2-medium, gpt2-large or gpt2-xl (known offline), "
        "a folder, or a config.json.",
    )
    tokenizer_name: str | None = flag(
        None, "Tokenizer, if it is not the model's: a name, or a folder (vocab.json and merges.txt are enough)."
    )
    config_overrides: str | None = flag(
        None, "With --config_name: change its shape, e.g. n_embd=160,n_layer=6,n_head=5,n_positions=512."
    )
    new_tokenizer_size: int | None = flag(
        None, "With --config_name: learn a new byte-level BPE of this many tokens from the training text."
    )
    implementation: str = flag(
        "huggingface",
        "The same GPT-2, as Hugging Face's code or as the one written out in gpt2_interp/scratch_gpt2.py.",
        choices=["huggingface", "scratch"],
    )
    copying_start: bool = flag(
        False,
        "With --config_name: two heads begin with the pattern of copying (a previous-token head, an induction head), "
        "which a small model does not find by itself within an hour.",
    )
    save_dtype: str = flag(
        "float32",
        "Precision of the weights in best_model/ and final_model/.",
        choices=["float32", "float16", "bfloat16"],
    )
    tuning: str = flag("full", "Train every weight, or low-rank adapters beside frozen ones.", choices=["full", "lora"])
    lora_r: int = flag(8, "LoRA: rank of the adapters.")
    lora_alpha: float = flag(16, "LoRA: the adapters' output is scaled by alpha / r.")
    lora_dropout: float = flag(0.1, "LoRA: dropout before the adapters.")
    lora_target_modules: list[str] = flags(
        ["attn.c_attn", "attn.c_proj"],
        "LoRA: the matrices that get an adapter (attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj).",
    )
    attn_pdrop: float = flag(
        0.0, "Dropout on attention weights. GPT-2's own 0.1 costs a third of a step on a CPU; so it is off by default."
    )
    resid_pdrop: float = flag(0.1, "Dropout on the output of each attention and MLP block.")
    embd_pdrop: float = flag(0.1, "Dropout on the embeddings.")


@dataclass
class DataArguments:
    _argument_group_name = "data"

    task: str = flag(
        "summarization",
        "summarization: source -> summary. creative_writing: prompt -> story, or plain text.",
        choices=["summarization", "creative_writing"],
    )
    dataset_name: str | None = flag(
        None,
        "synthetic_news, synthetic_stories, synthetic_text (embedded, no network), or a dataset on the Hub, "
        "e.g. abisee/cnn_dailymail.",
    )
    dataset_config_name: str | None = flag(None, "Configuration of a Hub dataset, e.g. 3.0.0.")
    dataset_revision: str | None = flag(None, "Commit of a Hub dataset, so that it stays as it is.")
    mixture: list[str] = flags(
        [],
        "Instead of one dataset, several sources of creative writing with their weights, e.g. writingprompts=0.4 "
        f"openwebtext=0.6. Sources: {', '.join(SOURCES)}. Streamed from the Hub once, as many rows as are needed.",
    )
    source_files: list[str] = flags(
        [], "Local files for sources of --mixture, e.g. wikitext=wiki.jsonl; the others are streamed from the Hub."
    )
    train_file: str | None = flag(
        None, "Local rows to train on: .jsonl, .csv, .parquet or .txt (plain text, cut by --text_unit)."
    )
    validation_file: str | None = flag(
        None,
        "Local rows to choose the best model by, and to take the probes from; default: the last "
        "--validation_split_percentage of the training rows.",
    )
    test_file: str | None = flag(None, "Local rows to score base and tuned model on; default: validation rows.")
    control_file: str | None = flag(
        None,
        "General text that snapshots measure beside the probes: .txt, .jsonl, .csv or .parquet, column text. Default: "
        "the other embedded source beside an embedded one, WikiText beside rows from the Hub, none beside local rows.",
    )
    null_targets: bool = flag(
        False,
        "Permute the targets of the training rows among their sources: a rerun that learns the style of targets but "
        "can't learn to use the source; claims.json compares with it.",
    )
    validation_split_percentage: float = flag(
        10, "Without validation rows: percent of the training rows, the last ones, that are held out."
    )
    text_unit: str = flag(
        "paragraph",
        "What is one example of a .txt file: a line, a paragraph (between empty lines), or a document (between "
        "<|endoftext|>, or the whole file).",
        choices=list(TEXT_UNITS),
    )
    block_size: int | None = flag(
        None,
        "Creative writing: no example is longer than so many tokens. A plain text becomes several blocks (in a "
        "--mixture its first one), a prompted story keeps its beginning. Default: whole texts only.",
    )
    text_column: str | None = flag(
        None, "Column of the source (article, prompt); of the whole text if there is no other."
    )
    summary_column: str | None = flag(None, "Column of the target (highlights, story).")
    max_source_length: int = flag(448, "Most tokens of a source; longer ones lose their end.")
    max_target_length: int = flag(
        64,
        "Tokens kept free for the target, and the most that are generated. Longer targets are kept whole, at the "
        "expense of their source.",
    )
    max_train_samples: int | None = flag(
        None, "Use only so many training rows; the number to make, for synthetic data."
    )
    max_eval_samples: int | None = flag(None, "Rows that choose the best model.")
    max_predict_samples: int | None = flag(None, "Rows on which base and tuned model are compared.")


@dataclass
class ExperimentArguments:
    _argument_group_name = "experiment"

    effective_batch_size: int | None = flag(
        None,
        "Examples of one optimizer step, over all devices and accumulated batches; 16 where neither "
        "--per_device_train_batch_size nor --gradient_accumulation_steps is given, and those two are then chosen by "
        "the memory that is free.",
    )
    probe_samples: int = flag(256, "Held-out examples that every snapshot measures.")
    snapshot_schedule: str = flag(
        "checkpoints",
        "When to measure, besides step 0 and the last step: at checkpoints, every so many steps (a number), or log "
        "(steps 1, 2, 4, 8, ...).",
    )
    measures: list[str] = flags(
        ["all"],
        f"Which groups of measures: {', '.join(GROUPS)}; or all, without those that would cost more than 1% of the "
        "training (said when it begins). docs/metrics.md defines each.",
    )
    precision: str = flag(
        "auto",
        "fp32, bf16 or fp16 (autocast; weights and optimizer stay fp32), or auto: what trains a block of this model "
        "faster on this device.",
        choices=["auto", "fp32", "bf16", "fp16"],
    )
    num_beams: int = flag(1, "Beams when summaries are generated; 1 is greedy.")
    samples_per_checkpoint: int = flag(
        16,
        "Outputs generated at every checkpoint, for samples.jsonl and sample_quality.png, which takes 8; TensorBoard "
        "shows 4 of them.",
    )
    early_stopping_patience: int | None = flag(
        None, "Stop after so many evaluations in a row without improvement of --metric_for_best_model."
    )
    resume: bool = flag(False, "Go on from the newest intact checkpoint of this --run_name.")
    overwrite: bool = flag(False, "Delete an earlier run of this --run_name first.")
    root: str = flag(".", "Folder that holds checkpoints/, model_outputs/, logs/ and the other output folders.")


@dataclass
class RunTrainingArguments(TrainingArguments):
    """Hugging Face's TrainingArguments with this pipeline's defaults; output_dir follows from run_name."""

    _argument_group_name = "training (Hugging Face TrainingArguments)"

    report_to: None | str | list[str] = flag(
        "tensorboard", "Where scalars go; tensorboard writes under logs/<run_name>."
    )
    per_device_train_batch_size: int | None = flag(
        None, "Examples that a device takes at a time; see --effective_batch_size."
    )
    gradient_accumulation_steps: int | None = flag(
        None, "Batches whose gradients are added up before an optimizer step; see --effective_batch_size."
    )
    logging_steps: float = flag(10, "Log loss, learning rate and gradient norm every so many steps.")
    save_steps: float = flag(500, "Checkpoint, snapshot and evaluation every so many steps (< 1: share of the run).")
    save_strategy: str = flag("steps", "When checkpoints and snapshots are made: steps or epoch.")
    logging_nan_inf_filter: bool = flag(False, "Hide non-finite losses from the log (the Trainer's default; not ours).")
    use_cache: bool = flag(True, "What the saved config says about caching in generation (training never caches).")
    metric_for_best_model: str | None = flag("eval_loss", "What chooses best_model/.")
    greater_is_better: bool | None = flag(False, "Whether more of it is better.")
    ddp_timeout: int = flag(
        86400, "Seconds that the other processes wait for the first one, which alone measures, scores and writes."
    )
    train_sampling_strategy: str = flag(
        "group_by_length", "Order of training rows: random, sequential, or group_by_length (less padding)."
    )


WHOLE_MODEL = "a snapshot needs the whole model in one process; torchrun alone trains on several devices"
# Flags of TrainingArguments that this pipeline decides itself.
REFUSED = {
    "--fsdp": WHOLE_MODEL,
    "--deepspeed": WHOLE_MODEL,
    "--bf16": "give --precision bf16",
    "--fp16": "give --precision fp16",
    "--output_dir": "checkpoints go to checkpoints/<run_name>; give --run_name",
    "--resume_from_checkpoint": "--resume finds the newest checkpoint of the run",
    "--load_best_model_at_end": "best_model/ and final_model/ are both kept",
    "--eval_strategy": "each checkpoint is evaluated; give --save_strategy",
    "--eval_steps": "each checkpoint is evaluated; give --save_steps",
    "--save_only_model": "a checkpoint holds all that --resume needs; give --save_total_limit to keep fewer",
    "--ignore_data_skip": "a resumed run goes on with the batches that come next",
    "--enable_jit_checkpoint": "SIGTERM always saves a checkpoint",
}

ALL_ARGUMENTS = (ModelArguments, DataArguments, ExperimentArguments, RunTrainingArguments)


class ArgumentParser(HfArgumentParser):
    """HfArgumentParser whose complaints are one sentence, with the nearest flag that exists."""

    def error(self, message: str) -> None:
        raise InputError(f"{message}{self._suggestion(message)}; see --help.")

    def _suggestion(self, message: str) -> str:
        if not message.startswith("unknown flag"):
            return ""
        wrong = next((word for word in message.split() if word.startswith("--")), "")
        near = difflib.get_close_matches(wrong.split("=")[0], self._option_string_actions, n=1, cutoff=0.5)
        return f" (did you mean {near[0]}?)" if near else ""


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, ExperimentArguments, RunTrainingArguments]:
    """Flags over the preset named first (`configs/NAME.yaml` or a path), checked; output_dir follows from run_name."""
    argv = list(argv)
    preset = argv.pop(0) if argv and not argv[0].startswith("-") else None
    parser = ArgumentParser(
        ALL_ARGUMENTS,
        prog="gpt2_summarization.py",
        usage="gpt2_summarization.py [PRESET.yaml] [flags]",
        description="Fine-tune GPT-2 for summarization or creative writing and measure its inside at every checkpoint.",
        epilog=f"Presets: {', '.join(preset_names())}. Any flag overrides the preset's value.",
        allow_abbrev=False,
    )
    argv = [_underscored(word) for word in argv]
    given = preset_argv(preset, parser, argv) + argv
    for name, instead in REFUSED.items():
        if any(word.split("=")[0] == name for word in given):
            raise InputError(f"{name} is not a flag here: {instead}.")
    if any(os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED")):
        raise InputError(f"accelerate is configured to shard the weights: {WHOLE_MODEL}.")
    if not any(word.split("=")[0] == "--run_name" for word in given) and not {"-h", "--help"} & set(argv):
        raise InputError("give the run a name with --run_name; its results are kept under that name.")
    # The parser makes TrainingArguments at once, and those want an output_dir: so find the run's name first.
    name = _last_value(given, "--run_name")
    root = _last_value(given, "--root") or "."
    if name is not None:
        given += ["--output_dir", str(RunPaths(name, root).checkpoints)]
    try:
        model, data, experiment, training, unknown = parser.parse_args_into_dataclasses(
            given, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:  # TrainingArguments' own checks
        raise InputError(" ".join(str(error).split())) from None
    if unknown:
        parser.error(f"unknown flag {' '.join(unknown)}")
    validate(model, data, experiment, training)
    return model, data, experiment, training


def preset_names() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def preset_argv(preset: str | None, parser: HfArgumentParser, argv: Sequence[str]) -> list[str]:
    """A preset's settings as command-line words, so that the flags of `argv` behind them win; without those that the
    flags take the place of."""
    if preset is None:
        return []
    path = CONFIGS / f"{preset}.yaml" if not preset.endswith((".yaml", ".yml")) else Path(preset)
    if not path.is_file():
        raise InputError(
            f"there is no preset {preset!r}: use one of {', '.join(preset_names())}, or a path to a .yaml file."
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path} must hold `flag: value` lines.")
    settings.setdefault("run_name", path.stem)
    words, gone = [], superseded(argv, settings)
    for key, value in settings.items():
        if f"--{key}" not in parser._option_string_actions:
            near = difflib.get_close_matches(f"--{key}", parser._option_string_actions, n=1)
            raise InputError(
                f"{path}: unknown setting {key!r}" + (f" (did you mean {near[0][2:]!r}?)." if near else ".")
            )
        if key in gone:
            continue
        words.append(f"--{key}")
        if isinstance(value, list):
            words += [str(item) for item in value]
        else:
            words.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return words


def _underscored(word: str) -> str:
    """--run-name=x as --run_name=x; anything else unchanged."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value


def _last_value(words: list[str], name: str) -> str | None:
    value = None
    for i, word in enumerate(words):
        if word == name and i + 1 < len(words):
            value = words[i + 1]
        elif word.startswith(f"{name}="):
            value = word.split("=", 1)[1]
    return value


def validate(
    model: ModelArguments, data: DataArguments, experiment: ExperimentArguments, training: TrainingArguments
) -> None:
    """Refuse, by the flag's name, what can't work. Raises InputError."""
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
    if experiment.num_beams < 1:
        raise InputError("--num_beams must be at least 1.")
    if training.save_strategy not in ("steps", "epoch"):
        raise InputError("--save_strategy must be steps or epoch: a snapshot belongs to every checkpoint.")
    if training.n_gpu > 1:
        training._n_gpu = 1  # one process, one device: torchrun takes several (nn.DataParallel would cut packed rows)
    complete_batch(experiment, training)
    # A checkpoint is evaluated, so that best_model/ can be chosen among them.
    training.eval_strategy = training.save_strategy
    training.eval_steps = training.save_steps


def complete_batch(experiment: ExperimentArguments, training: TrainingArguments) -> None:
    """The batch size or the accumulation that follows from the flags; both stay None where memory is to decide.

    What a preset says counts as given. Raises InputError.
    """
    rows, accumulated = training.per_device_train_batch_size, training.gradient_accumulation_steps
    effective = experiment.effective_batch_size
    given = {
        "effective_batch_size": effective,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulated,
    }
    for name, value in given.items():
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1.")
    if rows is None and accumulated is None:
        return
    processes = training.world_size
    known = (rows or 1) * (accumulated or 1) * processes
    if effective is not None:
        if effective % known or (rows and accumulated and effective != known):
            names = " and ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
            raise InputError(f"{names} contradict each other on {processes} device(s): leave one of them out.")
        rows, accumulated = rows or effective // known, accumulated or effective // known
    training.per_device_train_batch_size = rows or 8  # as the Trainer has it
    training.gradient_accumulation_steps = accumulated or 1


def _validate_data(data: DataArguments) -> None:
    """Refuse, by the flag's name, data that can't be had or used. Raises InputError."""
    if sum(map(bool, (data.dataset_name, data.train_file, data.mixture))) != 1:
        raise InputError("give the training data with one of --dataset_name, --train_file and --mixture.")
    if (data.validation_file or data.test_file) and not data.train_file:
        raise InputError("--validation_file and --test_file belong to --train_file: give that too.")
    if data.mixture and data.task != "creative_writing":
        raise InputError("--mixture is of creative writing: give --task creative_writing.")
    foreign = set(pairs("--source_files", data.source_files)) - set(weights(data.mixture) if data.mixture else ())
    if foreign:
        raise InputError(f"--source_files: {', '.join(sorted(foreign))} is not in --mixture; give it a weight there.")
    if data.block_size is not None and (data.block_size < 8 or data.task != "creative_writing"):
        raise InputError("--block_size must be at least 8, and is for --task creative_writing: a summary is never cut.")
    if not 0 < data.validation_split_percentage <= 50:
        raise InputError("--validation_split_percentage must be above 0 and at most 50.")


def as_settings(*groups: Any) -> dict[str, Any]:
    """All settings as plain JSON values, for run.json (TrainingArguments through its own to_dict, tokens masked)."""
    settings: dict[str, Any] = {}
    for group in groups:
        values = group.to_dict() if isinstance(group, TrainingArguments) else vars(group)
        settings.update({key: value for key, value in values.items() if not key.startswith("_")})
    return settings
