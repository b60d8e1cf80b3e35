"""Holm's step-down over measures, by hand and where nothing changed."""

import numpy as np

from gpt2_interp.statistics.over_measures import holm


def test_by_hand():
    p = {"a": np.array([0.01, 0.04]), "b": np.array([0.02]), "c": np.array([0.06, 0.5])}
    # smallest: a .01 <= .05/3; b .02 <= .05/2; c .06 > .05
    found = holm(p)
    assert found["a"].tolist() == [True, False] and found["b"].tolist() == [True] and not found["c"].any()


def test_the_first_that_fails_ends_it():
    found = holm({"a": np.array([0.02]), "b": np.array([0.021]), "c": np.array([0.022])})  # .02 > .05/3
    assert not any(mask.any() for mask in found.values())


def test_undefined_measures_count_for_nothing():
    assert holm({"a": np.array([0.04]), "b": np.array([np.nan])})["a"].all()
    assert holm({}) == {}


def test_one_family_in_twenty_is_wrong_where_nothing_changed():
    rng = np.random.default_rng(0)
    wrong = sum(
        any(mask.any() for mask in holm({str(k): rng.uniform(size=1) for k in range(16)}).values()) for _ in range(2000)
    )
    assert wrong / 2000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
