"""Ratios of sums with intervals: resampled rows, the same rows for two systems."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_interp.statistics.intervals import interval
from gpt2_interp.statistics.ratios import bounded, differences


def ratio(rng, rows=60, high=4):
    bottom = rng.integers(1, high + 1, rows).astype(float)
    return rng.binomial(bottom.astype(int), 0.4).astype(float), bottom


def test_bounds_are_those_of_a_bootstrap_over_rows():
    one = ratio(np.random.default_rng(0))
    found = bounded({"x": one})
    low, high = interval(lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis), *one)
    assert found["x"] == pytest.approx(one[0].sum() / one[1].sum())
    assert (found["x_low"], found["x_high"]) == pytest.approx((low, high), abs=0.02)


def test_intervals_cover_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = bounded({"x": ratio(rng)})
        hits += found["x_low"] <= 0.4 <= found["x_high"]
    assert 178 <= hits <= 199


def test_a_difference_is_of_the_same_rows():
    rng = np.random.default_rng(2)
    top, bottom = ratio(rng)
    better = top + (rng.random(60) < 0.2), bottom
    alone = [bounded({"x": one}) for one in ((top, bottom), better)]
    found = differences({"x": better, "only here": better}, {"x": (top, bottom)})
    assert set(found) == {"x", "x_low", "x_high"}
    assert found["x"] == pytest.approx(alone[1]["x"] - alone[0]["x"])
    assert found["x_low"] > 0  # although the intervals of the two overlap
    assert alone[1]["x_low"] < alone[0]["x_high"]


def test_what_is_undefined_or_has_no_spread_is_left_out():
    nothing, some = np.zeros(5), np.array([1.0, 0, 0, 0, 0])
    assert bounded({"x": (nothing, nothing)}) == {}
    assert bounded({"x": (nothing, nothing + 1)}) == {"x": 0}
    assert bounded({"x": (some, some)}) == {"x": 1}  # half of the samples lack the row that counts
    assert bounded({"x": (np.ones(1), np.ones(1))}) == {"x": 1}
    assert differences({"x": (some, nothing + 1)}, {"x": (nothing, nothing)}) == {}
