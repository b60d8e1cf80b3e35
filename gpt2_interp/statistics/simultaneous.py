"""Statistics of changes over probes that come in clusters: simultaneous intervals by flipping and drawing clusters.

A unit is what a claim may be about: a head, a layer, each at one or several snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from gpt2_interp.statistics.intervals import RESAMPLES

CONFIDENCE = 0.95
FLIPS = 10_000
FEWEST_TO_TEST = 6  # clusters: 5 have 16 patterns of signs up to a common one: no p below 1/16
FEWEST_SEEDS = 5
CONSTANT = 1e-6  # differences that vary by less of their size are constant: what varies is rounding
ROUNDING = 1e-6  # by which a flipped t is taken as larger than it came out, so that ties count against a claim
MOST_SCATTER = 3.0  # times Student's t: a unit whose resamples scatter further is ruled by a few clusters
CHUNK = 1000  # flips at a time


@dataclass(frozen=True)
class Intervals:
    """Means over clusters with simultaneous intervals mean -+ critical * standard error, arrays of shape [*unit].

    p is adjusted for all units; it is at most 1 - confidence just where the interval excludes zero. Units defined in
    fewer than FEWEST_TO_TEST clusters have a mean and are NaN elsewhere. A unit whose differences are all equal
    but not zero, or which very few clusters rule, has an infinite interval and is none of those `critical` covers.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    critical: float
    patterns: int  # of signs that were compared

    @property
    def excludes_zero(self) -> np.ndarray:
        """Return [*unit] bool; False where undefined."""
        return (self.low > 0) | (self.high < 0)

    def at(self, index: int) -> Intervals:
        """The intervals of one index of the first unit axis."""
        return replace(self, **{name: getattr(self, name)[index] for name in ("mean", "low", "high", "p")})


def cluster_means(values: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Mean over the defined probes of each cluster: [probe, *unit] -> [cluster, *unit], clusters sorted by name.

    NaN where a cluster has no defined probe. `clusters` names the cluster of each probe.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    belongs = (index == np.arange(len(names))[:, None]).astype(float)  # [cluster, probe]
    flat = np.asarray(values, dtype=float).reshape(len(values), -1)
    defined = np.isfinite(flat)
    with np.errstate(invalid="ignore"):
        means = (belongs @ np.where(defined, flat, 0)) / (belongs @ defined.astype(float))
    return means.reshape(len(names), *np.shape(values)[1:])


def sign_patterns(n_cluster: int, flips: int = FLIPS, seed: int = 0) -> np.ndarray:
    """Signs to flip whole clusters with, [pattern, cluster] of +1 and -1; the first pattern flips nothing.

    Each possible pattern once where there are no more than `flips` (up to a common sign, which no |t| depends on);
    otherwise `flips` random ones.
    """
    if 2 ** (n_cluster - 1) <= flips:
        codes = np.arange(2 ** (n_cluster - 1))[:, None]
        signs = 1 - 2 * (codes >> np.arange(n_cluster) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(seed).integers(0, 2, (flips, n_cluster), dtype=np.int8)
        signs[0] = 1
    return signs.astype(float)


def simultaneous_intervals(
    differences: np.ndarray, confidence: float = CONFIDENCE, flips: int = FLIPS, seed: int = 0
) -> Intervals:
    """Compute simultaneous intervals of the means of paired differences [cluster, *unit], by flipping and drawing whole
    clusters.

    Max-T (Westfall & Young 1993): with t = mean / standard error, all units are compared with the largest |t|
    over units. `critical` is the larger of two quantiles of that.
    - Under random signs of whole clusters: an exact test of "nothing changed", if differences are then symmetric about
      0. It is too narrow an interval where many units changed, for these all flip alike, or where they are skewed.
    - Over whole clusters drawn with replacement, t being that of the draw's mean about the mean (bootstrap-t, Efron &
      Tibshirani 1993, ch. 12): of the right width in both cases, a little too wide for few clusters.
    """
    data = np.asarray(differences, dtype=float).reshape(len(differences), -1)  # [cluster, unit]
    defined = np.isfinite(data)
    count = defined.sum(axis=0)
    data = np.where(defined, data, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = data.sum(axis=0) / count
        residual = np.where(defined, data - mean, 0)
        squares = (residual**2).sum(axis=0)
        error = np.sqrt(squares / (count - 1) / count)
    enough = count >= FEWEST_TO_TEST
    judged = enough & (squares > CONSTANT**2 * (data**2).sum(axis=0))
    drawn = resampled_t(residual[:, judged], defined[:, judged], seed)
    steady = (drawn > MOST_SCATTER * stdtrit(count[judged] - 1, 0.995)).mean(axis=0) < 0.01
    judged[judged], drawn = steady, drawn[:, steady]

    critical, p, patterns = np.nan, np.where(enough, 1.0, np.nan), 0
    if judged.any():
        t = np.abs(mean[judged]) / error[judged]
        signs = sign_patterns(len(data), flips, seed)
        patterns = len(signs)
        flipped = largest_t(data[:, judged], count[judged], signs)
        flipped[0] = t.max() * (1 + ROUNDING)  # the differences as they are, at full precision
        largest = [np.sort(flipped), np.sort(drawn.max(axis=1))]
        critical = max(_quantile(each, confidence) for each in largest)
        p[judged] = np.maximum(*(_share_reaching(each, t) for each in largest))

    width = np.where(np.nan_to_num(mean) == 0, 0.0, np.inf)  # of what can't be judged
    width[judged] = critical * error[judged]
    width[~enough] = np.nan
    shape = np.shape(differences)[1:]
    mean, low, high, p = (array.reshape(shape) for array in (mean, mean - width, mean + width, p))
    return Intervals(mean, low, high, p, float(critical), patterns)


def largest_t(data: np.ndarray, count: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """The largest |t| over units for each pattern of signs: [pattern].

    data: [cluster, unit], 0 where undefined, no unit all 0; count: clusters where each unit is defined. Flips leave the
    sum of squares S as it is, so that with r = flipped sum / sqrt(n S), t^2 = (n - 1) r^2 / (1 - r^2): t grows with r,
    and among units of one n only the largest r is needed.
    """
    every = len(signs) == 2 ** (len(data) - 1)
    precision = np.float64 if every else np.float32  # few patterns are counted exactly; quantiles of many don't need it
    r = (data / np.sqrt(count * (data**2).sum(axis=0))).astype(precision)
    groups = [(n, np.ascontiguousarray(r[:, count == n])) for n in np.unique(count)]
    largest = np.zeros(len(signs))
    for start in range(0, len(signs), CHUNK):
        flipped = signs[start : start + CHUNK].astype(precision)
        for n, group in groups:
            products = flipped @ group
            top = np.minimum(np.abs(products, out=products).max(axis=1).astype(float), 1)
            with np.errstate(divide="ignore"):
                t = np.sqrt((n - 1) * top**2 / (1 - top**2))
            np.maximum(largest[start : start + CHUNK], t, out=largest[start : start + CHUNK])
    return largest * (1 + ROUNDING)


def resamples(n_cluster: int, seed: int = 0) -> np.ndarray:
    """Return how often each cluster occurs in each of RESAMPLES draws of n_cluster with replacement: [draw,
    cluster]."""
    chosen = np.random.default_rng(seed).integers(0, n_cluster, (RESAMPLES, n_cluster))
    places = chosen + n_cluster * np.arange(RESAMPLES)[:, None]
    return np.bincount(places.ravel(), minlength=RESAMPLES * n_cluster).reshape(RESAMPLES, n_cluster)


def resampled_t(residual: np.ndarray, defined: np.ndarray, seed: int = 0) -> np.ndarray:
    """|t| of each unit in RESAMPLES draws of as many clusters, with replacement: [draw, unit].

    residual: [cluster, unit] differences from the unit's mean, 0 where `defined` is False.
    """
    drawn = resamples(len(residual), seed).astype(np.float32)
    scaled = (residual / np.sqrt((residual**2).mean(axis=0))).astype(np.float32)
    count = drawn @ defined.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = drawn @ scaled / count
        variance = np.maximum(drawn @ scaled**2 / count - mean**2, 0)
        t = np.abs(mean) / np.sqrt(variance / (count - 1))
    return np.where(np.isnan(t), 0, t)  # a draw in which the unit is not defined says nothing


def _quantile(ordered: np.ndarray, confidence: float) -> float:
    """Return the value that a share of at most 1 - confidence of the values exceeds; infinite if that share is less
    than one value."""
    beyond = int((1 - confidence) * len(ordered) + 1e-9)
    return float(ordered[-1 - beyond]) if beyond else np.inf


def _share_reaching(ordered: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Share of the values that are at least t: [unit]."""
    return 1 - np.searchsorted(ordered, t, side="left") / len(ordered)


def reproduced(changes: np.ndarray, smallest: float | np.ndarray = 0.0) -> np.ndarray | None:
    """Return whether runs that differ only in their seed agree: [run, unit] -> [unit] bool; None for fewer than
    FEWEST_SEEDS.

    They do if the t interval of the mean over runs excludes zero, simultaneously over units (Sidak 1967: each at
    confidence^(1/units), which dependence between units can only make wider than needed), and the mean is no smaller
    than `smallest`.
    """
    n = len(changes)
    if n < FEWEST_SEEDS:
        return None
    mean, error = changes.mean(axis=0), changes.std(axis=0, ddof=1) / np.sqrt(n)
    n_unit = max(1, int(np.isfinite(mean).sum()))
    critical = stdtrit(n - 1, 1 - (1 - CONFIDENCE ** (1 / n_unit)) / 2)
    return (np.abs(mean) > critical * error) & (np.abs(mean) >= smallest)
