"""Short runs of the same base on its own kind of text, until the weights have changed as much as in the run itself.

What changes in them too, any training changes: `analysis.claims` compares with them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import TrainerCallback, TrainingArguments

from gpt2_interp.data.examples import Example
from gpt2_interp.model.anatomy import frobenius_norm
from gpt2_interp.model.base_weights import BaseWeights, weight_deltas
from gpt2_interp.training.trainer import SupervisedTrainer

MOST_TIMES_LONGER = 4  # than the run itself
CHECKS = 50  # of the weights, in as many steps as the run itself has


def null_seed(seed: int, number: int) -> int:
    """Return the seed of a run's null run with this number, from 1 on."""
    return seed + 1000 + number


def relative_change(model: nn.Module, base: BaseWeights) -> float:
    """||W_t - W_0||_F / ||W_0||_F over all matrices of `anatomy.matrix_names` that changed, together; 0 where none did.

    Raises ValueError as `weight_deltas` does.
    """
    change = size = 0.0
    for _, delta, before in weight_deltas(model, base):
        if norm := frobenius_norm(delta):
            change, size = math.hypot(change, norm), math.hypot(size, frobenius_norm(before))
    return change / size if size else 0.0


class StopAtChange(TrainerCallback):
    """Ends training once the weights have changed by `target`, as `relative_change` has it.

    every: steps between two looks at the weights. `reached` is the change at the last look.
    """

    def __init__(self, base: BaseWeights, target: float, every: int = 1):
        self.base, self.target, self.every = base, target, every
        self.reached = 0.0

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self.reached = relative_change(model, self.base)
            control.should_training_stop |= self.reached >= self.target
        return control


class NullTrainer(SupervisedTrainer):
    """A SupervisedTrainer that keeps no checkpoint, also where a signal stops it: a null run is whole or absent."""

    def _stop_if_asked(self, model) -> None:
        if number := self._signal_of_any_process():
            self._raise_interrupted(number)


@dataclass(frozen=True)
class Reached:
    """How a null run ended. log: the lines of its training log, {"step": ..., scalars}."""

    steps: int
    wanted: float
    change: float
    log: Sequence[dict[str, float]]

    def as_json(self) -> dict[str, float]:
        """Return what run.json keeps."""
        return {"steps": self.steps, "weight_change": self.change, "wanted_weight_change": self.wanted}

    def summary(self) -> str:
        """Return one line on how it ended."""
        end = "reached" if self.change >= self.wanted else f"stopped short of {self.wanted:.3g}, at"
        return f"{end} {self.change:.3g} after {self.steps} steps"


def null_arguments(training: TrainingArguments, steps: int, seed: int, run_name: str) -> TrainingArguments:
    """Return the arguments of a null run: those of `training`, which took `steps`, with another seed, the constant
    learning rate after warm-up, and neither evaluation nor checkpoint."""
    own = copy.copy(training)
    own.run_name = run_name
    own.seed, own.data_seed = seed, None
    own.lr_scheduler_type, own.lr_scheduler_kwargs = "constant_with_warmup", {}
    own.warmup_steps = training.get_warmup_steps(steps)
    own.max_steps = MOST_TIMES_LONGER * steps
    own.eval_strategy = own.save_strategy = "no"
    own.eval_on_start = False
    own.report_to = []
    return own


def train_null(
    model: nn.Module, base: BaseWeights, examples: Sequence[Example], tokenizer, own: TrainingArguments, target: float
) -> Reached:
    """Train `model` in place until its weights have changed by `target`, or for all of own.max_steps.

    own: from `null_arguments`. base: the weights of `model` as it is now. Raises what DurableTrainer.train raises.
    """
    stop = StopAtChange(base, target, every=max(1, own.max_steps // MOST_TIMES_LONGER // CHECKS))
    trainer = NullTrainer(
        model=model,
        args=own,
        train_examples=examples,
        eval_examples=[],
        processing_class=tokenizer,
        callbacks=[stop],
    )
    trainer.train()
    trainer.accelerator.free_memory()
    log = [{k: v for k, v in line.items() if isinstance(v, (int, float))} for line in trainer.state.log_history]
    return Reached(trainer.state.global_step, target, stop.reached, log)
