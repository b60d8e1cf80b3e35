"""Settings and results of a run for TensorBoard's HPARAMS tab, which compares runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from gpt2_interp.evaluation.rouge import ROUGE_TYPES

MAIN_SETTINGS = (
    "task", "tuning", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "effective_batch_size",
    "precision", "attn_pdrop", "resid_pdrop", "embd_pdrop", "max_source_length", "max_target_length", "seed",
)  # fmt: skip
LORA_SETTINGS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
TEST_SCORES = ("loss", "perplexity", "perplexity_shuffled_prompt", "fact_recall", "fact_precision", "rows_right")
# The tab takes its columns from the first run it finds, so every run names them all, also those that it lacks.
COLUMNS = (
    "hparams/best_eval_loss",
    *(f"hparams/test_{name}" for name in TEST_SCORES),
    *(f"rouge/{kind}" for kind in ROUGE_TYPES),
)


def main_settings(run_info: Mapping[str, Any], sizes: Mapping[str, int], steps: int) -> dict[str, str | float]:
    """The main settings of a run, as numbers and strings.

    run_info: run.json's; sizes: of `model.anatomy.model_sizes`.
    """
    arguments = run_info["arguments"]
    lora = run_info["tuning"] == "lora"
    values = {
        **{name: arguments[name] for name in MAIN_SETTINGS},
        **{name: arguments[name] if lora else 0 for name in LORA_SETTINGS},
        "model": arguments["model_name_or_path"] or f"random {arguments['config_name']}",
        "data": arguments["dataset_name"] or arguments["train_file"],
        "training_rows": run_info["data"]["train"]["rows"],
        "optimizer_steps": steps,
        "precision": "bf16" if arguments["bf16"] else "fp16" if arguments["fp16"] else "float32",
        "parameters": sizes["parameters"],
        "trainable_parameters": sizes["trainable_parameters"],
    }
    values["lora_target_modules"] = " ".join(arguments["lora_target_modules"]) if lora else ""
    return values


def write_hparams(
    log_folder: Path,
    run_info: Mapping[str, Any],
    sizes: Mapping[str, int],
    log: Sequence[Mapping[str, Any]],
    tuned: Mapping[str, float],
    steps: int,
) -> None:
    """Write the hparams of a finished run into its own log folder (SummaryWriter.add_hparams would make another run of
    them).

    log: lines of training_log.jsonl; tuned: scores of the fine-tuned model on the test rows.
    """
    results = {f"hparams/test_{name}": tuned[name] for name in TEST_SCORES if name in tuned}
    losses = [line["eval_loss"] for line in log if line.get("eval_loss") is not None]
    if losses:
        results["hparams/best_eval_loss"] = min(losses)
    with SummaryWriter(str(log_folder)) as writer:
        for summary in hparams_summaries(main_settings(run_info, sizes, steps), dict.fromkeys(COLUMNS, 0.0)):
            writer.file_writer.add_summary(summary, steps)
        for tag, value in results.items():
            writer.add_scalar(tag, value, steps)
