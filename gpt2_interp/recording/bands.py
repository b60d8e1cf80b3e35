"""What a change is held against: random perturbations of the base, and the precision of training."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from gpt2_interp.inside.attention_observer import OBSERVED
from gpt2_interp.inside.example_pass import MAX_BATCH_TOKENS, ExamplePass
from gpt2_interp.inside.losses import twin_log_odds
from gpt2_interp.inside.observation import Stopwatch, measuring
from gpt2_interp.inside.readings import context_gains, head_scores, lens_means
from gpt2_interp.measures.attention import STRIPES
from gpt2_interp.measures.causal import twin_effect
from gpt2_interp.measures.hidden_states import displacement_per_example
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.snapshots.table import HEADLINE, MEASURE, N_PERTURBATION, POOLINGS, REGIONS

Arrays = dict[str, np.ndarray]


@torch.no_grad()
def perturbation_band(
    gpt2: GPT2LMHeadModel,
    probe_set: ProbeSet,
    names: Collection[str],
    base: BaseWeights,
    reference: Mapping[str, np.ndarray],
    max_tokens: int = MAX_BATCH_TOKENS,
) -> Arrays:
    """band_<name> [perturbation, *units] of the claimed measures `names`: changes under random perturbations of the
    base, each matrix by as much as training changed it. Called while `measuring`."""
    norms = base.change_norms(gpt2)
    with base.replaced(gpt2):
        start = claimed_means(gpt2, probe_set, names, reference, max_tokens)
    changes: dict[str, list[np.ndarray]] = {name: [] for name in start}
    for seed in range(N_PERTURBATION):
        with base.perturbed(gpt2, seed, norms):
            for name, values in claimed_means(gpt2, probe_set, names, reference, max_tokens).items():
                changes[name].append(values - start[name])
    return {f"band_{name}": np.stack(values) for name, values in changes.items()}


@torch.no_grad()
def precision_floor(
    model: nn.Module,
    probe_set: ProbeSet,
    names: Collection[str],
    reference: Mapping[str, np.ndarray],
    dtype: torch.dtype,
    max_tokens: int = MAX_BATCH_TOKENS,
) -> Arrays:
    """floor_<name> [*units]: what computing in `dtype` instead of float32 does to the claimed measures `names`."""
    gpt2 = find_gpt2(model)
    with measuring(gpt2):
        exact = claimed_means(gpt2, probe_set, names, reference, max_tokens)
        with torch.autocast(gpt2.device.type, dtype=dtype):
            rough = claimed_means(gpt2, probe_set, names, reference, max_tokens)
    return {f"floor_{name}": rough[name] - exact[name] for name in exact}


def claimed_means(
    gpt2: GPT2LMHeadModel,
    probe_set: ProbeSet,
    names: Collection[str],
    reference: Mapping[str, np.ndarray],
    max_tokens: int,
) -> Arrays:
    """Mean over the few probes of each claimed measure of `names`, [*units], of the model as it is now."""
    few, names = probe_set.few, set(names)
    examples = [probe_set.examples[i] for i in few]
    place = {index: k for k, index in enumerate(few)}
    found = ExamplePass(
        gpt2,
        examples,
        Stopwatch(gpt2.device),
        attention=names & set(OBSERVED),
        gold=[probe_set.gold[i] for i in few] if probe_set.gold else (),
        kl=[place[i] for i in probe_set.kl] if "attn_logprob_0" in reference else (),
        logprob_0=reference.get("attn_logprob_0"),
        lens=range(len(few)) if "lens_logprob" in names else (),
        pooled="hidden_displacement" in names,
        max_tokens=max_tokens,
    )
    values = {**found.arrays, "probe_loss": found.loss}
    if found.pooled is not None:
        values["hidden_displacement"] = displacement_per_example(found.pooled, reference["hidden_pooled_0"][list(few)])
    if found.lens is not None:
        values["lens_logprob"] = lens_means(gpt2, found)["logprob"]
    if "context_gain" in names and probe_set.others:
        others = [probe_set.others[i] for i in few]
        values |= context_gains(gpt2, examples, others, found.token_nll, max_tokens)
    if names & set(STRIPES) and probe_set.sequences:
        values |= head_scores(gpt2, probe_set.sequences, max_tokens)
    if "twin_effect" in names and probe_set.twins:
        values |= twin_effect(twin_log_odds(gpt2, probe_set.twins, max_tokens))
    return {name: _over_probes(name, array) for name, array in values.items() if name in names}


def _over_probes(name: str, array: np.ndarray) -> np.ndarray:
    """[*units]: the headline region and pooling, mean over the probes that have a value; NaN where none has."""
    labels = {"region": REGIONS, "pooling": POOLINGS}
    for position, axis in reversed(list(enumerate(MEASURE[name].axes))):
        if axis in HEADLINE:
            array = array.take(labels[axis].index(HEADLINE[axis]), axis=position)
    defined = np.isfinite(array)
    count = defined.sum(axis=0)
    return np.where(defined, array, 0).sum(axis=0) / np.where(count, count, np.nan)
