"""A run of two snapshots: another run's step 0, from which it started too, and its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from gpt2_interp.inside.observation import Stopwatch
from gpt2_interp.model.anatomy import find_gpt2, model_sizes
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.recording.capture import capture
from gpt2_interp.recording.plan import wanted_names
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import CLAIMED, MEASURE

TIERS = ("light", "heavy", "ends", "final")


def record_two_ends(
    store: SnapshotStore,
    like: SnapshotStore,
    probe_set: ProbeSet,
    run_info: Mapping[str, Any],
    model: nn.Module,
    base: BaseWeights,
    step: int,
) -> None:
    """Store step 0 of the run `like`, and `model` as `step`, with the groups of which a change is tested, as far as
    that run has them.

    probe_set: that run's. base: the weights that `model` started from; it must compute what that run's base does.
    """
    theirs = like.run_info()
    groups = [name for name in theirs["measures"]["groups"] if name in {measure.group for measure in CLAIMED}]
    measures = {"groups": groups, "left_out": {}, "schedule": "at the first and the last step"}
    store.create({**run_info, "axes": theirs["axes"], "model": model_sizes(find_gpt2(model)), "measures": measures})
    store.write_probe_set(like.probe_set())
    store.write_tokens(like.tokens())

    names = wanted_names(groups, TIERS)
    beginning = like.load(0, names)
    reference = like.load_reference(name for name in like.reference_names() if MEASURE[name].group in groups)
    seconds = {"seconds": 0.0, "seconds_by_group": {}}  # they were measured once, by the other run
    store.write(0, beginning, **seconds, tier=sorted(TIERS[:3]), probes=len(probe_set.examples))
    store.write_reference(reference)

    start, watch = time.perf_counter(), Stopwatch(find_gpt2(model).device)
    arrays = capture(
        model, probe_set, names, base=base, reference=reference, previous=beginning.get("hidden_pooled"), watch=watch
    )
    store.write(
        step,
        arrays,
        seconds=round(time.perf_counter() - start, 3),
        seconds_by_group={name: round(value, 3) for name, value in watch.seconds.items()},
        tier=sorted(TIERS),
        probes=len(probe_set.examples),
    )
