"""The plan of a run's snapshots: what is measured at which step, and what the run can't afford."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_interp.inside.ablation import ablation_tokens
from gpt2_interp.inside.grafts import graft_tokens
from gpt2_interp.inside.losses import token_forwards
from gpt2_interp.inside.restoration import restoration_tokens
from gpt2_interp.probes.probe_set import ProbeSet, evenly
from gpt2_interp.recording.restored import RESTORED_PROBES
from gpt2_interp.snapshots.schedule import ALL, SHARE, check_groups
from gpt2_interp.snapshots.table import (
    FEWEST_PERTURBATIONS,
    GROUPS,
    MEASURE,
    MOST_PERTURBATIONS,
    STORED,
    axis_size,
)

QUARTERS = 4  # heavy snapshots: the first, the last, and the first after each quarter of the run
SMALL = 1e13  # floating-point operations that are no matter on any machine: about a minute on two cores
# They need each matrix of the model, and its change.
OF_WEIGHTS = ("weights", "spectra", "probe_gradient", "band", "restoration")
EXPENSIVE = ("ablation", "graft", "band")  # forward passes by the hundred


# --- when --------------------------------------------------------------------------------------------------------


def tiers(step: int, previous: int, max_steps: int, is_last: bool) -> set[str]:
    """Tiers of the snapshot after `step`; previous: the step of the snapshot before, -1 if there is none."""
    found = {"light"}
    marks = (math.ceil(k * max_steps / QUARTERS) for k in range(1, QUARTERS))
    if step == 0 or is_last or any(previous < mark <= step for mark in marks):
        found |= {"heavy"}
    if step == 0 or is_last:
        found |= {"ends"}
    return found | {"final"} if is_last else found


# --- what --------------------------------------------------------------------------------------------------------


def chosen_groups(
    wanted: Sequence[str], probe_set: ProbeSet, model: Mapping[str, int], training_tokens: float
) -> tuple[list[str], dict[str, str]]:
    """Return (groups to measure, why others are left out).

    wanted: --measures; ALL leaves out what would cost too much beside `training_tokens`, the tokens that all steps
    read. model: sizes as `model.anatomy.model_sizes` gives them. Raises InputError for a name that is no group.
    """
    check_groups(wanted)
    if ALL not in wanted:
        return [group for group in GROUPS if group in wanted], {}
    left_out = {}
    for group in EXPENSIVE:
        tokens = expensive_tokens(group, probe_set, model)
        if not _is_cheap(tokens, model, training_tokens):
            share = tokens / (3 * training_tokens) if training_tokens else math.inf
            left_out[group] = (
                f"it would cost {100 * share:.0f}% of the training's time; --measures {group} measures it anyway"
            )
    if "band" in left_out and not restores_every_head(wanted, probe_set, model, training_tokens):
        left_out["restoration"] = (
            "without a band it is not known which heads changed, and all of them would cost too much; "
            "--measures restoration measures it anyway"
        )
    return [group for group in GROUPS if group not in left_out], left_out


def restores_every_head(
    wanted: Sequence[str], probe_set: ProbeSet, model: Mapping[str, int], training_tokens: float
) -> bool:
    """Return whether the parts of all heads are restored; where that costs too much, only those of heads that changed
    are, unless the group is named in `wanted`."""
    tokens = expensive_tokens("restoration", probe_set, model)
    return ALL not in wanted or _is_cheap(tokens, model, training_tokens)


def perturbations(probe_set: ProbeSet, model: Mapping[str, int], training_tokens: float) -> int:
    """Return how many random perturbations make up the band: MOST_PERTURBATIONS where they cost no more than another
    expensive group may, else FEWEST_PERTURBATIONS."""
    tokens = expensive_tokens("band", probe_set, model, MOST_PERTURBATIONS)
    affordable = _is_cheap(tokens, model, training_tokens, SMALL / 10)  # more draws are a luxury beside the first ones
    return MOST_PERTURBATIONS if affordable else FEWEST_PERTURBATIONS


def _is_cheap(tokens: float, model: Mapping[str, int], training_tokens: float, small: float = SMALL) -> bool:
    share = tokens / (3 * training_tokens) if training_tokens else math.inf  # a step costs three forward passes
    return 2 * model["parameters"] * tokens <= small or share <= SHARE


def expensive_tokens(
    group: str, probe_set: ProbeSet, model: Mapping[str, int], draws: int = FEWEST_PERTURBATIONS
) -> float:
    """Tokens an expensive group reads in total; ablation counts twice (first and last snapshot), a band has `draws`
    perturbations."""
    examples = [probe_set.examples[i] for i in probe_set.few]
    if group == "ablation":
        return 2 * ablation_tokens(examples, model["n_layer"], model["n_head"])
    if group == "graft":
        return graft_tokens(examples, model["n_layer"])
    if group == "restoration":
        return restoration_tokens(evenly(examples, RESTORED_PROBES), model["n_layer"], model["n_head"])
    assert group == "band"
    asked = probe_set.restricted()
    examples = token_forwards(asked.examples)
    sequences = sum(map(len, asked.sequences))
    twins = sum(len(prefix) for pair in asked.twins for prefix in pair.prefixes)
    return (draws + 1) * ((2 if asked.others else 1) * examples + sequences + twins)


def wanted_names(groups: Collection[str], of_tiers: Collection[str]) -> set[str]:
    """Names of the arrays that a snapshot of these tiers has."""
    return {measure.name for measure in STORED if measure.group in groups and measure.tier in of_tiers}


def array_bytes(names: Collection[str], axes: Mapping[str, Any]) -> int:
    """Bytes of these arrays; axes as in run.json: sizes or lists of labels."""
    return sum(
        np.dtype(MEASURE[name].dtype).itemsize * math.prod(axis_size(axes[axis]) for axis in MEASURE[name].axes)
        for name in names
    )
