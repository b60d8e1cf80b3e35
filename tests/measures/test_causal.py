import math

import numpy as np

from gpt2_interp.measures.causal import context_gain, twin_effect


def test_context_gain_equals_a_loop_over_tokens():
    rng = np.random.default_rng(0)
    lengths = [4, 9, 1]
    own, other = ([rng.exponential(size=n).astype(np.float32) for n in lengths] for _ in range(2))
    copied = [rng.random(n) < 0.5 for n in lengths]
    result = context_gain(own, other, copied)
    for index, n in enumerate(lengths):
        every, new, old = [], [], []
        for token in range(n):
            gain = float(other[index][token]) - float(own[index][token])
            every.append(gain)
            (old if copied[index][token] else new).append(gain)
        for name, gains in (("", every), ("_copied", old), ("_new", new)):
            value = result[f"context_gain{name}"][index]
            if gains:
                np.testing.assert_allclose(value, sum(gains) / len(gains), rtol=1e-6)
            else:
                assert np.isnan(value)
    assert all(array.dtype == np.float32 and array.shape == (3,) for array in result.values())


def test_context_gain_by_hand_and_where_undefined():
    own = [np.array([1.0, 2.0, 3.0]), np.array([1.0]), np.array([2.0, 2.0])]
    other = [np.array([2.0, 2.0, 7.0]), None, np.array([1.0, 2.0])]
    copied = [np.array([True, False, True]), np.array([True]), np.array([False, False])]
    result = context_gain(own, other, copied)
    np.testing.assert_allclose(result["context_gain"], [5 / 3, np.nan, -0.5], rtol=1e-6)
    np.testing.assert_allclose(result["context_gain_copied"], [2.5, np.nan, np.nan])
    np.testing.assert_allclose(result["context_gain_new"], [0, np.nan, -0.5])


def test_twins_by_hand():
    # Both right; only x right; what the model prefers anyhow (a bias of 5) cancels; wrong; a tie is not right.
    odds = np.array([[2.0, -1.0], [3.0, 1.0], [6.0, 4.0], [-1.0, 2.0], [0.0, -1.0], [np.nan, -1.0], [1.0, np.nan]])
    result = twin_effect(odds)
    np.testing.assert_allclose(result["twin_effect"], [1.5, 1, 1, -1.5, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(result["twin_right"], [1, 0, 0, 0, 0, np.nan, np.nan])


def test_twin_effect_equals_the_formula_of_log_probabilities():
    p = np.random.default_rng(1).dirichlet(np.ones(3), size=(40, 2))  # [pair, (x, x'), (v, v', rest)]
    log_p = np.log(p)
    result = twin_effect(log_p[:, :, 0] - log_p[:, :, 1])
    for pair in range(40):
        (v_x, w_x, _), (v_y, w_y, _) = log_p[pair]
        assert math.isclose(result["twin_effect"][pair], 0.5 * (v_x - w_x + w_y - v_y), rel_tol=1e-5)
        assert result["twin_right"][pair] == float(v_x > w_x and w_y > v_y)
    assert twin_effect(np.empty((0, 2)))["twin_effect"].shape == (0,)
