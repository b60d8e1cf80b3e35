"""The flags of gpt2_summarization.py, and their help."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from gpt2_interp.cli.training_table import TABLE
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
    null_training: int = flag(
        0,
        "Afterwards make N short runs of the same base on its own kind of text, with other seeds, until the weights "
        "have changed as much: with at least 3, claims.json tells what any training would change. The text: "
        "synthetic_text for the embedded base, else --control_file, else WikiText.",
        decides="record",
    )
    resume: bool = flag(False, "Go on from the newest intact checkpoint of this --run_name.", decides="nothing")
    overwrite: bool = flag(False, "Delete an earlier run of this --run_name first.", decides="nothing")
    root: str = flag(
        ".", "Folder that holds checkpoints/, model_outputs/, logs/ and the other output folders.", decides="nothing"
    )


@dataclass
class TrainingDefaults:
    """This pipeline's defaults of Hugging Face's TrainingArguments; output_dir follows from run_name.

    `training_table.TABLE` says what these flags decide.
    """

    report_to: None | str | list[str] = flag(
        "tensorboard", "Where scalars go; tensorboard writes under logs/<run_name>."
    )
    per_device_train_batch_size: int | None = flag(
        None, "Examples that a device takes at a time; see --effective_batch_size."
    )
    gradient_accumulation_steps: int | None = flag(
        None,
        "Batches whose gradients are added up before an optimizer step; see --effective_batch_size.",
    )
    logging_steps: float = flag(10, "Log loss, learning rate and gradient norm every N steps.")
    save_steps: float = flag(500, "Checkpoint, snapshot and evaluation every N steps (< 1: share of the run).")
    save_strategy: str = flag("steps", "When checkpoints and snapshots are made: steps or epoch.")
    logging_nan_inf_filter: bool = flag(
        False, "Hide losses that are not finite from the log, as the Trainer does by default."
    )
    use_cache: bool = flag(True, "Whether the saved config allows caching in generation (training never caches).")
    eval_on_start: bool = flag(True, "Evaluate the base before the first step: step 0 of eval/loss.")
    metric_for_best_model: str | None = flag("eval_loss", "The number that chooses best_model/.")
    greater_is_better: bool | None = flag(False, "Whether more of --metric_for_best_model is better.")
    ddp_timeout: int = flag(
        86400,
        "Seconds that the other processes wait for the first one, which alone measures, scores and writes.",
    )
    train_sampling_strategy: str = flag(
        "group_by_length",
        "Order of training rows; group_by_length: batches of similar lengths, which take less time.",
        choices=["random", "sequential", "group_by_length"],
    )


# The flags of TrainingArguments that --help shows; --help all shows all.
OFTEN_USED = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps", "weight_decay"),
    *("per_device_eval_batch_size", "save_total_limit", "activation_checkpointing", "seed", "use_cpu", "run_name"),
    *(one.name for one in fields(TrainingDefaults) if TABLE[one.name].fate != "refused"),
)


def what_settings_decide() -> dict[str, list[str]]:
    """Return {"record": names, "nothing": names} for run.json; every other setting decides what is learned."""
    ours = [one for group in (ModelArguments, DataArguments, ExperimentArguments) for one in fields(group)]
    decides = {one.name: one.metadata["decides"] for one in ours} | {name: one.decides for name, one in TABLE.items()}
    return {
        word: sorted(name for name, decided in decides.items() if decided == word) for word in ("record", "nothing")
    }


BEGINNING = ("resume", "overwrite")


def as_settings(*groups: Any) -> dict[str, Any]:
    """All settings as plain JSON values, for run.json (TrainingArguments through its own to_dict, tokens masked).

    Without how a process began the run or went on with it: a resumed run ends like one that was never stopped.
    """
    settings: dict[str, Any] = {}
    for group in groups:
        values = group.to_dict() if hasattr(group, "to_dict") else vars(group)
        settings.update(
            {key: value for key, value in values.items() if not key.startswith("_") and key not in BEGINNING}
        )
    return settings
