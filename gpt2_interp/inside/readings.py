"""Measures that take more than one look at the model: the lens, another source, random tokens read twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.inside.attention_observer import RepeatedTokens
from gpt2_interp.inside.example_pass import ExamplePass
from gpt2_interp.inside.losses import kind_means, token_means
from gpt2_interp.inside.observation import Stopwatch, observed_states
from gpt2_interp.measures.attention import STRIPES
from gpt2_interp.measures.causal import context_gain
from gpt2_interp.measures.lens import lens_measures, mean_over_queries
from gpt2_interp.probes.token_kinds import copied_tokens
from gpt2_interp.snapshots.table import POOLINGS


def lens_means(gpt2: GPT2LMHeadModel, found: ExamplePass, members: torch.Tensor | None = None) -> dict[str, np.ndarray]:
    """entropy, kl, rank, logprob: each [lens example, hidden_layer], read with the model's ln_f and output matrix.

    members: [queries, kind] bool, of which kinds the tokens of found.lens are; with them also logprob_by_kind [lens
    example, hidden_layer, kind].
    """
    states, targets, owner = found.lens
    ln_f = gpt2.transformer.ln_f
    values = lens_measures(
        states.to(ln_f.weight.dtype), targets, ln_f, gpt2.lm_head
    )  # of half precision, if that is so
    n = int(owner.max()) + 1 if len(owner) else 0
    means = {name: mean_over_queries(v, owner, n).cpu().numpy() for name, v in values.items()}
    if members is not None:
        of_layers = [kind_means(layer, owner, n, members.to(owner.device)) for layer in values["logprob"]]
        means["logprob_by_kind"] = torch.stack(of_layers, dim=1).cpu().numpy()
    return means


class OtherSources:
    """One pass over the examples' targets behind other sources: their losses, attention and hidden states.

    per_token: for each example the loss of each target token, None where it has no other source. arrays: the attention
    measures by name, in region Q, [example, layer, head]. pooled: [example, hidden_layer, d_model], mean over region Q;
    None if not asked for. NaN for an example without another source.
    """

    def __init__(
        self,
        gpt2: GPT2LMHeadModel,
        others: Sequence[Example | None],
        max_tokens: int,
        attention: Collection[str] = (),
        pooled: bool = False,
    ):
        """others: each example's target behind another source, or None; at least one is there. attention: names of
        `attention_observer.OBSERVED`."""
        present = [i for i, other in enumerate(others) if other is not None]
        found = ExamplePass(
            gpt2,
            [others[i] for i in present],
            Stopwatch(gpt2.device),  # of its own: its time counts for what it is asked for
            attention=attention,
            pooled=pooled,
            targets_only=True,
            max_tokens=max_tokens,
        )

        def spread(values: np.ndarray) -> np.ndarray:
            full = np.full((len(others), *values.shape[1:]), np.nan, values.dtype)
            full[present] = values
            return full

        losses = dict(zip(present, found.per_token["probe_loss"], strict=True))
        self.per_token = [losses.get(i) for i in range(len(others))]
        self.arrays = {name: spread(values) for name, values in found.arrays.items()}
        self.pooled = spread(found.pooled[:, POOLINGS.index("target_mean")]) if found.pooled is not None else None

    def context_gains(
        self, examples: Sequence[Example], own: Sequence[np.ndarray], kinds: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """context_gain, context_gain_copied, context_gain_new: [example] each; context_gain_by_kind: [example, kind].

        own: for each example the loss of each target token behind its own source. kinds: [n_target, kind] bool of each.
        """
        gains = [
            np.full(len(near), np.nan) if far is None else far.astype(np.float64) - near
            for near, far in zip(own, self.per_token, strict=True)
        ]
        by_kind = {"context_gain_by_kind": token_means(examples, gains, kinds)}
        return context_gain(own, self.per_token, [copied_tokens(example) for example in examples]) | by_kind


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
