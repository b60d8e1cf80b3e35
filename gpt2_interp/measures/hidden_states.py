"""How far the hidden states of the probes have moved, from pooled states stored in snapshots. Imports no torch.

X: [example, hidden_layer, d_model]. An example that has NaN in either state (a pooling that it lacks) is left out.
"""

from __future__ import annotations

import numpy as np

MINIMUM_PROBES = 4  # the debiased HSIC divides by n (n - 3)


def displacement(X_t: np.ndarray, X_0: np.ndarray) -> np.ndarray:
    """||X_t - X_0||_F / ||Xc_0||_F per layer, Xc centred over examples: [hidden_layer]. The base itself is 0."""
    moved, spread = _moved_and_spread(X_t, X_0)
    return _ratio(np.sqrt(np.nansum(moved**2, axis=0)), np.sqrt(np.nansum(spread**2, axis=0)), spread)


def displacement_per_example(X_t: np.ndarray, X_0: np.ndarray) -> np.ndarray:
    """||x_t - x_0|| of each example over the mean ||xc_0||: [example, hidden_layer]; NaN for an example left out."""
    moved, spread = _moved_and_spread(X_t, X_0)
    total = np.nansum(spread, axis=0)
    return _ratio(moved * (~np.isnan(spread)).sum(axis=0), np.broadcast_to(total, moved.shape), spread)


def _moved_and_spread(X_t: np.ndarray, X_0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms of x_t - x_0 and of x_0 centred over examples, each [example, hidden_layer], NaN for those left out."""
    X_t, X_0 = X_t.astype(np.float64), X_0.astype(np.float64)
    absent = np.isnan(X_t).any(axis=-1) | np.isnan(X_0).any(axis=-1)  # [example, hidden_layer]
    X_0 = np.where(absent[..., None], np.nan, X_0)
    n = np.maximum((~absent).sum(axis=0), 1)[:, None]  # [hidden_layer, 1]
    centre = np.nansum(X_0, axis=0) / n  # [hidden_layer, d_model]
    return np.linalg.norm(X_t - X_0, axis=-1), np.linalg.norm(X_0 - centre, axis=-1)


def _ratio(above: np.ndarray, below: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """above / below; NaN where fewer than MINIMUM_PROBES examples remain or the base has no spread at all."""
    enough = (~np.isnan(spread)).sum(axis=0) >= MINIMUM_PROBES  # [hidden_layer]
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=enough & (below > 0))


def cka_debiased(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Debiased linear CKA of two states of the same examples: [hidden_layer]. 1 alike, 0 unrelated, can be below 0.

    X, Y: [example, hidden_layer, d]; d may differ. NaN with fewer than 4 examples or without any structure.
    """
    result = np.full(X.shape[1], np.nan)
    for layer in range(X.shape[1]):
        x, y = X[:, layer].astype(np.float64), Y[:, layer].astype(np.float64)
        present = ~(np.isnan(x).any(axis=1) | np.isnan(y).any(axis=1))
        if present.sum() < MINIMUM_PROBES:
            continue
        x, y = x[present] - x[present].mean(axis=0), y[present] - y[present].mean(axis=0)  # HSIC1 ignores the mean,
        K, L = x @ x.T, y @ y.T  # [example, example]                                        rounding errors do not
        scale = hsic1(K, K) * hsic1(L, L)
        if scale > 0:
            result[layer] = hsic1(K, L) / np.sqrt(scale)
    return result


def hsic1(K: np.ndarray, L: np.ndarray) -> float:
    """Unbiased HSIC of Song et al. 2012; K, L: [n, n] Gram matrices, n >= 4."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    trace = np.sum(K * L.T)
    means = K.sum() * L.sum() / ((n - 1) * (n - 2))
    cross = 2 / (n - 2) * K.sum(axis=0) @ L.sum(axis=1)
    return float((trace + means - cross) / (n * (n - 3)))
