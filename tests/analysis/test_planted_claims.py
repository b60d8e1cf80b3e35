"""The whole rule over simulated runs: clustered probes, several measures, perturbations, planted changes.

Four measures of 16 heads, 12 clusters of 4 probes; the last head of each measure is 100 times as loud as the others
under noise. A run's change is one more draw of that noise, plus what is planted, plus what the choice of probes adds.
"""

import numpy as np
import pytest

from gpt2_interp.analysis.changes import Comparisons
from gpt2_interp.analysis.judged import Judged, counted_changes
from gpt2_interp.analysis.measurements import Series
from gpt2_interp.snapshots.table import FEWEST_PERTURBATIONS, MEASURE
from gpt2_interp.statistics.beyond_noise import noise_band

NAMES = ("attn_sink", "attn_source_ns", "head_write", "prev_token")
HEADS, CLUSTERS, PROBES, RUNS = 16, 12, 4, 200
LOUD, QUIET = 15, 3
SCALE = np.where(np.arange(HEADS) == LOUD, 1.0, 0.01)
BETWEEN_CLUSTERS, BETWEEN_PROBES = 0.3, 0.5  # of a head's noise
SMALLEST = MEASURE["attn_sink"].smallest


def noise(rng, n: int) -> np.ndarray:
    """Changes of all heads under n perturbations: [n, head], half of their variance common to all heads."""
    return SCALE * (rng.normal(size=(n, 1)) + rng.normal(size=(n, HEADS))) / np.sqrt(2)


def simulated(rng, plant=lambda draws: np.zeros(HEADS), is_noise: bool = True) -> dict[str, Judged]:
    """One run; plant(draws of the first measure) is added to the first measure's changes. is_noise: whether training
    moves heads as noise does; otherwise nothing but the choice of probes moves them."""
    draws = {name: noise(rng, FEWEST_PERTURBATIONS) for name in NAMES}
    against = Comparisons(draws, {}, None, {}, {}, [], None, [])
    tested = {}
    for name in NAMES:
        change = noise(rng, 1)[0] * is_noise
        if name == NAMES[0]:
            change = change + plant(draws[name])
        of_cluster = BETWEEN_CLUSTERS * SCALE * rng.normal(size=(CLUSTERS, 1, HEADS))
        of_probe = BETWEEN_PROBES * SCALE * rng.normal(size=(CLUSTERS, PROBES, HEADS))
        values = np.stack([np.zeros((CLUSTERS * PROBES, HEADS)), (change + of_cluster + of_probe).reshape(-1, HEADS)])
        clusters = [str(i // PROBES) for i in range(CLUSTERS * PROBES)]
        tested[name] = Judged(Series(MEASURE[name], [0, 100], values, clusters, None), against)
    return tested


@pytest.mark.slow
@pytest.mark.parametrize("is_noise", [True, False])
def test_without_an_effect_one_run_in_twenty_counts_anything_over_all_measures(is_noise):
    """Three standard errors of 200 runs are allowed."""
    rng = np.random.default_rng(0)
    runs = [counted_changes(simulated(rng, is_noise=is_noise)) for _ in range(RUNS)]
    share = np.mean([any(mask.any() for mask in run.values()) for run in runs])
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("head", [LOUD, QUIET])
def test_twice_the_band_is_counted_in_nine_runs_of_ten(head):
    """In a quiet head as well as in a loud one; at least the smallest effect of interest is planted."""
    rng = np.random.default_rng(1)

    def plant(draws):
        size = 2 * noise_band(draws) * np.sqrt(np.mean(draws[:, head] ** 2))
        return np.where(np.arange(HEADS) == head, np.sign(rng.normal()) * max(size, 2 * SMALLEST), 0)

    found = np.mean([counted_changes(simulated(rng, plant))[NAMES[0]][head] for _ in range(RUNS)])
    assert found >= 0.9


def test_below_the_smallest_effect_nothing_is_counted():
    """However far beyond noise it is, and however sure its interval."""
    rng = np.random.default_rng(2)
    draws = {NAMES[0]: 1e-4 * rng.normal(size=(FEWEST_PERTURBATIONS, 2))}
    values = np.zeros((2, CLUSTERS, 2))
    values[1] = np.array([0.9, 1.1]) * SMALLEST + 1e-4 * rng.normal(size=(CLUSTERS, 2))
    series = Series(MEASURE[NAMES[0]], [0, 100], values, [str(i) for i in range(CLUSTERS)], None)
    one = Judged(series, Comparisons(draws, {}, None, {}, {}, [], None, []))
    assert one.beyond_noise.tolist() == [True, True]
    assert counted_changes({NAMES[0]: one})[NAMES[0]].tolist() == [False, True]
