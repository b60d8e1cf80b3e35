"""The pace of training, the memory it takes and the time it has left: scalars for each line of its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import torch
from transformers import TrainerCallback

from gpt2_interp.snapshots.schedule import checkpoints_after
from gpt2_interp.training.memory import peak_bytes

# Scalars that tell of the machine and the moment, not of the training: they differ between a run and its repetition.
TIMING = ("tokens_per_second", "examples_per_second", "memory_gb", "seconds_left", "eval_runtime")


class Pace(TrainerCallback):
    """Counts what a process trains on, and times it: loading, forward, backward and optimizer, nothing else.

    The Trainer calls `start` before it loads a step's batches, `count` with them, and `scalars` when it logs.
    Evaluations, snapshots and saving lie between `stop` and the next `start`. clock() gives seconds.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter):
        self.device, self.clock = device, clock
        self.started: float | None = None  # None: the clock stands
        self.stopped = 0.0
        self.tokens = self.examples = 0  # since the last log
        self.seconds = 0.0  # since the last log
        self.warm = False  # the first step is slower than all others: it says nothing about the time left
        self.warm_steps, self.warm_seconds = 0, 0.0
        self.saved = False  # the clock stands because of a checkpoint
        self.pauses: list[float] = []  # seconds of each checkpoint with its evaluation and snapshot

    def start(self) -> None:
        if self.started is None:
            self.started = self.clock()
            if self.saved:
                self.pauses.append(self.started - self.stopped)
                self.saved = False

    def count(self, batches: Iterable[Mapping]) -> None:
        """Count the batches of one optimizer step, packed: input_ids [1, tokens] each, "ids" of their examples."""
        for batch in batches:
            self.tokens += batch["input_ids"].numel()
            self.examples += len(batch["ids"])

    def stop(self) -> None:
        if self.started is None:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what is still queued belongs to this time
        self.stopped = self.clock()
        self.seconds += self.stopped - self.started
        if self.warm:
            self.warm_seconds += self.stopped - self.started
        self.started = None

    def on_step_end(self, args, state, control, **kwargs):
        self.warm_steps += self.warm
        if not self.warm or control.should_log or control.should_evaluate or control.should_save:
            self.stop()
            self.warm = True

    def on_epoch_end(self, args, state, control, **kwargs):
        if control.should_evaluate or control.should_save:
            self.stop()

    def on_save(self, args, state, control, **kwargs):
        self.saved = True

    def scalars(
        self, args, state, over_processes: Callable[[torch.Tensor], torch.Tensor] = lambda counts: counts
    ) -> dict[str, float]:
        """Scalars since the last log, `memory_gb` since the start. over_processes adds up a tensor's values over all
        processes, so every one of them must call this."""
        self.stop()
        counts = torch.tensor([self.tokens, self.examples], device=self.device)
        tokens, examples = over_processes(counts).tolist()
        seconds = self.seconds
        self.tokens = self.examples = 0
        self.seconds = 0.0
        values = {"memory_gb": round(peak_bytes(self.device) / 1e9, 3)}
        if seconds > 0:
            values["tokens_per_second"] = round(tokens / seconds, 1)
            values["examples_per_second"] = round(examples / seconds, 3)
        if self.warm_steps:
            values["seconds_left"] = round(self.seconds_left(args, state))
        return values

    def seconds_left(self, args, state) -> float:
        """Estimate the seconds of the remaining steps and checkpoints, at their mean in this session; before the first
        checkpoint has shown what one takes, of the steps alone."""
        step = self.warm_seconds / self.warm_steps
        pause = sum(self.pauses) / len(self.pauses) if self.pauses else 0.0
        to_come = checkpoints_after(state.global_step - 1, args, state)  # a step is logged before it is saved
        return step * (state.max_steps - state.global_step) + pause * to_come
