import numpy as np
import pytest
from scipy.stats import rankdata

from gpt2_interp.measures.similarities import centred, hsic1, ranks

RNG = np.random.default_rng(0)


def slow_hsic1(K, L):
    """The estimator as a sum over all ordered quadruples of different examples (Song et al. 2012, eq. 4)."""
    n, total = len(K), 0.0
    quadruples = [
        (i, j, q, r) for i in range(n) for j in range(n) for q in range(n) for r in range(n) if len({i, j, q, r}) == 4
    ]
    for i, j, q, r in quadruples:
        total += K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q])
    return total / len(quadruples)


def test_hsic1_is_the_u_statistic_over_quadruples():
    X, Y = RNG.normal(size=(2, 7, 3)), RNG.normal(size=(2, 7, 5))
    K, L = X @ X.swapaxes(1, 2), Y @ Y.swapaxes(1, 2)
    assert hsic1(K[0], L[0]) == pytest.approx(slow_hsic1(K[0], L[0]))
    np.testing.assert_allclose(hsic1(K, L)[1], slow_hsic1(K[1], L[1]))  # a stack


def test_ranks_share_the_mean_where_values_are_equal():
    values = RNG.integers(0, 6, size=(3, 40)).astype(np.float32)
    values[2] = 1
    np.testing.assert_array_equal(ranks(values), [rankdata(row) for row in values])
    values[1, 7] = np.nan
    assert np.isnan(ranks(values)).all(axis=1).tolist() == [False, True, False]


def test_centred_is_the_gram_matrix_of_centred_vectors():
    X = RNG.normal(size=(9, 4)) + 3
    Xc = X - X.mean(axis=0)
    np.testing.assert_allclose(centred(X @ X.T), Xc @ Xc.T, atol=1e-12)
