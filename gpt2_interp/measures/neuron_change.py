"""How far the mean activation of MLP neurons has moved, and which neurons moved most. Imports no torch.

Neurons chosen for a large change would show one even in noise: choose them on the first half of the probes and report
the second.
"""

from __future__ import annotations

import numpy as np

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
