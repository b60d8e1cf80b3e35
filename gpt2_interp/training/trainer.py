"""Hugging Face's Trainer over packed batches: the loss on supervised positions only, tokens weighed alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from accelerate.utils import gather_object
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from gpt2_interp.data.examples import IGNORED, Example, token_counts
from gpt2_interp.evaluation.losses import TargetLosses, perplexity, target_losses
from gpt2_interp.model.packed import pack, packed_attention, packed_loss
from gpt2_interp.training.durable_trainer import DurableTrainer
from gpt2_interp.training.pace import Pace
from gpt2_interp.training.progress import Progress


class ExampleDataset(Dataset):
    """Examples as Trainer's items."""

    def __init__(self, examples: Sequence[Example]):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def collate_examples(examples: Sequence[Example]) -> dict:
    """A packed batch with the "ids" of its examples, by which `DurableTrainer` names them."""
    return {**pack(examples), "ids": [example.id for example in examples]}


class EpochOrder(Sampler):
    """The order of the examples in one epoch: a function of seed and epoch alone, so every process and every resumed
    run finds the same one.

    grouped: batches of similar lengths in random order, the longest first so that memory runs out at once or never.
    Hugging Face's sampler sorts fifty batches by length, so that long texts and short ones take turns for many steps:
    the loss swings with them, and so does what is learned.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, grouped: bool, seed: int, epoch: Callable[[], int]):
        self.lengths, self.batch_size, self.grouped = list(lengths), batch_size, grouped
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch())
        if not self.grouped:
            return iter(torch.randperm(len(self), generator=generator).tolist())
        indices = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        batches = [indices[i : i + self.batch_size] for i in range(0, len(indices), self.batch_size)]
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        order = [0, *(1 + torch.randperm(len(batches) - 1, generator=generator)).tolist()] if batches else []
        return iter([i for batch in [*(batches[j] for j in order), *last] for i in batch])


class SupervisedTrainer(DurableTrainer):
    """Trainer over `Example`s: prompt masked, no padding, token-weighted evaluation loss and its perplexity.

    With several processes (torchrun), the loss and its gradient are those of one process at the same effective batch;
    an epoch leaves out the few examples that do not fill a batch in every process.
    """

    def __init__(self, *args, train_examples: Sequence[Example], eval_examples: Sequence[Example], **kwargs):
        settings = kwargs["args"]
        settings.remove_unused_columns = False  # items are Examples, not the model's arguments
        settings.dataloader_pin_memory &= torch.cuda.is_available()  # else torch warns that it does nothing
        settings.dataloader_drop_last |= settings.world_size > 1  # else the epoch's first examples would fill up
        super().__init__(
            *args,
            train_dataset=ExampleDataset(train_examples),
            eval_dataset=ExampleDataset(eval_examples),
            data_collator=collate_examples,
            **kwargs,
        )
        self.loss_is_scaled_for_ga = True  # packed_loss divides by the whole accumulated batch's tokens
        self.pace = Pace(self.args.device)
        self.add_callback(self.pace)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(Progress())

    def get_batch_samples(self, *args, **kwargs):
        self.pace.start()
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.pace.count(batches)
        return batches, items

    def log(self, logs, start_time=None):
        if "loss" in logs:
            logs |= self.pace.scalars(self.args, self.state, self.accelerator.reduce)
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(train_dataset)
        settings, examples = self.args, self.train_dataset.examples
        return EpochOrder(
            token_counts(examples).tolist(),
            settings.train_batch_size * settings.gradient_accumulation_steps * settings.world_size,
            settings.train_sampling_strategy == "group_by_length",
            settings.data_seed if settings.data_seed is not None else settings.seed,
            lambda: int(self.state.epoch or 0),
        )

    def _get_num_items_in_batch(self, batch_samples, device):
        """Supervised tokens of the accumulated batch, over all processes."""
        count = sum((batch["shift_labels"] != IGNORED).sum() for batch in batch_samples).to(device)
        return self.accelerator.gather(count).sum()

    def training_step(self, model, inputs, num_items_in_batch=None):
        with packed_attention(model):
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        assert not return_outputs, "evaluate() below never asks for outputs"
        with self.accelerator.autocast():  # the Trainer's own covers the model's forward only, the head comes after it
            loss = packed_loss(model, inputs, num_items_in_batch)
        # Processes' gradients are averaged, but each loss is already a share of the whole batch's.
        return loss * self.accelerator.num_processes

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Loss over all supervised tokens alike (not a mean of batch means) and its perplexity, logged and returned."""
        examples = (self.eval_dataset if eval_dataset is None else eval_dataset).examples
        start = time.perf_counter()
        loss = self._share_losses(examples).mean_per_token()
        metrics = {
            f"{metric_key_prefix}_loss": loss,
            f"{metric_key_prefix}_perplexity": perplexity(loss),
            f"{metric_key_prefix}_runtime": round(time.perf_counter() - start, 3),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _share_losses(self, examples: Sequence[Example]) -> TargetLosses:
        """Losses of all examples, each process having computed its share."""
        rank, world = self.args.process_index, self.args.world_size
        own = [examples[i] for i in range(rank, len(examples), world)]
        losses = target_losses(self.model, own, self.args.per_device_eval_batch_size, context=self.accelerator.autocast)
        if world == 1:
            return losses
        return TargetLosses.merge(gather_object([losses]))
