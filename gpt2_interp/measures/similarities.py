"""Likeness of two Gram matrices: CKA, rank correlation, nearest neighbours.

K, L: [..., n, n] Gram matrices of the same n examples, of a whole sample or of a stack of half-samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

N_NEIGHBOURS = 10


def hsic1(K: np.ndarray, L: np.ndarray) -> np.ndarray:
    """Unbiased HSIC of Song et al. 2012; K, L: [..., n, n] symmetric Gram matrices, n >= 4 -> [...]."""
    return _hsic1(_hollow(K), _hollow(L))


def cka_of_grams(K: np.ndarray, L: np.ndarray) -> np.ndarray:
    """HSIC1(K, L) / sqrt(HSIC1(K, K) HSIC1(L, L)): [..., n, n] -> [...]; NaN where one of those is not above 0."""
    K, L = _hollow(K), _hollow(L)
    kk, ll = _hsic1(K, K), _hsic1(L, L)
    defined = (kk > 0) & (ll > 0)
    return _hsic1(K, L) / np.sqrt(np.where(defined, kk * ll, np.nan))


def cka_within(K: np.ndarray, L: np.ndarray, clusters: Sequence[str], fewest: int = 4) -> float:
    """CKA of examples compared within their cluster alone: each HSIC1 is summed over the clusters of `fewest` examples
    or more, then the ratio is taken. What the clusters themselves have in common can't make it high.

    K, L: [n, n] Gram matrices; clusters: [n] names. NaN where no cluster is large enough, or a sum is not above 0.
    """
    sums = np.zeros(3)  # HSIC1 of K and L, of K alone, of L alone
    names = np.array(clusters)
    for name, count in zip(*np.unique(names, return_counts=True), strict=True):
        if count >= fewest:
            rows = np.flatnonzero(names == name)
            k, l_ = K[np.ix_(rows, rows)], L[np.ix_(rows, rows)]
            sums += [hsic1(k, l_), hsic1(k, k), hsic1(l_, l_)]
    return float(sums[0] / np.sqrt(sums[1] * sums[2])) if (sums[1:] > 0).all() else np.nan


def cosines(K: np.ndarray) -> np.ndarray:
    """Cosines of all pairs from the Gram matrix of their vectors: [..., n, n]; NaN for a vector of no length.

    float32 from float64: cosines that differ by rounding alone (of probes that are equal) become equal, so that no
    rank depends on it.
    """
    length = np.sqrt(np.clip(np.diagonal(K, axis1=-2, axis2=-1), 0, None))  # [..., n]
    inverse = np.divide(1, length, out=np.full(length.shape, np.nan), where=length > 0)
    return (K * inverse[..., :, None] * inverse[..., None, :]).astype(np.float32)


def spearman(C: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Spearman correlation of the upper triangles, without the diagonal: [..., n, n] -> [...].

    NaN where one has a NaN or all its values are equal.
    """
    n = C.shape[-1]
    row, column = np.triu_indices(n, 1)
    pairs = [M.reshape(-1, n * n).take(row * n + column, axis=1) for M in (C, D)]
    a, b = (ranks(values).reshape(*C.shape[:-2], -1) - (len(row) + 1) / 2 for values in pairs)
    scale = np.sqrt(np.einsum("...i,...i", a, a) * np.einsum("...i,...i", b, b))
    return np.einsum("...i,...i", a, b) / np.where(scale > 0, scale, np.nan)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 in each row, the mean rank where values are equal: [rows, m]; a row that has a NaN is NaN."""
    rows, m = values.shape
    order = values.argsort(axis=1)
    order += np.arange(rows)[:, None] * m  # places in the flattened array
    ordered = values.ravel()[order]
    begins = np.ones(values.shape, dtype=bool)  # a value that its predecessor does not equal
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=values.size)
    flat = np.empty(values.size)
    flat[order.ravel()] = np.repeat(starts % m + (lengths + 1) / 2, lengths)
    result = flat.reshape(rows, m)
    result[np.isnan(ordered[:, -1])] = np.nan  # NaN is sorted last
    return result


def shared_neighbours(C: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Mean share of each row's 10 largest entries, the diagonal left out, that C and D share: [..., n, n] -> [...].

    NaN for n <= 11 and where one has a NaN.
    """
    if C.shape[-1] <= N_NEIGHBOURS + 1:
        return np.full(C.shape[:-2], np.nan)
    both = _nearest(C) & _nearest(D)
    undefined = np.isnan(C).any(axis=(-1, -2)) | np.isnan(D).any(axis=(-1, -2))
    return np.where(undefined, np.nan, both.mean(axis=(-1, -2)) * C.shape[-1] / N_NEIGHBOURS)


def _nearest(C: np.ndarray) -> np.ndarray:
    """Return [..., n, n] bool, the 10 largest of each row without the diagonal; of equal ones the first."""
    nearness = C.copy()
    diagonal = np.arange(C.shape[-1])
    nearness[..., diagonal, diagonal] = -np.inf
    least = np.partition(nearness, -N_NEIGHBOURS, axis=-1)[..., -N_NEIGHBOURS, None]
    near = nearness >= least
    if (near.sum(axis=-1) > N_NEIGHBOURS).any():
        above, equal = nearness > least, nearness == least
        room = N_NEIGHBOURS - above.sum(axis=-1, keepdims=True)
        near = above | (equal & (equal.cumsum(axis=-1) <= room))
    return near


def _hsic1(K: np.ndarray, L: np.ndarray) -> np.ndarray:
    """Compute `hsic1` of matrices without diagonals."""
    n = K.shape[-1]
    k, m = K.sum(axis=-1), L.sum(axis=-1)  # each [..., n]
    trace = np.einsum("...ij,...ij", K, L)
    means = k.sum(axis=-1) * m.sum(axis=-1) / ((n - 1) * (n - 2))
    return (trace + means - 2 / (n - 2) * np.einsum("...i,...i", k, m)) / (n * (n - 3))


def _hollow(K: np.ndarray) -> np.ndarray:
    K = K.copy()
    diagonal = np.arange(K.shape[-1])
    K[..., diagonal, diagonal] = 0
    return K


def centred(K: np.ndarray) -> np.ndarray:
    """The Gram matrices that K's vectors have after centring: [..., n, n]."""
    mean = K.mean(axis=-1)
    K = K - mean[..., :, None]
    K -= (mean - mean.mean(axis=-1, keepdims=True))[..., None, :]
    return K
