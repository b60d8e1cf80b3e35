"""How many of a tuned matrix's main directions the base did not have. From stored cosines; needs no torch."""

from __future__ import annotations

import numpy as np

EPSILON = 0.5  # Shuttleworth et al. 2024
CURVE = np.linspace(0, 1, 21)


def intruders(cosines: np.ndarray, eps: float = EPSILON) -> np.ndarray:
    """Number of intruders, directions with a largest cosine below `eps`: [...] of intruder_cosine [..., intruder].

    NaN where no direction has a cosine (a matrix of zeros, or one that diverged).
    """
    return intruder_curve(cosines, np.array([eps]))[..., 0]


def intruder_curve(cosines: np.ndarray, eps: np.ndarray = CURVE) -> np.ndarray:
    """The same for every threshold of eps [n]: [..., n]. It never falls, and its end at eps > 1 is the number of
    directions that were looked at."""
    counts = (cosines[..., None] < eps).sum(-2).astype(float)
    return np.where(np.isnan(cosines).all(-1)[..., None], np.nan, counts)
