"""How the examples of an optimizer step are shared among devices and accumulated batches."""

from __future__ import annotations

from gpt2_interp.errors import InputError

EFFECTIVE_BATCH_SIZE = 16  # examples of an optimizer step where no flag gives any of the sizes


def batch_split(
    effective: int | None, rows: int | None, accumulated: int | None, processes: int
) -> tuple[int | None, int | None]:
    """Return (examples that a device takes at a time, batches accumulated); both None where memory is to decide.

    effective: examples of one optimizer step, over all processes. What a preset says counts as given. Raises InputError
    for sizes that contradict each other.
    """
    given = {
        "effective_batch_size": effective,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulated,
    }
    for name, value in given.items():
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1.")
    if rows is None and accumulated is None:
        return None, None
    known = (rows or 1) * (accumulated or 1) * processes
    if effective is not None:
        if effective % known or (rows and accumulated and effective != known):
            names = " and ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
            raise InputError(f"{names} contradict each other on {processes} device(s): leave one of them out.")
        rows, accumulated = rows or effective // known, accumulated or effective // known
    return rows or 8, accumulated or 1  # 8, as the Trainer has it


def per_process(effective: int, processes: int) -> int:
    """One process's part of the effective batch. Raises InputError if it can't be divided."""
    if effective % processes:
        raise InputError(f"--effective_batch_size {effective} is not a multiple of the {processes} processes.")
    return effective // processes
