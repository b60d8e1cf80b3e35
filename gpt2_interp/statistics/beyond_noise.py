"""Whether a change exceeds what random perturbations of the model do to the same unit.

Units differ in how loud they are: noise moves a copying head's scores a hundred times as far as another head's. So each
change is counted in multiples of what noise does to its own unit (studentised), and the largest multiple over units is
what the band is made of.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpt2_interp.statistics.intervals import nan_mean

CONFIDENCE = 0.95


def times_noise(change: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return |change| / root mean square of the draws, [unit]; change [unit], draws [draw, unit].

    NaN where the change or all draws are undefined, or where neither a draw nor the change moves the unit at all.
    Infinite where only the change does.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(change) / np.sqrt(nan_mean(draws**2, axis=0))


def draws_against_others(draws: np.ndarray) -> np.ndarray:
    """Return for each draw and unit |draw| / root mean square of the other draws, [draw, unit]; 0 where undefined.

    This is what `times_noise` gives for a change that is one more draw.
    """
    defined = np.isfinite(draws)
    squares = np.where(defined, draws, 0) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        others = (squares.sum(axis=0) - squares) / (defined.sum(axis=0) - defined)
        times = np.sqrt(squares / np.maximum(others, 0))
    return np.where(np.isfinite(times), times, 0)


def noise_band(draws: np.ndarray) -> float:
    """Return how many times its own noise a change must be to exceed what noise does to any unit: draws [draw, unit].

    Of one more draw of noise, the largest multiple over units exceeds the band with a probability of 5% at most; it
    is infinite where the draws are too few for that (below 19).
    """
    return _largest_but_few(draws_against_others(draws).max(axis=1, initial=0))


def beyond_noise(change: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return [unit] bool, whether each change exceeds the band of its measure; change [unit], draws [draw, unit]."""
    return times_noise(change, draws) > noise_band(draws)  # NaN exceeds nothing


def beyond_noise_in_any(changes: Mapping[str, np.ndarray], draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return [unit] bool for each measure, with one error rate over the units of all measures together.

    Step-down max-T (Romano & Wolf 2005, Exact and approximate stepdown methods): the band is that of the largest
    multiple over the units that are not yet found; what exceeds it is found, and leaves. Draw k must be the same
    perturbation in every measure, for the bands use how measures move together. Of one more draw of noise, anything at
    all is found with a probability of 5% at most.
    """
    names = list(changes)
    if not names:
        return {}
    times = {name: times_noise(changes[name], draws[name]) for name in names}
    of_draws = {name: draws_against_others(draws[name]) for name in names}
    found = {name: np.zeros(len(times[name]), bool) for name in names}
    while True:
        largest = np.stack([np.where(found[name], 0, of_draws[name]).max(axis=1, initial=0) for name in names])
        band = _largest_but_few(largest.max(axis=0))
        new = {name: ~found[name] & (times[name] > band) for name in names}
        if not any(mask.any() for mask in new.values()):
            return found
        found = {name: found[name] | new[name] for name in names}


def _largest_but_few(largest: np.ndarray) -> float:
    """Return the value of `largest` [draw] that one more draw exceeds with a probability of 1 - CONFIDENCE at most."""
    beyond = int((1 - CONFIDENCE) * (len(largest) + 1) + 1e-9)  # draws, the new one among them, that may lie higher
    return float(np.sort(largest)[-beyond]) if beyond else np.inf
