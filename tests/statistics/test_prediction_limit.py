import numpy as np
import pytest

from gpt2_interp.statistics.prediction_limit import prediction_limit


@pytest.mark.parametrize("n", [3, 4, 8])
def test_one_more_like_value_is_beyond_the_limit_one_time_in_twenty(n):
    values = 5 + np.random.default_rng(n).normal(size=(n + 1, 20_000))
    assert (values[n] > prediction_limit(values[:n])).mean() == pytest.approx(0.05, abs=0.008)
    assert (values[n] > values[:n].max(axis=0)).mean() == pytest.approx(1 / (n + 1), abs=0.015)


def test_the_limit_is_never_below_the_largest():
    sizes = np.array([[1.0] * 2] * 40 + [[9.0, 1.0]])
    np.testing.assert_allclose(prediction_limit(sizes), [9, 1])
