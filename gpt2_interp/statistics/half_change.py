"""When a change happened: the first snapshot at which half of the final change is reached."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_interp.statistics.intervals import nan_mean
from gpt2_interp.statistics.simultaneous import FEWEST_TO_TEST, resamples


def half_change(
    differences: np.ndarray, steps: Sequence[int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (step, low, high), each [unit]: the first step at which half of the last change is reached, and its 95%
    interval from clusters drawn with replacement.

    differences: [cluster, step, unit], changes since step 0 at `steps`. All three are steps of snapshots: the date is
    known no better than snapshots were taken. NaN where there is no change; no bounds below FEWEST_TO_TEST clusters.
    """
    number = np.asarray(steps, dtype=float)
    defined = np.isfinite(differences)
    filled = np.where(defined, differences, 0)
    when = number_at(nan_mean(differences, axis=0), number)
    if len(differences) < FEWEST_TO_TEST:
        unknown = np.full(when.shape, np.nan)
        return when, unknown, unknown
    low, high = np.full(when.shape, np.nan), np.full(when.shape, np.nan)
    drawn = resamples(len(differences), seed).astype(np.float32)  # [draw, cluster]
    for unit in range(filled.shape[-1]):  # one by one: 2,000 draws of all units at once would take gigabytes
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (drawn @ filled[..., unit]) / (drawn @ defined[..., unit])  # [draw, step]
        found = number_at(means.T, number)
        if np.isfinite(found).any():
            low[unit], high[unit] = np.nanpercentile(found, [2.5, 97.5], method="nearest")
    return when, low, high


def number_at(means: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return [...], the first of `number` [step] at which means [step, ...] reach half of their last value."""
    last = means[-1]
    with np.errstate(invalid="ignore"):
        reached = means * np.sign(last) >= np.abs(last) / 2
    found = number[reached.argmax(axis=0)]
    return np.where(np.isfinite(last) & (last != 0), found, np.nan)
