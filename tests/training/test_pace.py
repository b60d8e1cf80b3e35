"""Pace: against a simulated run whose every second is known."""

from types import SimpleNamespace

import pytest
import torch

from gpt2_interp.snapshots.schedule import checkpoints_after
from gpt2_interp.training.pace import Pace

STEP, SAVE, LOADING = 2.0, 30.0, 0.5  # seconds of a step, a checkpoint with its evaluation, a step's loading


class Run:
    """What the Trainer does, on a clock of its own: a checkpoint every 4 of 10 steps and at the last, a log every 2."""

    def __init__(self, batches):
        self.now, self.batches = 0.0, batches
        self.pace = Pace(torch.device("cpu"), clock=lambda: self.now)
        self.args = SimpleNamespace(save_strategy="steps", num_train_epochs=1)
        self.logs = {}

    def go(self, first=1, last=10, slow_first=0.0):
        for step in range(first, last + 1):
            saves = step % 4 == 0 or step == 10
            control = SimpleNamespace(should_log=saves or step % 2 == 0, should_save=saves, should_evaluate=saves)
            state = SimpleNamespace(global_step=step, max_steps=10, save_steps=4)
            self.pace.start()
            self.now += LOADING
            self.pace.count(self.batches)
            self.now += STEP + (slow_first if step == first else 0)
            self.pace.on_step_end(self.args, state, control)
            if control.should_log:
                self.logs[step] = self.pace.scalars(self.args, state), self.now
            if saves:
                self.now += SAVE
                self.pace.on_save(self.args, state, control)
        return self


def packed(*lengths):
    return {"input_ids": torch.zeros(1, sum(lengths)), "ids": [f"example {i}" for i in range(len(lengths))]}


def test_only_training_time_and_real_tokens_count():
    run = Run([packed(5, 3), packed(7, 9)]).go()
    for values, _ in run.logs.values():  # 24 tokens of 4 examples a step, whatever lies between the steps
        assert values["tokens_per_second"] == pytest.approx(24 / (STEP + LOADING), abs=0.05)
        assert values["examples_per_second"] == pytest.approx(4 / (STEP + LOADING), abs=0.001)
        assert values["memory_gb"] > 0.05


@pytest.mark.parametrize("first", [1, 5])
def test_time_left_is_what_then_passes(first):
    """Also of a resumed run, and whatever the first step of the session takes."""
    run = Run([packed(4)]).go(first=first, slow_first=100.0)
    known = [step for step in run.logs if step > first // 4 * 4 + 4]  # a checkpoint has been seen
    assert known
    for step in known:
        values, at = run.logs[step]
        assert values["seconds_left"] == pytest.approx(run.now - at, abs=0.5)


def test_nothing_is_said_before_it_can_be():
    run = Run([packed(4)])
    run.pace.start()
    run.pace.count(run.batches)
    run.now += STEP
    state = SimpleNamespace(global_step=1, max_steps=10, save_steps=4)
    values = run.pace.scalars(run.args, state)
    assert "seconds_left" not in values and values["tokens_per_second"] == 2
    assert set(run.pace.scalars(run.args, state)) == {"memory_gb"}  # no time has passed since


def test_processes_are_added_up():
    run = Run([packed(5, 3)]).go(last=1)
    values = run.pace.scalars(
        run.args, SimpleNamespace(global_step=1, max_steps=1, save_steps=4), lambda counts: 2 * counts
    )
    assert values["tokens_per_second"] == pytest.approx(16 / (STEP + LOADING), abs=0.05)


@pytest.mark.parametrize("max_steps", [1, 8, 10, 11])
@pytest.mark.parametrize("save_steps", [1, 4, 20])
def test_checkpoints_to_come_are_those_of_the_plan(max_steps, save_steps):
    args = SimpleNamespace(save_strategy="steps")
    state = SimpleNamespace(max_steps=max_steps, save_steps=save_steps)
    plan = {step for step in range(1, max_steps + 1) if step % save_steps == 0 or step == max_steps}
    for step in range(max_steps):
        assert checkpoints_after(step, args, state) == sum(later > step for later in plan)
