"""Movement of the probes' hidden states, from pooled states.

X: [example, hidden_layer, d_model] of one pooling; X_t is measured, X_0 is the base. An example that has NaN (a pooling
that it lacks) or infinity in any of the states compared is left out. Where fewer than MINIMUM_PROBES remain, or they
have no spread at all, a measure is NaN.

CKA, RSA and nearest neighbours are computed from Gram matrices (similarities.py), of all examples and of stacks of
half-samples alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_interp.measures.similarities import centred, cka_of_grams, cka_within, cosines, shared_neighbours, spearman
from gpt2_interp.snapshots.table import POOLINGS, REFERENCES, SPREAD

MINIMUM_PROBES = 4  # the debiased HSIC divides by n (n - 3)
N_COMPONENTS = 16  # of Procrustes
N_PERMUTATIONS = 20  # of its chance value
N_HALF_SAMPLES = 200
SEED = 0  # of permutations and half-samples: the same ones at every snapshot and layer
_STACK_SIZE = 2**18  # similarities worked on at once; more would not stay in the processor's cache


def hidden_measures(
    X_t: np.ndarray,
    X_0: np.ndarray,
    X_prev: np.ndarray | None = None,
    half_samples: bool = True,
    clusters: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Compute every row of the measure table's HIDDEN but hidden_pooled, by name, with the table's axes, float32.

    X_t, X_0, X_prev: [example, pooling, hidden_layer, d_model] of this snapshot, the base and the previous snapshot;
    without X_prev what is compared with it is NaN. half_samples: whether to compute the spread over half-samples, which
    takes most of the time. clusters: [example] names; without them what is compared within clusters is NaN.
    """
    assert X_t.shape == X_0.shape and X_t.shape[1] == len(POOLINGS)
    moved, spread = _moved_and_spread(X_t, X_0)
    states = [X for X in (X_t, X_0, X_prev) if X is not None]
    n_pooling, n_layer = X_t.shape[1:3]
    each = [
        [_layer_measures(*_present(*(X[:, pooling, layer] for X in states))) for layer in range(n_layer)]
        for pooling in range(n_pooling)
    ]
    target = POOLINGS.index("target_mean")
    pairs = [_present(X_t[:, target, layer], X_0[:, target, layer]) for layer in range(n_layer)]
    halves = [_half_samples(*pair) if half_samples else {} for pair in pairs]
    result = {
        "hidden_displacement": _each_displacement(moved, spread),
        "hidden_norm": np.linalg.norm(X_t, axis=-1),
        "displacement": _total_displacement(moved, spread),
        **{name: np.array([[layer[name] for layer in pooling] for pooling in each]) for name in each[0][0]},
        **{name: np.array([layer[name] for layer in halves]) for name in halves[0]},
        "cka_within_clusters": _within_clusters(X_t, X_0, clusters),
    }
    return {name: values.astype(np.float32) for name, values in result.items()}


def _layer_measures(*states: np.ndarray) -> dict[str, object]:
    """All measures of one layer that compare whole samples: a number each, or one for each reference.

    states: x_t, x_0 and, where there is one, x_prev: [n, d_model] of the same n examples.
    """
    result: dict[str, object] = dict.fromkeys(("cka_debiased", "cka_scaled"), np.full(len(REFERENCES), np.nan))
    result |= dict.fromkeys(("procrustes", "procrustes_chance", "rsa", "knn_overlap"), np.nan)
    result |= dict.fromkeys(("anisotropy", "anisotropy_top3"), np.nan)
    if len(states[0]) < MINIMUM_PROBES:
        return result
    result["anisotropy"], result["anisotropy_top3"] = _anisotropy(states[0])
    states = tuple(x - x.mean(axis=0) for x in states)
    grams = [x @ x.T for x in states]
    C_t, C_0 = cosines(grams[0]), cosines(grams[1])
    result["rsa"], result["knn_overlap"] = spearman(C_t, C_0), shared_neighbours(C_t, C_0)
    result["procrustes"], result["procrustes_chance"] = _procrustes(states[0], states[1], grams[1])
    result["cka_debiased"] = _cka_to_references(grams)
    scaled = [_scaled(x, states[1]) for x in states]
    result["cka_scaled"] = _cka_to_references([x @ x.T for x in scaled])
    return result


def _within_clusters(X_t: np.ndarray, X_0: np.ndarray, clusters: Sequence[str] | None) -> np.ndarray:
    """CKA within clusters to the base, [pooling, hidden_layer]; X: [example, pooling, hidden_layer, d_model]."""
    result = np.full(X_t.shape[1:3], np.nan)
    for index in np.ndindex(result.shape) if clusters is not None else ():
        states = X_t[(slice(None), *index)], X_0[(slice(None), *index)]
        present = _is_present(*states)
        if present.any():
            K, L = (_gram(x[present].astype(np.float64)) for x in states)
            result[index] = cka_within(K, L, np.array(clusters)[present].tolist(), MINIMUM_PROBES)
    return result


def displacement_per_example(X_t: np.ndarray, X_0: np.ndarray) -> np.ndarray:
    """||x_t - x_0|| of each example over the mean ||xc_0||: [example, ..., d_model] -> [example, ...].

    NaN for an example left out. The axes between are any: hidden_layer, or pooling and hidden_layer.
    """
    return _each_displacement(*_moved_and_spread(X_t, X_0))


# --- of one layer ------------------------------------------------------------------------------------------------


def _half_samples(x_t: np.ndarray, x_0: np.ndarray) -> dict[str, np.ndarray]:
    """cka_, rsa_ and knn_half_samples of one layer, each [spread]: mean, 2.5% and 97.5%; x: [n, d_model].

    It is taken on N_HALF_SAMPLES fixed halves of the examples, each drawn without replacement: with it, copies of an
    example would look alike.
    """
    n = len(x_t)
    names = ("cka_half_samples", "rsa_half_samples", "knn_half_samples")
    half = n // 2
    if half < MINIMUM_PROBES:
        return dict.fromkeys(names, np.full(len(SPREAD), np.nan))
    K_t, K_0 = _gram(x_t).ravel(), _gram(x_0).ravel()
    drawn = np.random.default_rng(SEED).permuted(np.tile(np.arange(n), (N_HALF_SAMPLES, 1)), axis=1)[:, :half]
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for rows in np.array_split(drawn, -(-drawn.size * half // _STACK_SIZE)):
        pairs = rows[:, :, None] * n + rows[:, None, :]  # [half-sample, half, half]
        K, L = centred(K_t[pairs]), centred(K_0[pairs])
        C, D = cosines(K), cosines(L)
        for name, value in zip(names, (cka_of_grams(K, L), spearman(C, D), shared_neighbours(C, D)), strict=True):
            values[name].append(value)
    return {name: _spread(np.concatenate(parts)) for name, parts in values.items()}


def _spread(values: np.ndarray) -> np.ndarray:
    """Mean, 2.5% and 97.5% of those that are defined: [spread]."""
    values = values[~np.isnan(values)]
    return (
        np.array([values.mean(), *np.percentile(values, [2.5, 97.5])]) if len(values) else np.full(len(SPREAD), np.nan)
    )


def _is_present(*states: np.ndarray) -> np.ndarray:
    """Return [example] bool, which have a finite vector in all states, each [example, d]."""
    return np.logical_and.reduce([np.isfinite(x).all(axis=-1) for x in states])


def _present(*states: np.ndarray) -> list[np.ndarray]:
    """The states [example, d] of the examples that all of them have, float64."""
    present = _is_present(*states)
    return [x[present].astype(np.float64) for x in states]


def _gram(x: np.ndarray) -> np.ndarray:
    """Gram matrix [n, n] of x: [n, d] centred over examples."""
    x = x - x.mean(axis=0)
    return x @ x.T


def _cka_to_references(grams: list[np.ndarray]) -> np.ndarray:
    """Debiased linear CKA of the first with each of the others: [reference], NaN where there is no previous snapshot.

    1 alike, 0 unrelated, can be below 0. (Song et al. 2012; Nguyen et al. 2021; Murphy et al. 2024)
    """
    values = [cka_of_grams(grams[0], K) for K in grams[1:]]
    return np.array(values + [np.nan] * (len(REFERENCES) - len(values)))


def _scaled(x: np.ndarray, x_0: np.ndarray) -> np.ndarray:
    """x [n, d] divided by the SD of x_0 in each dimension, without dimensions where that is 0."""
    sd = x_0.std(axis=0)
    return x[:, sd > 0] / sd[sd > 0]


def _procrustes(x_t: np.ndarray, x_0: np.ndarray, K_0: np.ndarray) -> tuple[float, float]:
    """1 - ||A'B||_*, A and B the states in the base's widest directions, each / ||.||_F, and its chance value: the mean
    over N_PERMUTATIONS fixed permutations of the examples of x_t.

    x_t, x_0: [n, d] centred; K_0: Gram matrix of x_0. The directions are the first min(16, n - 1, d) principal
    components of x_0, without those of no variance. 0 is the same but for rotation and scale. (Ding et al. 2021)
    """
    n, d = x_0.shape
    variance, U = np.linalg.eigh(K_0)  # ascending
    kept = variance > max(variance[-1], 0) * 1e-10
    kept[: n - min(N_COMPONENTS, n - 1, d)] = False
    A = U[:, kept] * np.sqrt(variance[kept])  # [n, component] = x_0 projected on its components
    B = x_t @ (x_0.T @ (U[:, kept] / np.sqrt(variance[kept])))  # [n, component]
    scale = np.linalg.norm(A) * np.linalg.norm(B)
    if not scale > 0:
        return np.nan, np.nan
    shuffles = np.random.default_rng(SEED).permuted(np.tile(np.arange(n), (N_PERMUTATIONS, 1)), axis=1)
    rows = np.concatenate([np.arange(n)[None], shuffles])  # [1 + permutation, n]
    nuclear = np.linalg.svd(A.T @ B[rows], compute_uv=False).sum(axis=-1)  # [1 + permutation]
    distance = np.clip(1 - nuclear / scale, 0, 1)  # rounding alone leads outside
    return distance[0], distance[1:].mean()


def _anisotropy(x: np.ndarray) -> tuple[float, float]:
    """Mean cosine of two different examples, not centred, and the share of it that the 3 dimensions with the largest
    contributions give; x: [n, d].

    Dimension k contributes the mean over pairs of x_k y_k / (|x| |y|); others may be negative, so the share may exceed
    1. It is NaN where the mean is not above 0. (Ethayarajh 2019; Timkey & van Schijndel 2021)
    """
    n = len(x)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not (length > 0).all():
        return np.nan, np.nan
    unit = x / length
    parts = (unit.sum(axis=0) ** 2 - (unit**2).sum(axis=0)) / (n * (n - 1))  # [d], of all ordered pairs i != j
    mean = parts.sum()
    return mean, np.sort(parts)[-3:].sum() / mean if mean > 0 else np.nan


def _moved_and_spread(X_t: np.ndarray, X_0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms of x_t - x_0 and of x_0 centred over examples, each [example, ...], NaN for those left out."""
    moved, spread = np.full(X_t.shape[:-1], np.nan), np.full(X_t.shape[:-1], np.nan)
    for index in np.ndindex(X_t.shape[1:-1]):
        states = X_t[(slice(None), *index)], X_0[(slice(None), *index)]
        present = _is_present(*states)
        if not present.any():
            continue
        x_t, x_0 = (x[present].astype(np.float64) for x in states)
        moved[(present, *index)] = np.linalg.norm(x_t - x_0, axis=-1)
        spread[(present, *index)] = np.linalg.norm(x_0 - x_0.mean(axis=0), axis=-1)
    return moved, spread


def _total_displacement(moved: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return _ratio(np.sqrt(np.nansum(moved**2, axis=0)), np.sqrt(np.nansum(spread**2, axis=0)), spread)


def _each_displacement(moved: np.ndarray, spread: np.ndarray) -> np.ndarray:
    total = np.nansum(spread, axis=0)
    return _ratio(moved * (~np.isnan(spread)).sum(axis=0), np.broadcast_to(total, moved.shape), spread)


def _ratio(above: np.ndarray, below: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """above / below; NaN where fewer than MINIMUM_PROBES examples remain or the base has no spread at all."""
    enough = (~np.isnan(spread)).sum(axis=0) >= MINIMUM_PROBES  # [...]
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=enough & (below > 0))
