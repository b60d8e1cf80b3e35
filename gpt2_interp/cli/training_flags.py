"""The flags of gpt2_summarization.py, and their help."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from gpt2_interp.data.settings import DataArguments
from gpt2_interp.flags import flag, flags
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.snapshots.schedule import SHARE
from gpt2_interp.snapshots.table import GROUPS, N_PROBES
from gpt2_interp.training.batch import EFFECTIVE_BATCH_SIZE


@dataclass
class ExperimentArguments:
    _argument_group_name = "experiment"

    effective_batch_size: int | None = flag(
        None,
        f"Examples of one optimizer step, over all devices and accumulated batches. Default: {EFFECTIVE_BATCH_SIZE} "
        "if neither --per_device_train_batch_size nor --gradient_accumulation_steps is given; both then follow from "
        "the memory of the device.",
    )
    probe_samples: int = flag(N_PROBES, "Held-out examples that every snapshot measures.")
    snapshot_schedule: str = flag(
        "checkpoints",
        "When to measure, besides step 0 and the last step: at checkpoints, every N steps (a number), or log (steps "
        "1, 2, 4, 8, ...).",
        decides="record",
    )
    measures: list[str] = flags(
        ["all"],
        f"Which groups of measures: {', '.join(GROUPS)}; or all, without those that would cost more than {SHARE:.0%} "
        "of the training (the run prints which). docs/metrics.md defines each.",
        decides="record",
    )
    precision: str = flag(
        "auto",
        "fp32, bf16 or fp16 (autocast; weights and optimizer stay fp32), or auto: bf16 or fp16 where the device "
        "computes it natively and the model is wide enough to gain, else fp32.",
        choices=["auto", "fp32", "bf16", "fp16"],
    )
    num_beams: int = flag(1, "Beams when summaries are generated; 1 is greedy.", decides="record")
    samples_per_checkpoint: int = flag(
        16,
        "Outputs generated at every checkpoint, for samples.jsonl and sample_quality.png, which takes 8; TensorBoard "
        "shows 4 of them.",
        decides="record",
    )
    early_stopping_patience: int | None = flag(
        None, "Stop after N evaluations in a row without improvement of --metric_for_best_model."
    )
    resume: bool = flag(False, "Go on from the newest intact checkpoint of this --run_name.", decides="nothing")
    overwrite: bool = flag(False, "Delete an earlier run of this --run_name first.", decides="nothing")
    root: str = flag(
        ".", "Folder that holds checkpoints/, model_outputs/, logs/ and the other output folders.", decides="nothing"
    )


@dataclass
class TrainingDefaults:
    """This pipeline's defaults of Hugging Face's TrainingArguments; output_dir follows from run_name."""

    report_to: None | str | list[str] = flag(
        "tensorboard", "Where scalars go; tensorboard writes under logs/<run_name>.", decides="nothing"
    )
    per_device_train_batch_size: int | None = flag(
        None, "Examples that a device takes at a time; see --effective_batch_size.", decides="record"
    )
    gradient_accumulation_steps: int | None = flag(
        None,
        "Batches whose gradients are added up before an optimizer step; see --effective_batch_size.",
        decides="record",
    )
    logging_steps: float = flag(10, "Log loss, learning rate and gradient norm every N steps.", decides="record")
    save_steps: float = flag(500, "Checkpoint, snapshot and evaluation every N steps (< 1: share of the run).")
    save_strategy: str = flag("steps", "When checkpoints and snapshots are made: steps or epoch.")
    logging_nan_inf_filter: bool = flag(
        False, "Hide non-finite losses from the log (the Trainer's default, not this project's).", decides="nothing"
    )
    use_cache: bool = flag(True, "Whether the saved config allows caching in generation (training never caches).")
    eval_on_start: bool = flag(True, "Evaluate the base before the first step: step 0 of eval/loss.")
    metric_for_best_model: str | None = flag("eval_loss", "The number that chooses best_model/.")
    greater_is_better: bool | None = flag(False, "Whether more of --metric_for_best_model is better.")
    ddp_timeout: int = flag(
        86400,
        "Seconds that the other processes wait for the first one, which alone measures, scores and writes.",
        decides="nothing",
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
    "--label_smoothing_factor": "the loss over packed batches, which this pipeline computes itself, has no smoothing",
    "--use_liger_kernel": "the loss over packed batches, which this pipeline computes itself, takes its place",
    "--debug": "a step whose loss or gradient is not finite stops the run and names its rows anyway",
    "--push_to_hub": "a run writes local folders; upload model_outputs/<run_name>/best_model when it is finished",
    **dict.fromkeys(
        (
            "--prediction_loss_only",
            "--eval_do_concat_batches",
            "--eval_use_gather_object",
            "--eval_accumulation_steps",
            "--include_for_metrics",
            "--batch_eval_metrics",
            "--label_names",
        ),
        "this pipeline's own evaluation computes the loss of each token and keeps no other output",
    ),
    **dict.fromkeys(
        ("--remove_unused_columns", "--length_column_name"),
        "training rows are this pipeline's own examples, which have no columns",
    ),
}


# The flags of TrainingArguments that --help shows; --help all shows all.
OFTEN_USED = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps", "weight_decay"),
    *("per_device_eval_batch_size", "save_total_limit", "activation_checkpointing", "seed", "use_cpu", "run_name"),
    *(one.name for one in fields(TrainingDefaults)),
)


# What the other flags of TrainingArguments decide, where it is not what is learned.
DECIDES = {
    "record": ("debug", "logging_strategy", "per_device_eval_batch_size"),
    "nothing": (
        *("run_name", "output_dir", "save_total_limit", "resume_from_checkpoint", "project", "disable_tqdm"),
        *("log_level", "log_level_replica", "log_on_each_node", "logging_first_step", "skip_memory_metrics"),
        *("torch_empty_cache_steps", "do_train", "do_eval", "do_predict", "local_rank", "ddp_backend"),
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "restore_callback_states_from_checkpoint", "push_to_hub", "hub_model_id"),
        *("hub_strategy", "hub_token", "hub_private_repo", "hub_always_push", "hub_revision", "trackio_space_id"),
        *("trackio_bucket_id", "trackio_static_space_id"),
        *("bf16", "fp16"),  # follow from --precision
    ),
}


def what_settings_decide() -> dict[str, list[str]]:
    """Return {"record": names, "nothing": names} for run.json; every other setting decides what is learned."""
    found = {word: list(names) for word, names in DECIDES.items()}
    for group in (ModelArguments, DataArguments, ExperimentArguments, TrainingDefaults):
        for one in fields(group):
            if one.metadata["decides"] != "learning":
                found[one.metadata["decides"]].append(one.name)
    return {word: sorted(names) for word, names in found.items()}


def as_settings(*groups: Any) -> dict[str, Any]:
    """All settings as plain JSON values, for run.json (TrainingArguments through its own to_dict, tokens masked)."""
    settings: dict[str, Any] = {}
    for group in groups:
        values = group.to_dict() if hasattr(group, "to_dict") else vars(group)
        settings.update({key: value for key, value in values.items() if not key.startswith("_")})
    return settings
