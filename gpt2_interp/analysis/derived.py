"""Numbers computed from stored arrays: intruder dimensions and changed neurons."""

from __future__ import annotations

import numpy as np

from gpt2_interp.statistics.intervals import nan_mean

EPSILON = 0.5  # Shuttleworth et al. 2024


CURVE = np.linspace(0, 1, 21)


def most_sink(values: np.ndarray) -> float:
    """Return the largest share of attention that any head gives to the first token, at the first or the last snapshot.

    values: attn_sink, [step, probe, ...]; a head's share is its mean over probes. NaN where it is not defined.
    """
    ends = nan_mean(values[[0, -1]], axis=1)
    return float(np.nanmax(ends)) if np.isfinite(ends).any() else np.nan


def intruders(cosines: np.ndarray, eps: float = EPSILON) -> np.ndarray:
    """Number of intruders, directions with a largest cosine below `eps`: [...] of intruder_cosine [..., intruder].

    NaN where no direction has a cosine (a matrix of zeros, or one that diverged).
    """
    return intruder_curve(cosines, np.array([eps]))[..., 0]


def intruder_curve(cosines: np.ndarray, eps: np.ndarray = CURVE) -> np.ndarray:
    """Count intruders for every threshold of eps [n]: [..., n]. The count never falls, and at eps > 1 it is the number
    of directions that were looked at."""
    counts = (cosines[..., None] < eps).sum(-2).astype(float)
    return np.where(np.isnan(cosines).all(-1)[..., None], np.nan, counts)


SD_FLOOR = 5  # percentile of a layer's SDs: a neuron that hardly varied would have any change for a large one


def neuron_change(mean_t: np.ndarray, mean_0: np.ndarray, sd_0: np.ndarray) -> np.ndarray:
    """z = (mean_t - mean_0) / max(sd_0, the layer's 5th percentile of sd_0): [..., layer, d_mlp].

    In standard deviations of a token, not of the mean. NaN where both of these are 0, or an input is NaN.
    """
    sd_0 = np.asarray(sd_0, dtype=np.float64)
    scale = np.maximum(sd_0, np.percentile(sd_0, SD_FLOOR, axis=-1, keepdims=True))
    change = np.asarray(mean_t, dtype=np.float64) - mean_0
    return np.divide(change, scale, out=np.full(change.shape, np.nan), where=scale > 0)


def most_changed(z_first_half: np.ndarray, per_layer: int) -> np.ndarray:
    """The `per_layer` neurons with the largest |z| in each layer, the largest first: [layer, per_layer] indices.

    z_first_half: [layer, d_mlp]; NaN comes last, and of equal ones the first neuron comes first. With fewer than
    `per_layer` neurons, all of them.
    """
    size = np.where(np.isnan(z_first_half), -1, np.abs(z_first_half))
    return np.argsort(-size, axis=-1, kind="stable")[:, :per_layer]
