"""Model + probes -> the arrays of one snapshot, in batched passes that leave the model as it was.

Everything is float32 and is reduced to numbers while the forward pass runs. `capture` goes through the groups of the
measure table; what is not wanted is not computed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from gpt2_interp.inside.ablation import ablation_exact
from gpt2_interp.inside.attention_observer import OBSERVED
from gpt2_interp.inside.example_pass import MAX_BATCH_TOKENS, ExamplePass
from gpt2_interp.inside.gradients import gradient_pass
from gpt2_interp.inside.grafts import graft
from gpt2_interp.inside.losses import mean_nll, twin_log_odds
from gpt2_interp.inside.observation import Stopwatch, measuring, read
from gpt2_interp.inside.readings import context_gains, head_scores, lens_means
from gpt2_interp.measures.attention import STRIPES
from gpt2_interp.measures.causal import twin_effect
from gpt2_interp.measures.hidden_states import displacement_per_example, hidden_measures
from gpt2_interp.measures.spectra import spectra
from gpt2_interp.measures.weights import weight_measures
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.recording.bands import perturbation_band
from gpt2_interp.snapshots.patterns import fold_patterns
from gpt2_interp.snapshots.table import HIDDEN, MEASURE

Arrays = dict[str, np.ndarray]


def capture(
    model: nn.Module,
    probe_set: ProbeSet,
    wanted: Collection[str],
    *,
    base: BaseWeights,
    reference: Mapping[str, np.ndarray] | None = None,
    previous: np.ndarray | None = None,
    watch: Stopwatch | None = None,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> Arrays:
    """Measure `model`: the wanted arrays of the measure table, by name, as far as the probes allow them.

    model: a GPT2LMHeadModel, also wrapped by PEFT, DDP or torch.compile. reference: what `write_reference` stored at
    step 0; without one this model is the base, and the reference's arrays can be wanted too. previous: hidden_pooled of
    the snapshot before. Weights, gradients, training mode, attention implementation and random state are left as they
    were.
    """
    gpt2 = find_gpt2(model)
    session = _Session(
        gpt2,
        probe_set,
        set(wanted),
        base,
        is_base=reference is None,
        reference=reference or {},
        watch=watch or Stopwatch(gpt2.device),
        max_tokens=max_batch_tokens,
    )
    with measuring(gpt2):
        with torch.no_grad():
            arrays = {
                **_held_out(session, previous),
                **_training_rows(session),
                **_control(session),
                **_patterns(session),
                **_sequences(session),
                **_twins(session),
            }
        arrays |= _interventions(session)
    arrays |= _weights(session)
    return {name: array for name, array in arrays.items() if name in session.wanted}


@dataclass
class _Session:
    """What the passes of one snapshot share."""

    gpt2: GPT2LMHeadModel
    probe_set: ProbeSet
    wanted: set[str]
    base: BaseWeights
    is_base: bool
    reference: Mapping[str, np.ndarray]
    watch: Stopwatch
    max_tokens: int

    def wants(self, *groups: str) -> bool:
        return any(MEASURE[name].group in groups for name in self.wanted)


# --- the groups of the table -------------------------------------------------------------------------------------


def _held_out(s: _Session, previous: np.ndarray | None) -> Arrays:
    """Attention, hidden states, loss, neurons, lens and context gain of the held-out examples."""
    probes, config = s.probe_set, s.gpt2.config
    if not s.wants("attention", "hidden", "loss", "neurons", "lens", "context_gain"):
        return {}
    attention = s.wanted & set(OBSERVED)
    logprob_0 = s.reference.get("attn_logprob_0")
    if s.is_base and "attn_logprob_0" in s.wanted:
        attention |= {"attn_logprob"}
    found = ExamplePass(
        s.gpt2,
        probes.examples,
        s.watch,
        attention=attention,
        gold=probes.gold,
        kl=probes.kl if s.wants("attention") else (),
        logprob_0=logprob_0,
        lens=probes.few if s.wants("lens") else (),
        pooled=s.wants("hidden"),
        halves=probes.halves if s.wants("neurons") else None,
        max_tokens=s.max_tokens,
    )
    arrays = {**found.arrays, "probe_loss": found.loss, **found.neurons}
    if "attn_logprob" in arrays:
        arrays["attn_logprob_0"] = arrays["attn_logprob"]
        arrays["attn_kl0"] = np.zeros((len(probes.kl), config.n_layer, config.n_head), np.float32)
    if s.wanted & GEOMETRY:
        with s.watch("hidden"):
            X_0 = found.pooled if s.is_base else s.reference["hidden_pooled_0"]  # noqa: N806
            arrays |= hidden_measures(found.pooled, X_0, previous)
    if s.wants("hidden"):
        arrays |= {"hidden_pooled": half_precision(found.pooled), "hidden_pooled_0": found.pooled}
    if s.wants("lens"):
        arrays |= _lens(s, found)
    if s.wants("context_gain"):
        with s.watch("context_gain"):
            arrays |= context_gains(s.gpt2, probes.examples, probes.others, found.token_nll, s.max_tokens)
    return arrays


GEOMETRY = {measure.name for measure in HIDDEN} - {"hidden_pooled"}


def half_precision(states: np.ndarray) -> np.ndarray:
    """float16; what it cannot hold (a diverged model's) becomes NaN."""
    with np.errstate(over="ignore"):
        rounded = states.astype(np.float16)
    return np.where(np.isinf(rounded), np.float16(np.nan), rounded)


def _lens(s: _Session, found: ExamplePass) -> Arrays:
    """lens_* and lens_base_*, [few_example, hidden_layer]."""
    with s.watch("lens"):
        now = lens_means(s.gpt2, found)
        arrays = {f"lens_{name}": values for name, values in now.items()}
        reads = {name for name, _ in s.gpt2.named_parameters() if _reads_out(name)}
        if s.is_base or not reads & set(s.base.copies):  # the same ln_f and W_U, as with LoRA
            return arrays | {f"lens_base_{name}": values for name, values in now.items()}
        with s.base.replaced(s.gpt2, only=_reads_out):
            then = lens_means(s.gpt2, found)
        return arrays | {f"lens_base_{name}": values for name, values in then.items()}


def _reads_out(parameter: str) -> bool:
    """Whether a parameter belongs to ln_f or the output matrix, which may be the token embedding."""
    return parameter.startswith(("transformer.ln_f", "transformer.wte", "lm_head"))


def _training_rows(s: _Session) -> Arrays:
    if "training_probe_loss" not in s.wanted or not s.probe_set.training:
        return {}
    with s.watch("loss"):
        return {"training_probe_loss": mean_nll(s.gpt2, s.probe_set.training, s.max_tokens)}


def _control(s: _Session) -> Arrays:
    """The same measures on general text."""
    wanted = {name.removeprefix("control_") for name in s.wanted if name.startswith("control_")}
    if not wanted or not s.probe_set.control:
        return {}
    attention = wanted & set(OBSERVED)
    pooled = bool(wanted & {"hidden_displacement", "hidden_pooled_0"})
    texts = s.probe_set.control
    found = ExamplePass(s.gpt2, texts, s.watch, attention=attention, pooled=pooled, max_tokens=s.max_tokens)
    arrays = {f"control_{name}": values for name, values in found.arrays.items()}
    arrays["control_probe_loss"] = found.loss
    if pooled:
        X_0 = found.pooled if s.is_base else s.reference["control_hidden_pooled_0"]  # noqa: N806
        arrays["control_hidden_pooled_0"] = found.pooled
        arrays["control_hidden_displacement"] = displacement_per_example(found.pooled, X_0)
    return arrays


def _patterns(s: _Session) -> Arrays:
    """attn_pattern [pattern_example, layer, head, query_key] float16; NaN where a shorter example has no such row."""
    examples, config = s.probe_set.pattern_examples, s.gpt2.config
    if "attn_pattern" not in s.wanted:
        return {}
    length = max((len(e.input_ids) for e in examples), default=0)
    patterns = np.full((len(examples), config.n_layer, config.n_head, length, length), np.nan, dtype=np.float16)
    for index, example in enumerate(examples):  # one by one: they are few, and none is padded

        def keep(layer, first, scores, a, value, output, into=patterns[index]):
            into[layer, :, first : first + a.shape[2], : a.shape[3]] = a[0].cpu().numpy()

        with s.watch("patterns"):
            read(s.gpt2, torch.tensor([example.input_ids], device=s.gpt2.device), keep)
    return {"attn_pattern": fold_patterns(patterns)}


def _sequences(s: _Session) -> Arrays:
    if not s.wanted & set(STRIPES) or not s.probe_set.sequences:
        return {}
    with s.watch("attention"):
        return head_scores(s.gpt2, s.probe_set.sequences, s.max_tokens)


def _twins(s: _Session) -> Arrays:
    if not s.wants("twins") or not s.probe_set.twins:
        return {}
    with s.watch("twins"):
        return twin_effect(twin_log_odds(s.gpt2, s.probe_set.twins, s.max_tokens))


def _interventions(s: _Session) -> Arrays:
    """What needs gradients, or a model with a part of it changed."""
    few = [s.probe_set.examples[i] for i in s.probe_set.few]
    halves = [s.probe_set.halves[i] for i in s.probe_set.few]
    arrays: Arrays = {}
    if s.wants("probe_gradient"):
        with s.watch("probe_gradient"):
            arrays |= gradient_pass(s.gpt2, few, halves)
    with torch.no_grad():
        if s.wants("ablation"):
            with s.watch("ablation"):
                arrays["ablation_exact"] = ablation_exact(s.gpt2, few, halves, s.max_tokens)
        if s.wants("graft"):
            with s.watch("graft"):
                arrays |= graft(s.gpt2, s.base, few)
        if s.wants("band") and not s.is_base:
            names = {name.removeprefix("band_") for name in s.wanted if name.startswith("band_")}
            with s.watch("band"):
                arrays |= perturbation_band(s.gpt2, s.probe_set, names, s.base, s.reference, s.max_tokens)
    return arrays


def _weights(s: _Session) -> Arrays:
    arrays: Arrays = {}
    if s.wants("weights"):
        with s.watch("weights"):
            arrays |= weight_measures(s.gpt2, s.base)
    if s.wants("spectra"):
        with s.watch("spectra"):
            arrays |= spectra(s.gpt2, s.base)
    return arrays
