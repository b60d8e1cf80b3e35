"""Texts generated at every checkpoint, to samples.jsonl and TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from gpt2_interp.evaluation.losses import perplexity
from gpt2_interp.statistics.texts import FEWEST_TEXTS, quality

SHOWN_IN_TENSORBOARD = 4  # of each checkpoint's texts
# Where the facts are known: {score: (number of a text, and of how many)}, in percent.
SHARES = {"fact_recall": ("facts_stated", "facts"), "fact_precision": ("values_right", "values_written")}


class SampleWriter(TrainerCallback):
    """Generates from the same prompts at every checkpoint: all of it in samples.jsonl, in TensorBoard a few of the
    texts and numbers of all of them."""

    def __init__(self, sample, examples, log_folder: str, append, first=None):
        """sample(model) -> for each row what the model wrote, as `ScoredRows.samples` describes it; examples:
        rows of the prompts; append(record) keeps one line; first: what the base wrote, kept as step 0."""
        self.sample, self.examples, self.log_folder, self.append = sample, examples, log_folder, append
        self.first = first

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and self.first and state.global_step == 0:
            self.write(self.first, 0)

    def on_save(self, args, state, control, model=None, **kwargs):
        if state.is_world_process_zero and self.examples:
            self.write(self.sample(model), state.global_step)

    def write(self, samples: Sequence[dict[str, Any]], step: int) -> None:
        with SummaryWriter(self.log_folder) as writer:
            for i, (row, sample) in enumerate(zip(self.examples, samples, strict=True)):
                if i < SHOWN_IN_TENSORBOARD:
                    writer.add_text(f"samples/{row['id']}", _markdown(row, sample["generated"]), step)
                about = {"step": step, "id": row["id"], "prompt": row["source"], "reference": row["target"]}
                self.append({**about, **sample})
            for name, value in _sample_scalars(samples).items():
                writer.add_scalar(f"samples/{name}", value, step)


def _sample_scalars(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Numbers of one checkpoint's samples; {} where they are too few."""
    if len(samples) < FEWEST_TEXTS:
        return {}
    scores = quality([sample["generated"] for sample in samples], {})
    scalars = {name: scores[name] for name in ("words", "repetition_4", "self_bleu", "distinct_2") if name in scores}
    for name, prefix in (("perplexity", ""), ("perplexity_references", "reference_")):
        nll, tokens = (sum(sample[f"{prefix}{part}"] for sample in samples) for part in ("nll", "tokens"))
        scalars[name] = perplexity(nll / tokens)
    for name, (part, whole) in SHARES.items():
        if total := sum(sample.get(whole, 0) for sample in samples):
            scalars[name] = 100 * sum(sample[part] for sample in samples) / total
    return scalars


def _markdown(row: dict, text: str) -> str:
    parts = (("prompt", row["source"]), ("generated", text), ("reference", row["target"]))
    return "\n\n".join(f"**{name}**\n\n{value}" for name, value in parts if value)
