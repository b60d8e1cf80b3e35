"""Model + probes -> the arrays of one snapshot, in batched passes that leave the model as it was.

Everything is float32 and is reduced to numbers while the forward pass runs. `capture` goes through the groups of the
measure table; what is not wanted is not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from gpt2_interp.inside.ablation import ablation_exact
from gpt2_interp.inside.at_targets import AT_TARGETS
from gpt2_interp.inside.attention_observer import OBSERVED
from gpt2_interp.inside.example_pass import MAX_BATCH_TOKENS, ExamplePass
from gpt2_interp.inside.gradients import gradient_pass
from gpt2_interp.inside.grafts import graft
from gpt2_interp.inside.losses import mean_nll, query_members, token_means, twin_log_odds
from gpt2_interp.inside.observation import Stopwatch, measuring, observed_states
from gpt2_interp.inside.readings import OtherSources, head_scores, lens_means
from gpt2_interp.measures.attention import STRIPES
from gpt2_interp.measures.causal import twin_effect
from gpt2_interp.measures.hidden_states import displacement_per_example, hidden_measures
from gpt2_interp.measures.spectra import spectra
from gpt2_interp.measures.weights import weight_measures
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.recording.bands import Arrays, over_probes, perturbation_band
from gpt2_interp.recording.restored import changed_heads, restoration_arrays
from gpt2_interp.snapshots.patterns import fold_patterns
from gpt2_interp.snapshots.table import FEWEST_PERTURBATIONS, GROUPS, HIDDEN, MEASURE


def capture(
    model: nn.Module,
    probe_set: ProbeSet,
    wanted: Collection[str],
    *,
    base: BaseWeights,
    reference: Mapping[str, np.ndarray] | None = None,
    previous: np.ndarray | None = None,
    perturbations: int = FEWEST_PERTURBATIONS,
    start: Mapping[str, np.ndarray] | None = None,
    every_head: bool = True,
    watch: Stopwatch | None = None,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> Arrays:
    """Measure `model`: the wanted arrays of the measure table, by name, as far as the probes allow them.

    model: a GPT2LMHeadModel, also wrapped by PEFT, DDP or torch.compile. reference: what `write_reference` stored at
    step 0; without one this model is the base, and the reference's arrays can be wanted too. previous: hidden_pooled of
    the snapshot before. perturbations: how many make up the band. start: measures of step 0, as stored, and every_head:
    they say which heads are restored, see `restored.restoration_arrays`. Weights, gradients, training mode, attention
    implementation and random state are left as they were.
    """
    gpt2 = find_gpt2(model)
    whole = Capture(
        gpt2,
        probe_set,
        set(wanted),
        base,
        is_base=reference is None,
        reference=reference or {},
        previous=previous,
        perturbations=perturbations,
        start=start or {},
        every_head=every_head,
        watch=watch or Stopwatch(gpt2.device),
        max_tokens=max_batch_tokens,
    )
    with measuring(gpt2):
        arrays = whole.run(READING) | whole.run(CHANGED)
    return arrays | whole.run(AT_REST)


@dataclass
class Capture:
    """Everything that the parts of one snapshot share."""

    gpt2: GPT2LMHeadModel
    probe_set: ProbeSet
    wanted: set[str]
    base: BaseWeights
    is_base: bool
    reference: Mapping[str, np.ndarray]
    previous: np.ndarray | None
    perturbations: int
    watch: Stopwatch
    max_tokens: int
    start: Mapping[str, np.ndarray] = field(default_factory=dict)
    every_head: bool = True
    measured: Arrays = field(default_factory=dict)  # so far

    def wants(self, *groups: str) -> bool:
        return any(MEASURE[name].group in groups for name in self.wanted)

    def run(self, parts: Sequence[Part]) -> Arrays:
        """The wanted arrays of those parts that have any."""
        found: Arrays = {}
        for part in parts:
            if self.wants(*part.groups):
                with self.watch(part.groups[0]) if part.is_timed else nullcontext():
                    found |= part.measure(self)
                self.measured |= found
        return {name: array for name, array in found.items() if name in self.wanted}

    def claimed_means(self) -> Arrays:
        """Mean over the probes of each wanted measure that a reading gives, [*units], of the model as it is now."""
        with torch.no_grad():
            return {name: over_probes(name, array) for name, array in self.run(READING).items()}


@dataclass(frozen=True)
class Part:
    """Groups of the measure table that are measured together. `measure` returns their arrays by name, as far as the
    probes allow them; others that come along are dropped. is_timed: its time counts for the first group."""

    groups: tuple[str, ...]
    measure: Callable[[Capture], Arrays]
    is_timed: bool = True


# --- while the model reads ---------------------------------------------------------------------------------------


@torch.no_grad()
def _held_out(s: Capture) -> Arrays:
    """Attention, hidden states, numbers at the targets, neurons, lens and context gain of the held-out examples."""
    probes, config = s.probe_set, s.gpt2.config
    attention = s.wanted & set(OBSERVED)
    if s.is_base and "attn_logprob_0" in s.wanted:
        attention |= {"attn_logprob"}
    found = ExamplePass(
        s.gpt2,
        probes.examples,
        s.watch,
        attention=attention,
        numbers=s.wanted & set(AT_TARGETS) | {"probe_loss"},  # context gain asks for it too
        gold=probes.gold,
        kl=probes.kl if s.wants("attention") else (),
        logprob_0=s.reference.get("attn_logprob_0"),
        lens=probes.few if s.wants("lens") else (),
        pooled=s.wants("hidden"),
        halves=probes.halves if s.wants("neurons") else None,
        max_tokens=s.max_tokens,
    )
    arrays = {**found.arrays, **found.numbers, **found.neurons}
    if "probe_loss_by_kind" in s.wanted:
        arrays["probe_loss_by_kind"] = token_means(probes.examples, found.per_token["probe_loss"], probes.kinds)
    if "attn_logprob" in arrays:
        arrays["attn_logprob_0"] = arrays["attn_logprob"]
        arrays["attn_kl0"] = np.zeros((len(probes.kl), config.n_layer, config.n_head), np.float32)
    if s.wants("hidden"):
        with s.watch("hidden"):
            arrays |= _hidden(s, found.pooled)
    if s.wants("lens"):
        with s.watch("lens"):
            arrays |= _lens(s, found)
    return arrays | _other_sources(s, found.per_token["probe_loss"])


def _other_sources(s: Capture, own: Sequence[np.ndarray]) -> Arrays:
    """Return the context gains, and the measures other_*; own: the loss of each target token behind its own source."""
    wanted = {name.removeprefix("other_") for name in s.wanted if name.startswith("other_")}
    if not (wanted or s.wants("context_gain")) or not any(s.probe_set.others):
        return {}
    pooled = bool(wanted & {"hidden_displacement", "hidden_pooled_0"})
    with s.watch("context_gain"):
        found = OtherSources(s.gpt2, s.probe_set.others, s.max_tokens, wanted & set(OBSERVED), pooled)
    arrays = {f"other_{name}": values for name, values in found.arrays.items()}
    if pooled:
        X_0 = found.pooled if s.is_base else s.reference["other_hidden_pooled_0"]  # noqa: N806
        arrays["other_hidden_pooled_0"] = found.pooled
        arrays["other_hidden_displacement"] = displacement_per_example(found.pooled, X_0)
    return arrays | found.context_gains(s.probe_set.examples, own, s.probe_set.kinds)


def _hidden(s: Capture, pooled: np.ndarray) -> Arrays:
    """Measure the hidden states; pooled: [example, pooling, hidden_layer, d_model]."""
    arrays = {"hidden_pooled": half_precision(pooled), "hidden_pooled_0": pooled} if s.wanted & POOLED_STATES else {}
    if s.wanted & GEOMETRY:
        X_0 = pooled if s.is_base else s.reference["hidden_pooled_0"]  # noqa: N806
        if s.wanted & GEOMETRY == {"hidden_displacement"}:  # as in a band, where the rest would take minutes
            return arrays | {"hidden_displacement": displacement_per_example(pooled, X_0)}
        half_samples = any(name.endswith("_half_samples") for name in s.wanted)
        clusters = [example.cluster for example in s.probe_set.examples]
        arrays |= hidden_measures(pooled, X_0, s.previous, half_samples, clusters)
    return arrays


POOLED_STATES = {"hidden_pooled", "hidden_pooled_0"}
GEOMETRY = {measure.name for measure in HIDDEN} - {"hidden_pooled"}


def half_precision(states: np.ndarray) -> np.ndarray:
    """float16; what it cannot hold (a diverged model's) becomes NaN."""
    with np.errstate(over="ignore"):
        rounded = states.astype(np.float16)
    return np.where(np.isinf(rounded), np.float16(np.nan), rounded)


def _lens(s: Capture, found: ExamplePass) -> Arrays:
    """lens_* and lens_base_*, [few_example, hidden_layer], and by kind of token."""
    few, _, kinds = _few(s)
    by_kind = "lens_logprob_by_kind" in s.wanted
    now = lens_means(s.gpt2, found, query_members(few, kinds) if by_kind else None)
    arrays = {f"lens_{name}": values for name, values in now.items()}
    if not any(name.startswith("lens_base_") for name in s.wanted):
        return arrays
    reads = {name for name, _ in s.gpt2.named_parameters() if _reads_out(name)}
    if s.is_base or not reads & set(s.base.copies):  # the same ln_f and W_U, as with LoRA
        return arrays | {f"lens_base_{name}": values for name, values in now.items()}
    with s.base.replaced(s.gpt2, only=_reads_out):
        then = lens_means(s.gpt2, found)
    return arrays | {f"lens_base_{name}": values for name, values in then.items()}


def _reads_out(parameter: str) -> bool:
    """Return whether a parameter belongs to ln_f or the output matrix, which may be the token embedding."""
    return parameter.startswith(("transformer.ln_f", "transformer.wte", "lm_head"))


@torch.no_grad()
def _training_rows(s: Capture) -> Arrays:
    if "training_probe_loss" not in s.wanted or not s.probe_set.training:
        return {}
    return {"training_probe_loss": mean_nll(s.gpt2, s.probe_set.training, s.max_tokens)}


@torch.no_grad()
def _control(s: Capture) -> Arrays:
    """Take the same measures on general text."""
    wanted = {name.removeprefix("control_") for name in s.wanted if name.startswith("control_")}
    if not wanted or not s.probe_set.control:
        return {}
    pooled = bool(wanted & {"hidden_displacement", "hidden_pooled_0"})
    found = ExamplePass(
        s.gpt2,
        s.probe_set.control,
        s.watch,
        attention=wanted & set(OBSERVED),
        numbers=wanted & set(AT_TARGETS) - {"probe_loss"},
        pooled=pooled,
        max_tokens=s.max_tokens,
    )
    arrays = {f"control_{name}": values for name, values in (found.arrays | found.numbers).items()}
    if "probe_loss" in wanted:
        with s.watch("loss"):
            arrays["control_probe_loss"] = mean_nll(s.gpt2, s.probe_set.general, s.max_tokens)
    if pooled:
        X_0 = found.pooled if s.is_base else s.reference["control_hidden_pooled_0"]  # noqa: N806
        arrays["control_hidden_pooled_0"] = found.pooled
        arrays["control_hidden_displacement"] = displacement_per_example(found.pooled, X_0)
    return arrays


@torch.no_grad()
def _patterns(s: Capture) -> Arrays:
    """attn_pattern [pattern_example, layer, head, query_key] float16; NaN where a shorter example has no such row."""
    examples, config = s.probe_set.pattern_examples, s.gpt2.config
    length = max((len(e.input_ids) for e in examples), default=0)
    patterns = np.full((len(examples), config.n_layer, config.n_head, length, length), np.nan, dtype=np.float16)

    def keeping(into: np.ndarray) -> Callable:
        """An observer that keeps the attention of one example in `into` [layer, head, query, key]."""

        def keep(layer, first, scores, a, value, output):
            into[layer, :, first : first + a.shape[2], : a.shape[3]] = a[0].cpu().numpy()

        return keep

    for example, into in zip(examples, patterns, strict=True):  # one by one: they are few, and none is padded
        observed_states(s.gpt2, torch.tensor([example.input_ids], device=s.gpt2.device), keeping(into))
    return {"attn_pattern": fold_patterns(patterns)}


@torch.no_grad()
def _sequences(s: Capture) -> Arrays:
    if not s.wanted & set(STRIPES) or not s.probe_set.sequences:
        return {}
    return head_scores(s.gpt2, s.probe_set.sequences, s.max_tokens)


@torch.no_grad()
def _twins(s: Capture) -> Arrays:
    if not s.probe_set.twins:
        return {}
    return twin_effect(twin_log_odds(s.gpt2, s.probe_set.twins, s.max_tokens))


# --- with gradients, or with a part of the model changed ---------------------------------------------------------


def _few(s: Capture) -> tuple[list, list[int], list[np.ndarray]]:
    """Return (the few examples, the half of each, the kinds of its tokens)."""
    probes = s.probe_set
    each = (probes.examples, probes.halves, probes.kinds)
    examples, halves, kinds = ([values[i] for i in probes.few] for values in each)
    return examples, halves, kinds


@torch.no_grad()
def _ablation(s: Capture) -> Arrays:
    return ablation_exact(s.gpt2, *_few(s), s.max_tokens)


@torch.no_grad()
def _graft(s: Capture) -> Arrays:
    examples, _, kinds = _few(s)
    return graft(s.gpt2, s.base, examples, kinds)


def _band(s: Capture) -> Arrays:
    if s.is_base:
        return {}
    names = {name.removeprefix("band_") for name in s.wanted if MEASURE[name].group == "band"}
    few = few_probes(s.gpt2, s.probe_set, names, s.base, s.reference, s.max_tokens)
    return perturbation_band(s.gpt2, s.base, few.claimed_means, s.perturbations)


def _restoration(s: Capture) -> Arrays:
    if s.is_base:
        return {}
    probes = s.probe_set
    of_example = [e.cluster for e in probes.examples]
    clusters = {
        "example": of_example,
        "kl_example": [of_example[i] for i in probes.kl],
        "sequence": [f"sequence {i}" for i in range(len(probes.sequences))],
    }
    changed = changed_heads(s.start, s.measured, clusters)
    return restoration_arrays(s.gpt2, probes, s.base, changed, s.every_head, s.perturbations, s.max_tokens)


def few_probes(
    gpt2: GPT2LMHeadModel,
    probe_set: ProbeSet,
    names: Collection[str],
    base: BaseWeights,
    reference: Mapping[str, np.ndarray],
    max_tokens: int = MAX_BATCH_TOKENS,
) -> Capture:
    """A capture of the few probes alone, for measures that are taken again and again. Used while `measuring`."""
    if "hidden_pooled_0" in reference:
        reference = {**reference, "hidden_pooled_0": reference["hidden_pooled_0"][list(probe_set.kl)]}
    return Capture(
        gpt2,
        probe_set.restricted(),
        set(names),
        base,
        is_base=False,
        reference=reference,
        previous=None,
        perturbations=0,
        watch=Stopwatch(gpt2.device),  # of its own: its time counts for the band
        max_tokens=max_tokens,
    )


def precision_floor(
    model: nn.Module,
    probe_set: ProbeSet,
    names: Collection[str],
    base: BaseWeights,
    reference: Mapping[str, np.ndarray],
    dtype: torch.dtype,
) -> Arrays:
    """floor_<name> [*units]: what computing in `dtype` instead of float32 does to the claimed measures `names`."""
    gpt2 = find_gpt2(model)
    with measuring(gpt2):
        few = few_probes(gpt2, probe_set, names, base, reference)
        exact = few.claimed_means()
        with torch.autocast(gpt2.device.type, dtype=dtype):
            rough = few.claimed_means()
    return {f"floor_{name}": rough[name] - exact[name] for name in exact}


# --- the parts; a new group of measures is one row ---------------------------------------------------------------

READING = (
    Part(("attention", "hidden", "loss", "neurons", "lens", "context_gain"), _held_out, is_timed=False),
    Part(("loss",), _training_rows),
    Part(GROUPS, _control, is_timed=False),
    Part(("patterns",), _patterns),
    Part(("attention",), _sequences),
    Part(("twins",), _twins),
)
CHANGED = (
    Part(("probe_gradient",), lambda s: gradient_pass(s.gpt2, *_few(s)[:2])),
    Part(("ablation",), _ablation),
    Part(("graft",), _graft),
    Part(("band",), _band),
    Part(("restoration",), _restoration),
)
AT_REST = (
    Part(("weights",), lambda s: weight_measures(s.gpt2, s.base)),
    Part(("spectra",), lambda s: spectra(s.gpt2, s.base)),
)
