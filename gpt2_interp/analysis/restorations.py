"""Whether a change matters: what putting the base's number back into the tuned model costs, of each head.

The arrays are those of the group "restoration" of the measure table. A positive cost means that the change helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt2_interp.analysis.measurements import UNREADABLE, Measurements
from gpt2_interp.snapshots.table import JUDGED_KINDS, REPEATED
from gpt2_interp.statistics.intervals import nan_mean
from gpt2_interp.statistics.simultaneous import Intervals, cluster_means, simultaneous_intervals

SECOND_READING = "second_reading"  # what measures on repeated tokens are judged by
WHOLE_PATTERN = "attn_kl0"  # the distance of whole patterns: putting the pattern back is putting the number back


@dataclass(frozen=True)
class Restoration:
    """Costs of putting one measure's number back, head by head: [layer * head].

    needed: into the tuned model, with simultaneous intervals over the heads that were judged. enough: what the tuned
    number brings the base; NaN where it was not measured. noise: the largest cost of the same in a perturbed base; NaN
    where there is none. kind: the tokens whose loss it is.
    """

    kind: str
    needed: Intervals
    enough: np.ndarray
    noise: np.ndarray

    def entry(self, i: int) -> dict[str, Any]:
        """One head as claims.json has it."""
        needed = self.needed
        return {
            "kind": self.kind,
            "needed": needed.mean[i],
            "low": needed.low[i],
            "high": needed.high[i],
            "enough": self.enough[i],
            "noise": self.noise[i],
        }

    def word(self, i: int) -> str | None:
        """Return "helps", "hurts" or "no"; None where that was not measured.

        It needs an interval without zero, and more than the same patch costs in a base that noise changed.
        """
        if not np.isfinite(self.needed.low[i]):
            return None
        if not self.needed.excludes_zero[i]:
            return "no"
        if np.isnan(self.noise[i]):
            return None
        if abs(self.needed.mean[i]) <= self.noise[i]:
            return "no"
        return "helps" if self.needed.mean[i] > 0 else "hurts"


def restoration(m: Measurements, name: str, judged: np.ndarray) -> Restoration | None:
    """The restoration of one measure at the last snapshot; judged [layer * head]: the heads that are asked about.

    None where it was not measured. Of the judged heads, those that were not paid for are undefined.
    """
    arrays = _load(m)
    kind: str | None
    if name in REPEATED:
        needed, enough = arrays.get("restore_second_reading"), None
        noise = arrays.get("band_restore_second_reading")
        axis, kind = "sequence", SECOND_READING
    else:
        kind = next((kind for kind in JUDGED_KINDS if kind in _labels(m, "token_kind")), None)
        needed, enough = (_of_measure(m, arrays, name, what, kind) for what in ("needed", "enough"))
        noise = _noise_of(m, arrays, name)
        axis = "few_example"
    entries = m.probe_set.get(axis, [])
    if needed is None or kind is None or len(entries) < len(needed):
        return None
    costs = needed.reshape(len(needed), -1)
    costs = np.where(judged, costs, np.nan)
    clusters = [str(entry["cluster"]) for entry in entries[: len(needed)]]
    intervals = simultaneous_intervals(cluster_means(costs, clusters))
    nothing = np.full(costs.shape[1], np.nan)
    brought = nothing if enough is None else nan_mean(enough.reshape(len(enough), -1), axis=0)
    if noise is None:
        largest = nothing
    else:
        draws = np.abs(noise.reshape(len(noise), -1))
        largest = np.where(np.isfinite(draws).any(axis=0), np.where(np.isfinite(draws), draws, 0).max(axis=0), np.nan)
    return Restoration(kind, intervals, brought, largest)


def _of_measure(
    m: Measurements, arrays: dict[str, np.ndarray], name: str, what: str, kind: str | None
) -> np.ndarray | None:
    """Return [few_example, layer, head] of restore_*_needed or restore_*_enough of one measure and kind of token."""
    if kind is None:
        return None
    place = _labels(m, "token_kind").index(kind)
    if name == WHOLE_PATTERN:
        found = arrays.get(f"restore_pattern_{what}")
        return None if found is None else found[..., place]
    found = arrays.get(f"restore_measure_{what}")
    if found is None or name not in _labels(m, "restored"):
        return None
    return found[:, _labels(m, "restored").index(name), ..., place]


def _noise_of(m: Measurements, arrays: dict[str, np.ndarray], name: str) -> np.ndarray | None:
    """Return [perturbation, layer, head]."""
    if name == WHOLE_PATTERN:
        return arrays.get("band_restore_pattern")
    found = arrays.get("band_restore_measure")
    if found is None or name not in _labels(m, "restored"):
        return None
    return found[:, _labels(m, "restored").index(name)]


def _labels(m: Measurements, axis: str) -> list[str]:
    return m.labels(axis) if axis in m.info["axes"] else []


ARRAYS = (
    "restore_measure_needed",
    "restore_measure_enough",
    "restore_pattern_needed",
    "restore_pattern_enough",
    "restore_second_reading",
    "band_restore_measure",
    "band_restore_pattern",
    "band_restore_second_reading",
)


def _load(m: Measurements) -> dict[str, np.ndarray]:
    try:
        return m.store.load(m.steps[-1], [name for name in ARRAYS if m.has(name)])
    except UNREADABLE:
        return {}  # Measurements.series has named it
