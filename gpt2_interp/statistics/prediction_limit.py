"""How large one more value would be, were it like those that there are."""

from __future__ import annotations

import numpy as np
from scipy.stats import t

from gpt2_interp.statistics.simultaneous import CONFIDENCE


def prediction_limit(sizes: np.ndarray) -> np.ndarray:
    """Return the size [unit] that one more of the runs [run, unit] exceeds with a chance of 5% at most.

    The one-sided prediction limit of a normal distribution, mean + t s sqrt(1 + 1/n), and never less than the largest:
    one more of n like runs exceeds the largest alone with a chance of 1 / (n + 1).
    """
    n = len(sizes)
    spread = sizes.std(axis=0, ddof=1) * np.sqrt(1 + 1 / n)
    return np.maximum(sizes.mean(axis=0) + t.ppf(CONFIDENCE, n - 1) * spread, sizes.max(axis=0))
