"""Measures that take more than one look at the model: the lens, another source, random tokens read twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.inside.attention_observer import RepeatedTokens
from gpt2_interp.inside.example_pass import ExamplePass
from gpt2_interp.inside.losses import target_nll
from gpt2_interp.inside.observation import observed_states
from gpt2_interp.measures.attention import STRIPES
from gpt2_interp.measures.causal import context_gain
from gpt2_interp.measures.lens import lens_measures, mean_over_queries
from gpt2_interp.probes.token_kinds import copied_tokens


def lens_means(gpt2: GPT2LMHeadModel, found: ExamplePass) -> dict[str, np.ndarray]:
    """entropy, kl, rank, logprob: each [lens example, hidden_layer], read with the model's ln_f and output matrix."""
    states, targets, owner = found.lens
    ln_f = gpt2.transformer.ln_f
    values = lens_measures(
        states.to(ln_f.weight.dtype), targets, ln_f, gpt2.lm_head
    )  # of half precision, if that is so
    n = int(owner.max()) + 1 if len(owner) else 0
    return {name: mean_over_queries(v, owner, n).cpu().numpy() for name, v in values.items()}


def context_gains(
    gpt2: GPT2LMHeadModel,
    examples: Sequence[Example],
    others: Sequence[Example | None],
    own: Sequence[np.ndarray],
    max_tokens: int,
) -> dict[str, np.ndarray]:
    """context_gain, context_gain_copied, context_gain_new: each [example]; {} where no example has another source.

    others: each example's target behind another source, or None. own: its loss of each target token behind its own.
    """
    present = [other for other in others if other is not None]
    if not present:
        return {}
    found = iter(target_nll(gpt2, present, max_tokens))
    far = [None if other is None else next(found) for other in others]
    return context_gain(own, far, [copied_tokens(example) for example in examples])


def head_scores(gpt2: GPT2LMHeadModel, sequences: Sequence[Sequence[int]], max_tokens: int) -> dict[str, np.ndarray]:
    """prev_token, duplicate, induction: each [sequence, layer, head].

    sequences: [BOS, r_1..r_T, r_1..r_T], all of one T.
    """
    length = len(sequences[0])
    assert all(len(one) == length for one in sequences) and length % 2 == 1
    parts = []
    for rows in torch.tensor(sequences).split(max(1, max_tokens // length)):
        observer = RepeatedTokens(gpt2.config.n_layer, (length - 1) // 2)
        observed_states(gpt2, rows.to(gpt2.device), observer)
        parts.append(observer.result())
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in STRIPES}
