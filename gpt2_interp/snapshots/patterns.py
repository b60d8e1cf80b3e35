"""Attention patterns without the keys that a query can't see: a square [query, key] as one row of its lower triangle.

Query i with keys 0..i stands at i(i+1)/2 .. i(i+1)/2 + i. Half the bytes of the square.
"""

from __future__ import annotations

import math

import numpy as np


def fold_patterns(square: np.ndarray) -> np.ndarray:
    """Fold [..., query, key] into [..., query_key] of n(n+1)/2: the keys j <= i of each query i, row by row."""
    n = square.shape[-1]
    assert square.shape[-2] == n, f"queries and keys must be as many: {square.shape}"
    rows, columns = np.tril_indices(n)
    return square[..., rows, columns]


def unfold_patterns(folded: np.ndarray) -> np.ndarray:
    """Unfold [..., query_key] into float32 [..., query, key]; keys j > i have no value (NaN, not 0)."""
    size = folded.shape[-1]
    n = (math.isqrt(8 * size + 1) - 1) // 2
    assert n * (n + 1) // 2 == size, f"{size} is no triangle n(n+1)/2"
    square = np.full((*folded.shape[:-1], n, n), np.nan, dtype=np.float32)
    rows, columns = np.tril_indices(n)
    square[..., rows, columns] = folded
    return square
