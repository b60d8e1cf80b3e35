"""The schedule of snapshots, and the groups of measures that a run takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2_interp.errors import InputError
from gpt2_interp.snapshots.table import GROUPS

ALL = "all"
SHARE = 0.01  # of the training: what one of the expensive groups may cost


@dataclass(frozen=True)
class Schedule:
    """A schedule: at every checkpoint (every is None, not log), every N steps, or at steps 1, 2, 4, 8, ..."""

    every: int | None = None
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Parse "checkpoints", "log" or a number of steps. Raises InputError."""
        if text == "checkpoints":
            return cls()
        if text == "log":
            return cls(log=True)
        if text.isdigit() and int(text) > 0:
            return cls(every=int(text))
        raise InputError(f"--snapshot_schedule {text} is not known: give checkpoints, log or a number of steps.")

    @property
    def at_checkpoints(self) -> bool:
        return self.every is None and not self.log

    def due(self, step: int, max_steps: int) -> bool:
        """Return whether a snapshot is due after this step, where checkpoints don't decide. The last step always is."""
        if self.at_checkpoints:
            return False
        if self.every is None:  # log-spaced
            return step == max_steps or step & (step - 1) == 0
        return step == max_steps or step % self.every == 0

    def to_come(self, step: int, args, state) -> int:
        """Return how many snapshots the run takes after this step."""
        if self.at_checkpoints:
            return checkpoints_after(step, args, state)
        return sum(self.due(one, state.max_steps) for one in range(step + 1, state.max_steps + 1))

    def __str__(self) -> str:
        return (
            "at each checkpoint" if self.at_checkpoints else "log-spaced" if self.log else f"every {self.every} steps"
        )


def check_groups(wanted: Sequence[str]) -> None:
    """Refuse a name of --measures that is no group. Raises InputError."""
    unknown = sorted(set(wanted) - {ALL, *GROUPS})
    if unknown or not wanted:
        raise InputError(
            f"--measures: {', '.join(unknown) or 'nothing'} is no group of measures; choose from all, "
            f"{', '.join(GROUPS)}."
        )


def checkpoints_after(step: int, args, state) -> int:
    """Return how many checkpoints the run has after this step; the last step always is one."""
    if args.save_strategy == "steps":
        return math.ceil(state.max_steps / state.save_steps) - step // state.save_steps
    left = state.max_steps - step
    if args.save_strategy == "epoch":
        return math.ceil(left / state.max_steps * args.num_train_epochs)
    return 1 if left else 0
