"""Hugging Face's Trainer with the loss on supervised positions only, and an evaluation that weighs tokens alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from gpt2_interp.durable_trainer import DurableTrainer
from gpt2_interp.evaluation import perplexity, target_losses
from gpt2_interp.examples import IGNORED, Example, collate


class ExampleDataset(Dataset):
    """Examples as the items that Trainer's samplers expect: "input_ids" tells them the length."""

    def __init__(self, examples: Sequence[Example]):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict:
        example = self.examples[index]
        return {"input_ids": example.input_ids, "example": example}


def collate_items(items: Sequence[dict], pad_id: int) -> dict[str, torch.Tensor | list[str]]:
    """A padded batch with the "ids" of its examples, by which `DurableTrainer` names them."""
    examples = [item["example"] for item in items]
    return {**collate(examples, pad_id), "ids": [example.id for example in examples]}


def supervised_loss(model, inputs: dict[str, torch.Tensor], num_items: torch.Tensor | int | None) -> torch.Tensor:
    """Cross entropy of next-token prediction, with logits only where some row of the batch is supervised.

    inputs: input_ids, attention_mask, labels, each [batch, seq]. The sum over supervised tokens is divided by
    `num_items` (their number in the whole accumulated batch), or by their number in this batch when None. nats/token.
    """
    targets = inputs["labels"][:, 1:]  # position t predicts token t+1
    positions = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)  # [kept]
    logits = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_to_keep=positions,
        use_cache=False,
    ).logits  # [batch, kept, vocab]
    kept = targets[:, positions]
    total = F.cross_entropy(logits.float().flatten(0, 1), kept.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / ((kept != IGNORED).sum() if num_items is None else num_items)


class LengthGroups(LengthGroupedSampler):
    """Batches of similar lengths in random order, the longest first so that memory runs out at once or never.

    Hugging Face's sampler sorts fifty batches by length, so that long texts and short ones take turns for many steps:
    the loss swings with them, and so does what is learned.
    """

    def __iter__(self):
        indices = list(super().__iter__())
        batches = [indices[i : i + self.batch_size] for i in range(0, len(indices), self.batch_size)]
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        order = [0, *(1 + torch.randperm(len(batches) - 1)).tolist()] if batches else []
        return iter([i for batch in [*(batches[j] for j in order), *last] for i in batch])


class SupervisedTrainer(DurableTrainer):
    """Trainer over `Example`s: prompt masked, token-weighted evaluation loss and its perplexity."""

    def __init__(self, *args, train_examples: Sequence[Example], eval_examples: Sequence[Example], **kwargs):
        pad_id = kwargs["processing_class"].pad_token_id
        self.eval_examples = eval_examples
        kwargs["args"].remove_unused_columns = False  # items carry an Example, not the model's arguments
        kwargs["args"].dataloader_pin_memory &= torch.cuda.is_available()  # else torch warns that it does nothing
        super().__init__(
            *args,
            train_dataset=ExampleDataset(train_examples),
            eval_dataset=ExampleDataset(eval_examples),
            data_collator=partial(collate_items, pad_id=pad_id),
            **kwargs,
        )

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [len(example.input_ids) for example in self.train_dataset.examples]
        return LengthGroups(self.args.train_batch_size * self.args.gradient_accumulation_steps, lengths=lengths)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        assert not return_outputs, "evaluate() below never asks for outputs"
        return supervised_loss(model, inputs, num_items_in_batch)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Loss over all supervised tokens alike (not a mean of batch means) and its perplexity, logged and returned."""
        examples = self.eval_examples if eval_dataset is None else eval_dataset.examples
        start = time.perf_counter()
        losses = target_losses(
            self.model,
            examples,
            self.processing_class.pad_token_id,
            self.args.per_device_eval_batch_size,
            context=self.accelerator.autocast,
        )
        loss = losses.mean_per_token()
        metrics = {
            f"{metric_key_prefix}_loss": loss,
            f"{metric_key_prefix}_perplexity": perplexity(loss),
            f"{metric_key_prefix}_runtime": round(time.perf_counter() - start, 3),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class SampleWriter(TrainerCallback):
    """Generates from the same few prompts at every checkpoint: text in TensorBoard and in samples.jsonl."""

    def __init__(self, generate, examples, log_folder: str, append):
        """generate(model) -> list of texts; append(record) keeps one line; examples: rows of the prompts."""
        self.generate, self.examples, self.log_folder, self.append = generate, examples, log_folder, append

    def on_save(self, args, state, control, model=None, **kwargs):
        if state.is_world_process_zero and self.examples:
            self.write(model, state.global_step)

    def write(self, model, step: int) -> None:
        texts = self.generate(model)
        with SummaryWriter(self.log_folder) as writer:
            for row, text in zip(self.examples, texts, strict=True):
                writer.add_text(f"samples/{row['id']}", _markdown(row, text), step)
                self.append(
                    {
                        "step": step,
                        "id": row["id"],
                        "prompt": row["source"],
                        "reference": row["target"],
                        "generated": text,
                    }
                )


def _markdown(row: dict, text: str) -> str:
    parts = (("prompt", row["source"]), ("generated", text), ("reference", row["target"]))
    return "\n\n".join(f"**{name}**\n\n{value}" for name, value in parts if value)
