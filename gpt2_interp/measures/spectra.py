"""Directions in which each weight matrix has changed, and main directions that the base did not have.

Everything comes from the eigenvalues of W'W or W W', whichever is smaller, in float64: singular values are exact down
to about 1e-8 of the largest.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gpt2_interp.model.anatomy import columns_are_outputs, find_gpt2, matrix_parts, measured_modules
from gpt2_interp.model.base_weights import BaseWeights, weight_deltas
from gpt2_interp.snapshots.table import N_INTRUDER, N_SINGULAR

NEGLIGIBLE = 1e-6  # of the largest singular value: float32 weights can't tell less from rounding, so it counts as 0
ROWS_AT_ONCE = 4096  # rows that are held in float64 at a time


@torch.no_grad()
def spectra(model: nn.Module, base: BaseWeights) -> dict[str, np.ndarray]:
    """stable_rank [matrix], weight_spectrum [matrix, N_SINGULAR], intruder_cosine [matrix, N_INTRUDER], float32.

    Matrices in the order of `anatomy.matrix_names`. A matrix that has not changed has spectrum 0, stable rank NaN and
    cosines 1. NaN fills the row of a matrix with fewer singular values, and all of one that is not finite. Raises
    ValueError as `weight_deltas` does.
    """
    modules = measured_modules(find_gpt2(model)).items()
    outputs_last = {part: columns_are_outputs(module) for name, module in modules for part in matrix_parts(name)}
    rows = []
    for name, delta, before in weight_deltas(model, base):
        if not outputs_last[name]:
            delta, before = delta.T, before.T  # [in, out] for all
        values = singular_values(delta)
        rows.append((stable_rank(values), _row(values, N_SINGULAR), _row(intruder_cosines(before, delta), N_INTRUDER)))
    names = "stable_rank", "weight_spectrum", "intruder_cosine"
    return {
        name: np.array(column, dtype=np.float32) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def singular_values(matrix: Tensor) -> Tensor:
    """All singular values of [rows, columns], largest first, float64; NaN if the matrix is not finite."""
    if not matrix.any():
        return torch.zeros(min(matrix.shape), dtype=torch.float64)
    gram = _small_gram(matrix)
    if not gram.isfinite().all():
        return torch.full(gram.shape[:1], torch.nan, dtype=torch.float64)
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


def stable_rank(singular_values: Tensor) -> float:
    """sum sigma^2 / sigma_1^2 of singular values, largest first (Rudelson & Vershynin 2007); NaN when all are 0."""
    return (singular_values.square().sum() / singular_values[0].square()).item()


def intruder_cosines(before: Tensor, delta: Tensor, count: int = N_INTRUDER) -> Tensor:
    """max_i |cos(u_i^0, u_j^t)| for the first output-side singular vectors u_j^t of W_t = before + delta: [<= count].

    before, delta: [in, out], y = x W, so the output side are the right singular vectors. i runs over all singular
    vectors of `before` whose singular value isn't 0; NaN where that of u_j^t is, where `before` has none, and where a
    matrix is not finite. A maximum of absolute values, so the signs of singular vectors don't matter. Where singular
    values (nearly) coincide, any basis of their space is as good, and the cosines are those of the one that the
    eigensolver chose. Source: Shuttleworth et al. 2024.
    """
    count = min(count, *before.shape)
    if not before.any():
        return torch.full((count,), torch.nan, dtype=torch.float64)
    tuned = before + delta
    if torch.equal(tuned, before):
        return torch.ones(count, dtype=torch.float64)
    grams = _small_gram(before), _small_gram(tuned)
    if not all(gram.isfinite().all() for gram in grams):
        return torch.full((count,), torch.nan, dtype=torch.float64)
    (sigma_0, vectors_0), (sigma, vectors) = (_values_and_vectors(gram) for gram in grams)
    real_0, sigma, vectors = sigma_0 > NEGLIGIBLE * sigma_0[0], sigma[:count], vectors[:, :count]
    if before.shape[0] >= before.shape[1]:  # W'W has the output-side vectors themselves
        cosines = vectors_0.T @ vectors  # [i, j]
    else:  # W W' has the input-side vectors p; u = W'p / sigma
        cosines = vectors_0.T @ _through_outputs(before, tuned, vectors) / (sigma_0[:, None] * sigma)
    best = cosines[real_0].abs().amax(0).clamp(max=1)
    return best.masked_fill(sigma <= NEGLIGIBLE * sigma[0], torch.nan)


def _values_and_vectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, largest first, and their vectors in the columns."""
    squares, vectors = torch.linalg.eigh(gram)
    return squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)


def _small_gram(matrix: Tensor) -> Tensor:
    """W'W or W W', whichever is smaller, float64."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    gram = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64)
    for block in tall.split(ROWS_AT_ONCE):
        block = block.double()
        gram.addmm_(block.T, block)
    return gram


def _through_outputs(before: Tensor, tuned: Tensor, vectors: Tensor) -> Tensor:
    """W_0 W_t' p for input-side vectors p [in, j], float64."""
    product = torch.zeros_like(vectors)
    for block_0, block in zip(before.T.split(ROWS_AT_ONCE), tuned.T.split(ROWS_AT_ONCE), strict=True):
        product += block_0.T.double() @ (block.double() @ vectors)
    return product


def _row(values: Tensor, length: int) -> np.ndarray:
    row = np.full(length, np.nan)
    row[: len(values)] = values[:length]
    return row
