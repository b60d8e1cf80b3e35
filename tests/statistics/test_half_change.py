"""The date of a change: planted dates, and a slow reference of its interval."""

import numpy as np
import pytest

from gpt2_interp.statistics.half_change import half_change, number_at
from gpt2_interp.statistics.simultaneous import resamples

STEPS = [1, 2, 4, 8, 16]


def test_the_first_step_at_half_of_the_last_change():
    means = np.array([[0.0, 0.6, -0.1], [0.49, 0.2, -0.2], [0.5, 0.3, -2], [0.9, 0.7, 0], [1.0, 1.0, -1.0]])
    assert number_at(means, np.array(STEPS, float)).tolist() == [4, 1, 4]
    assert np.isnan(number_at(np.array([[1.0, np.nan], [0.0, np.nan]]), np.array([1.0, 2]))).all()


def test_a_planted_date_is_inside_its_interval_and_the_interval_is_the_slow_ones():
    rng = np.random.default_rng(0)
    curve = np.array([0.1, 0.2, 0.45, 0.9, 1.0])
    differences = curve[:, None] * (1 + 0.1 * rng.normal(size=(12, 1, 2))) + 0.2 * rng.normal(size=(12, 5, 2))
    when, low, high = half_change(differences, STEPS)
    assert set(when) <= {4, 8} and (low <= 8).all() and (high >= 8).all() and (low >= 2).all()
    drawn = resamples(12)
    for unit in range(2):
        dates = []
        for counts in drawn:
            picked = np.repeat(differences[..., unit], counts, axis=0).mean(axis=0)
            dates.append(
                next(s for s, x in zip(STEPS, picked, strict=True) if x * np.sign(picked[-1]) >= abs(picked[-1]) / 2)
            )
        assert (low[unit], high[unit]) == tuple(np.percentile(dates, [2.5, 97.5], method="nearest"))


def test_few_clusters_have_a_date_without_an_interval():
    when, low, high = half_change(np.ones((3, 5, 1)), STEPS)
    assert when.tolist() == [1] and np.isnan(low).all() and np.isnan(high).all()


def test_undefined_clusters_are_left_out():
    differences = np.ones((8, 5, 1)) * np.array([0.0, 0, 1, 1, 1])[:, None]
    differences[:2] = np.nan
    assert [float(x[0]) for x in half_change(differences, STEPS)] == pytest.approx([4, 4, 4])
