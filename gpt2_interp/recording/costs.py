"""What a snapshot to come costs: bytes and seconds of the last one, and one timed pass of what only the end has."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from gpt2_interp.inside.grafts import graft_passes, trained_blocks
from gpt2_interp.inside.losses import mean_nll, token_forwards
from gpt2_interp.inside.observation import measuring
from gpt2_interp.model.anatomy import (
    find_gpt2,
    lora_factors,
    matrix_parts,
    measured_modules,
    model_sizes,
    stored_weight,
)
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.recording.capture import few_probes
from gpt2_interp.recording.plan import QUARTERS, array_bytes, expensive_tokens, wanted_names
from gpt2_interp.snapshots.table import STORED

LIGHT = {measure.group for measure in STORED if measure.tier == "light"}
HEAVY = tuple(dict.fromkeys(m.group for m in STORED if m.tier == "heavy" and m.group not in LIGHT))
RARE = tuple(dict.fromkeys(measure.group for measure in STORED if measure.group not in LIGHT))


def cost_lines(
    run: Mapping[str, Any], manifest: Mapping[str, Any], seconds: Mapping[str, float], rare: Mapping[str, float]
) -> list[str]:
    """Describe the cost of each snapshot to come: bytes of the one in `manifest`, seconds of each group, and what the
    rare groups add to some.

    run: run.json. seconds: by group, as measured. rare: as `rare_seconds` gives them.
    """
    groups = run["measures"]["groups"]
    light = sum(value for group, value in seconds.items() if group not in RARE)
    stored = {name for entry in manifest["files"].values() for name in entry["arrays"]}
    size = array_bytes(stored & wanted_names(groups, {"light"}), run["axes"])
    lines = [f"each about {size / 1e6:.1f} MB and {light:.1f} s: {_by_group(seconds, RARE)}"]
    heavy = [f"{group} {seconds[group]:.1f} s" for group in HEAVY if group in groups and group in seconds]
    parts = [f"{' and '.join(heavy)} at up to {QUARTERS + 1} of them"] * bool(heavy)
    at_last = {group: value for group, value in {**seconds, **rare}.items() if group in RARE and group not in HEAVY}
    parts += [f"{group} about {value:.1f} s at the last" for group, value in at_last.items()]
    return lines + [f"besides: {', '.join(parts)}"] * bool(parts)


def _by_group(seconds: Mapping[str, float], without: Collection[str]) -> str:
    parts = sorted(((value, group) for group, value in seconds.items() if group not in without), reverse=True)
    return ", ".join(f"{group} {value:.1f}" for value, group in parts if value >= 0.05) or "nothing takes long"


@torch.no_grad()
def rare_seconds(
    model: nn.Module,
    probe_set: ProbeSet,
    groups: Collection[str],
    base: BaseWeights,
    reference: Mapping[str, np.ndarray],
    perturbations: int,
) -> dict[str, float]:
    """Estimate the seconds of graft, band and restoration (of all heads), as far as they are among `groups`: one pass
    is run and timed, and multiplied by their number.

    reference: what was stored of step 0. perturbations: how many make up the band. The model is left as it was.
    """
    gpt2, found = find_gpt2(model), {}
    with measuring(gpt2):
        if {"graft", "restoration"} & set(groups):
            examples = [probe_set.examples[i] for i in probe_set.few]
            start = time.perf_counter()
            with base.replaced(gpt2):
                mean_nll(gpt2, examples)
            seconds = time.perf_counter() - start
            if "graft" in groups:
                found["graft"] = graft_passes(len(trained_blocks(gpt2, base))) * seconds
            if "restoration" in groups:
                tokens = expensive_tokens("restoration", probe_set, model_sizes(gpt2))
                # Numbers that changed, and all of it under noise, take about as much as the parts of all heads.
                found["restoration"] = 2 * tokens / token_forwards(examples) * seconds
        if "band" in groups:
            names = {name.removeprefix("band_") for name in wanted_names(["band"], {"final"})}
            few = few_probes(gpt2, probe_set, names, base, reference)
            start = time.perf_counter()
            with base.perturbed(gpt2, 0, _any_norms(gpt2)):
                few.claimed_means()
            found["band"] = (perturbations + 1) * (time.perf_counter() - start)
    return found


def _any_norms(gpt2: nn.Module) -> dict[str, float]:
    """A norm for the noise of each matrix: 1 where training changes it, else 0."""
    return {
        part: float(stored_weight(module).requires_grad or bool(lora_factors(name, module)))
        for name, module in measured_modules(gpt2).items()
        for part in matrix_parts(name)
    }
