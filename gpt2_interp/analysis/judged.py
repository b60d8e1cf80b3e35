"""One measure at the last snapshot, judged by each comparison that the run has; and what counts over measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpt2_interp.analysis.changes import FEWEST_NULL_RUNS, Comparisons, is_large, paired_difference
from gpt2_interp.analysis.measurements import Series
from gpt2_interp.snapshots.table import Measure
from gpt2_interp.statistics.beyond_noise import beyond_noise_in_any, noise_band, times_noise
from gpt2_interp.statistics.half_change import half_change
from gpt2_interp.statistics.over_measures import holm
from gpt2_interp.statistics.prediction_limit import prediction_limit
from gpt2_interp.statistics.simultaneous import CONFIDENCE, Intervals, reproduced, simultaneous_intervals


@dataclass(frozen=True)
class Judged:
    """One measure at the last snapshot: its change and what the comparisons say of it, arrays [unit]."""

    series: Series
    against: Comparisons

    @property
    def measure(self) -> Measure:
        return self.series.measure

    @cached_property
    def differences(self) -> np.ndarray:
        """Changes since step 0, [cluster, step, unit]."""
        return self.series.differences()

    @cached_property
    def last(self) -> Intervals:
        return simultaneous_intervals(self.differences[:, -1])

    @cached_property
    def before(self) -> np.ndarray:
        return self.series.before()

    @property
    def draws(self) -> np.ndarray | None:
        return self.against.draws.get(self.measure.name)

    @property
    def floor(self) -> float | None:
        return self.against.floors.get(self.measure.name)

    @cached_property
    def times(self) -> np.ndarray:
        """How many times its own noise each change is."""
        if self.draws is None:
            return np.full(self.last.mean.shape, np.nan)
        return times_noise(self.last.mean, self.draws)

    @cached_property
    def band(self) -> float | None:
        return None if self.draws is None else noise_band(self.draws)

    @cached_property
    def beyond_noise(self) -> np.ndarray:
        """An interval without zero, more than noise does, and more than the precision of training does."""
        if self.band is None:
            return np.zeros(self.last.mean.shape, bool)
        above_floor = np.abs(self.last.mean) > (self.floor or 0.0)
        return self.last.excludes_zero & above_floor & (self.times > self.band)

    @cached_property
    def large(self) -> np.ndarray:
        return is_large(self.measure, self.before, self.last.mean)

    @property
    def worth_a_cause(self) -> np.ndarray:
        """Beyond noise and large: of other changes nobody asks whether they matter.

        For measures on repeated tokens the whole pattern is put back, which says nothing of a tiny change of one.
        """
        return self.beyond_noise & self.large

    @cached_property
    def half(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return half_change(self.differences, self.series.steps[1:])

    @cached_property
    def by_half(self) -> list[np.ndarray] | None:
        return self.series.change_by_half()

    @cached_property
    def general(self) -> Intervals | None:
        series = self.against.general.get(self.measure.name)
        return None if series is None else simultaneous_intervals(series.differences()[:, -1])

    @cached_property
    def own_article(self) -> Intervals | None:
        """How much more the own article changes the measure than another row's article in the same format does."""
        other = self.against.other_article.get(self.measure.name)
        difference = None if other is None else paired_difference(self.series, other)
        return None if difference is None else simultaneous_intervals(difference)

    @cached_property
    def content_specific(self) -> np.ndarray | None:
        """The own article changes it more than another one, beyond zero and beyond noise; and with permuted targets,
        from which reading can't be learned, it changes less. None where there is no other article."""
        own = self.own_article
        if own is None or self.draws is None:
            return None
        found = own.excludes_zero & (times_noise(own.mean, self.draws) > self.band)
        style = self.of_style
        return found if style is None else found & (np.abs(self.last.mean) > np.abs(style))

    @property
    def of_style(self) -> np.ndarray | None:
        style = self.against.style
        return None if style is None else style.changes.get(self.measure.name)

    @cached_property
    def beyond_training(self) -> np.ndarray | None:
        """Larger than in every run on the base's own kind of text, and than one more would show in 95% of cases; None
        where there are fewer than FEWEST_NULL_RUNS."""
        runs = self.against.of_training(self.measure.name)
        if runs is None or len(runs) < FEWEST_NULL_RUNS:
            return None
        return np.abs(self.last.mean) > prediction_limit(np.abs(runs))

    @cached_property
    def reproduced(self) -> np.ndarray | None:
        name = self.measure.name
        seeds = [run.changes[name] for run in self.against.seeds if name in run.changes]
        changes = np.array([self.last.mean, *seeds])
        found = reproduced(changes)
        return None if found is None else found & is_large(self.measure, self.before, changes.mean(axis=0))


def is_larger_than_general(task: Intervals, general: Intervals) -> np.ndarray:
    """Return whether the end of the task's interval nearer to zero is larger than the farther one of general text's;
    absolute values, [unit]. The two need not have the same sign."""
    near = np.maximum(np.maximum(task.low, -task.high), 0)
    return near > np.maximum(np.abs(general.low), np.abs(general.high))


def counted_changes(tested: Mapping[str, Judged]) -> dict[str, np.ndarray]:
    """Return [unit] bool by measure: what may be counted over measures.

    It is beyond noise with one error rate over all measures, against zero (but for what can't be negative) and against
    noise, and no smaller than the smallest effect of interest.
    """
    with_band = {name: one for name, one in tested.items() if one.draws is not None}
    signed = {name: one for name, one in with_band.items() if not one.measure.never_negative}
    against_zero = holm({name: one.last.p for name, one in signed.items()}, 1 - CONFIDENCE)
    against_noise = beyond_noise_in_any(
        {name: one.last.mean for name, one in with_band.items()},
        {name: one.draws for name, one in with_band.items() if one.draws is not None},
    )
    return {
        name: one.beyond_noise & one.large & against_zero.get(name, True) & against_noise[name]
        if name in with_band
        else np.zeros(one.last.mean.shape, bool)
        for name, one in tested.items()
    }
