import subprocess
import sys

import numpy as np
import pytest

from gpt2_interp.measures.hidden_states import cka_debiased, displacement, displacement_per_example, hsic1

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
    X, Y = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 5))
    K, L = X @ X.T, Y @ Y.T
    assert hsic1(K, L) == pytest.approx(slow_hsic1(K, L))


def test_displacement_as_loops():
    X_0, X_t = RNG.normal(size=(6, 2, 5)) + 3, RNG.normal(size=(6, 2, 5))
    for layer in range(2):
        mean = sum(X_0[:, layer]) / 6
        moved = sum(((X_t[k, layer] - X_0[k, layer]) ** 2).sum() for k in range(6))
        spread = [((X_0[k, layer] - mean) ** 2).sum() for k in range(6)]
        assert displacement(X_t, X_0)[layer] == pytest.approx(np.sqrt(moved / sum(spread)))
        one = np.linalg.norm(X_t[2, layer] - X_0[2, layer]) / np.mean(np.sqrt(spread))
        assert displacement_per_example(X_t, X_0)[2, layer] == pytest.approx(one)


def test_a_base_compared_with_itself():
    X = RNG.normal(size=(40, 3, 16)).astype(np.float32)
    assert (displacement(X, X) == 0).all()
    np.testing.assert_allclose(cka_debiased(X, X), 1)


def test_cka_ignores_rotation_scale_and_shift_but_not_noise():
    X = RNG.normal(size=(60, 1, 8))
    rotation = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    np.testing.assert_allclose(cka_debiased(X, 5 * X @ rotation + 100), 1, atol=1e-9)
    unrelated = [cka_debiased(X, RNG.normal(size=(60, 1, 500)))[0] for _ in range(30)]
    assert abs(np.mean(unrelated)) < 0.05  # the plain CKA would say about .9 with 500 dimensions on 60 examples
    assert min(unrelated) < 0


def test_examples_without_this_pooling_are_left_out():
    X_0, X_t = RNG.normal(size=(12, 2, 5)), RNG.normal(size=(12, 2, 5))
    with_gaps = [X.copy() for X in (X_0, X_t)]
    with_gaps[0][3], with_gaps[1][7] = np.nan, np.nan
    kept = [k for k in range(12) if k not in (3, 7)]
    np.testing.assert_allclose(displacement(with_gaps[1], with_gaps[0]), displacement(X_t[kept], X_0[kept]))
    np.testing.assert_allclose(cka_debiased(with_gaps[1], with_gaps[0]), cka_debiased(X_t[kept], X_0[kept]))
    per_example = displacement_per_example(with_gaps[1], with_gaps[0])
    assert np.isnan(per_example[[3, 7]]).all()
    np.testing.assert_allclose(per_example[kept], displacement_per_example(X_t[kept], X_0[kept]))


@pytest.mark.parametrize("X", [np.ones((3, 2, 4)), np.full((6, 2, 4), np.nan), np.ones((6, 2, 4))])
def test_undefined_is_nan(X):
    """Three examples, none with this pooling, and no spread at all."""
    assert np.isnan(displacement(X, X)).all() and np.isnan(cka_debiased(X, X)).all()
    assert np.isnan(displacement_per_example(X, X)).all()


def test_needs_no_torch():
    code = "import sys, gpt2_interp.measures.hidden_states, gpt2_interp.snapshots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
