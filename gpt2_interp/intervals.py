"""95% intervals for numbers of a set of examples or texts. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest, bootstrap
from scipy.stats import t as student

RESAMPLES = 2000


def interval(statistic: Callable, *data: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% percentile bootstrap bounds of a statistic of paired per-example arrays, examples resampled together."""
    result = bootstrap(
        data,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def share_interval(successes: int, n: int) -> tuple[float, float]:
    """95% Wilson bounds of a share; a bootstrap would have none around 0 or 1."""
    bounds = binomtest(successes, n).proportion_ci(method="wilson")
    return float(bounds.low), float(bounds.high)


def jackknife_interval(value: float, without: np.ndarray) -> tuple[float, float]:
    """value -+ t x the jackknife's standard error; without [n]: the statistic of the set without each of its n members.

    For what is a number of the whole set, such as the variety of its texts: a bootstrap draws members twice, and a set
    with copies in it has another variety. For any symmetric statistic the jackknife's variance is on average too large
    rather than too small (Efron and Stein 1981, The jackknife estimate of variance).
    """
    n = len(without)
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    half = float(student.ppf(0.975, n - 1)) * error
    return value - half, value + half
