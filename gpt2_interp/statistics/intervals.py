"""95% intervals for numbers of a set of examples or texts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

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
    """Return value -+ t x the jackknife's standard error; without [n]: the statistic of the set without each of its n
    members.

    For what is a number of the whole set, such as the variety of its texts: a bootstrap draws members twice, and a set
    with copies in it has another variety. For any symmetric statistic the jackknife's variance is on average too large
    rather than too small (Efron and Stein 1981, The jackknife estimate of variance).
    """
    n = len(without)
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    half = float(student.ppf(0.975, n - 1)) * error
    return value - half, value + half


DRAWS = 1000


FEWEST_TO_RESAMPLE = 10  # clusters; below this, resampling whole clusters says little


def nan_mean(array: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean of the defined (finite) values; NaN where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(np.where(np.isfinite(array), array, np.nan), axis=axis)


def bootstrap_band(values: np.ndarray, clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Mean over probes with a 95% percentile bootstrap band, probes with equal weight.

    values [step, example] -> mean, low, high [step], and the band's name. Whole clusters are drawn, because the probes
    of one are not independent; with fewer than FEWEST_TO_RESAMPLE of them single probes are, and the name says so.
    """
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    by_cluster = len(names) >= FEWEST_TO_RESAMPLE
    if not by_cluster:
        cluster_of = np.arange(values.shape[1])
    units = cluster_of.max() + 1
    random = np.random.default_rng(0)
    counts = random.multinomial(units, np.full(units, 1 / units), size=DRAWS)  # [draw, unit]
    weights = counts[:, cluster_of].astype(float)  # [draw, example]
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ np.where(defined, values, 0).T) / (weights @ defined.T)  # [draw, step]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    drawn = f"{units} clusters of probes" if by_cluster and units < values.shape[1] else f"{units} probes"
    return nan_mean(values, axis=1), low, high, f"95% bootstrap over {drawn}"


def difference_band(
    values: np.ndarray, clusters: Sequence[str], others: np.ndarray, other_clusters: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of `values` - mean of `others`, probes with equal weight, with a 95% percentile bootstrap band: each [step].

    values, others: [step, probe] of two sets of probes. A cluster that both have is drawn for both at once; with fewer
    than FEWEST_TO_RESAMPLE clusters single probes are drawn, of each set for itself.
    """
    n = values.shape[1]
    both = np.concatenate([values, others], axis=1)
    first = np.arange(both.shape[1]) < n
    names, cluster_of = np.unique(np.array([*clusters, *other_clusters]), return_inverse=True)
    random = np.random.default_rng(0)
    if len(names) >= FEWEST_TO_RESAMPLE:
        drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)[:, cluster_of]
    else:
        sizes = (n, others.shape[1])
        drawn = np.concatenate([random.multinomial(k, np.full(k, 1 / k), size=DRAWS) for k in sizes], axis=1)
    defined = np.isfinite(both)
    filled = np.where(defined, both, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        near, far = (((drawn * own) @ filled.T) / ((drawn * own) @ defined.T) for own in (first, ~first))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(near - far, [2.5, 97.5], axis=0)
    return nan_mean(values, axis=1) - nan_mean(others, axis=1), low, high


def estimate(values: np.ndarray) -> dict[str, float | None]:
    """Mean of values [row, k], NaN left out, with 95% bounds from resampling rows; None where undefined."""
    counts, sums = np.isfinite(values).sum(axis=1), np.nansum(values, axis=1)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if not len(counts):
        return {"value": None, "low": None, "high": None}
    low = high = None
    if len(counts) > 1:
        low, high = interval(lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis), sums, counts)
    return {"value": float(sums.sum() / counts.sum()), "low": low, "high": high}
