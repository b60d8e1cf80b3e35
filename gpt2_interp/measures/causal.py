"""Numbers of what a model takes from its source: losses behind another source, and articles with one fact swapped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def context_gain(
    own: Sequence[np.ndarray], other: Sequence[np.ndarray | None], copied: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """context_gain, context_gain_copied and context_gain_new: each [example] float32, nats per token.

    own, other: for each example the negative log-likelihood of every target token, [n_target], behind its own and
    behind another source; None where there is no other. copied: [n_target] bool, which tokens the second array is
    about; the third is about the rest. NaN where there is no such token.
    """
    gains = np.full((3, len(own)), np.nan, dtype=np.float32)
    for index, (near, far, mask) in enumerate(zip(own, other, copied, strict=True)):
        if far is None:
            continue
        assert near.shape == far.shape == mask.shape, "the same target behind both sources"
        gain = far.astype(np.float64) - near
        for row, chosen in enumerate((gain, gain[mask], gain[~mask])):
            if chosen.size:
                gains[row, index] = chosen.mean()
    return dict(zip(("context_gain", "context_gain_copied", "context_gain_new"), gains, strict=True))


def twin_effect(log_odds: np.ndarray) -> dict[str, np.ndarray]:
    """twin_effect in nats and twin_right, 0 or 1: each [pair] float32.

    log_odds: [pair, 2], log p(v) - log p(v') behind x, which states v, and behind x', which states v'. The effect is
    half their difference: what the model prefers anyhow cancels. Right are pairs whose both orders are. NaN where a
    log-odds is.
    """
    first, second = np.asarray(log_odds, dtype=np.float64).reshape(-1, 2).T
    right = np.where(np.isnan(first) | np.isnan(second), np.nan, (first > 0) & (second < 0))
    return {"twin_effect": ((first - second) / 2).astype(np.float32), "twin_right": right.astype(np.float32)}
