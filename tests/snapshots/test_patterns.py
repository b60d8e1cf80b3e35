"""Folding an attention pattern into its lower triangle and back."""

import numpy as np
import pytest

from gpt2_interp.snapshots.patterns import fold_patterns, unfold_patterns


def test_query_i_and_key_j_stand_where_the_table_says():
    square = np.random.default_rng(0).random((2, 3, 5, 5)).astype(np.float16)
    folded = fold_patterns(square)
    assert folded.shape == (2, 3, 15) and folded.dtype == np.float16
    for i in range(5):
        for j in range(i + 1):
            np.testing.assert_array_equal(folded[..., i * (i + 1) // 2 + j], square[..., i, j])


def test_unfolding_gives_back_what_was_folded_and_no_value_for_later_keys():
    square = np.random.default_rng(1).random((4, 7, 7)).astype(np.float32)
    square[..., 5:, :] = np.nan  # padding of a shorter probe
    back = unfold_patterns(fold_patterns(square))
    assert back.dtype == np.float32
    for i in range(7):
        for j in range(7):
            expected = square[:, i, j] if j <= i else np.full(4, np.nan)
            np.testing.assert_array_equal(back[:, i, j], expected)


@pytest.mark.parametrize("n", [0, 1, 2, 96])
def test_every_size(n):
    assert unfold_patterns(np.zeros((2, n * (n + 1) // 2))).shape == (2, n, n)


def test_what_is_no_triangle_is_refused():
    with pytest.raises(AssertionError, match="no triangle"):
        unfold_patterns(np.zeros(4))
    with pytest.raises(AssertionError, match="as many"):
        fold_patterns(np.zeros((2, 3)))
