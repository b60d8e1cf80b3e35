"""Ratios of sums over rows, with 95% bootstrap intervals, and the paired difference of the same ratio of two systems.

A ratio is (top, bottom), both [row]. Its value is the sum of the tops over the sum of the bottoms: a share of all
facts, not the mean of the rows' shares. What is undefined has no entry, and neither have bounds of no width: where all
rows agree, resampling them shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from gpt2_interp.statistics.intervals import RESAMPLES

Ratio = tuple[np.ndarray, np.ndarray]


def bounded(ratios: Mapping[str, Ratio]) -> dict[str, float]:
    """Return each ratio, with 95% percentile bounds `<name>_low` and `<name>_high` from resampling rows."""
    names = [name for name, (_, bottom) in ratios.items() if bottom.sum()]
    return _entries({name: _value(ratios[name]) for name in names}, {name: _draws(ratios[name]) for name in names})


def differences(ratios: Mapping[str, Ratio], others: Mapping[str, Ratio]) -> dict[str, float]:
    """Return each ratio minus the other system's of the same name, with bounds as `bounded` has them.

    Both systems are resampled by the same rows, so a row that is hard for both doesn't widen the interval.
    """
    names = [name for name in ratios if name in others and ratios[name][1].sum() and others[name][1].sum()]
    return _entries(
        {name: _value(ratios[name]) - _value(others[name]) for name in names},
        {name: _draws(ratios[name]) - _draws(others[name]) for name in names},
    )


def _value(ratio: Ratio) -> float:
    return float(ratio[0].sum() / ratio[1].sum())


@lru_cache(maxsize=1)
def _counts(rows: int) -> np.ndarray:
    """How often each bootstrap sample has each row: [draw, row]."""
    return np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES).astype(float)


def _draws(ratio: Ratio) -> np.ndarray:
    """The ratio of each bootstrap sample, the same samples for all ratios of as many rows; NaN where undefined."""
    counts = _counts(len(ratio[0]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (counts @ ratio[0]) / (counts @ ratio[1])


def _entries(values: Mapping[str, float], draws: Mapping[str, np.ndarray]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        found[name] = value
        low, high = np.percentile(draws[name], [2.5, 97.5])  # NaN if a draw has no rows that count
        if np.isfinite(low + high) and low < high:
            found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found
