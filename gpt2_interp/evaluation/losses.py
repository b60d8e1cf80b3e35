"""Target losses and perplexity of test rows, with intervals."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gpt2_interp.data.examples import IGNORED, Example
from gpt2_interp.model.packed import pack, packed_attention, packed_token_losses
from gpt2_interp.statistics.intervals import interval

# --- loss ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TargetLosses:
    """Summed negative log-likelihood (nats) and number of supervised tokens of each example, both [example]."""

    total: np.ndarray
    tokens: np.ndarray

    def mean_per_token(self) -> float:
        return float(self.total.sum() / self.tokens.sum())

    @staticmethod
    def merge(shares: Sequence[TargetLosses]) -> TargetLosses:
        """Losses of examples dealt out in turn: share r has examples r, r + len(shares), ..."""
        total, tokens = (np.concatenate([getattr(share, name) for share in shares]) for name in ("total", "tokens"))
        dealt = np.concatenate([np.arange(len(share.total)) * len(shares) + r for r, share in enumerate(shares)])
        order = np.argsort(dealt)
        return TargetLosses(total[order], tokens[order])

    def of(self, examples: Sequence[bool]) -> TargetLosses:
        """Return the losses of some of the examples; examples: [example] bool."""
        return TargetLosses(self.total[examples], self.tokens[examples])

    def summed(self, clusters: Sequence[str]) -> TargetLosses:
        """One entry a cluster, so that intervals resample whole clusters; clusters: [example] names."""
        _, index = np.unique(np.asarray(clusters), return_inverse=True)
        return TargetLosses(np.bincount(index, self.total), np.bincount(index, self.tokens).astype(np.int64))


@torch.inference_mode()
def target_losses(
    model,
    examples: Sequence[Example],
    batch_size: int,
    context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> TargetLosses:
    """Teacher-forced loss of each example's target in eval mode; `context` is the autocast of training, if any."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    total, tokens = np.zeros(len(examples)), np.zeros(len(examples), dtype=np.int64)
    with packed_attention(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in pack([examples[i] for i in rows]).items()}
            with context():
                losses = packed_token_losses(model, batch)  # [supervised tokens of all rows]
            tokens[rows] = [sum(label != IGNORED for label in examples[i].labels[1:]) for i in rows]
            for i, of_row in zip(rows, losses.double().cpu().split(tokens[rows].tolist()), strict=True):
                total[i] = of_row.sum()
    model.train(was_training)
    return TargetLosses(total, tokens)


def perplexity(loss: float) -> float:
    """Return exp(loss in nats/token); infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def loss_scores(losses: TargetLosses, suffix: str = "") -> dict[str, float]:
    """loss and perplexity over all tokens, with 95% bounds from resampling examples."""
    loss = losses.mean_per_token()
    scores = {f"loss{suffix}": loss, f"perplexity{suffix}": perplexity(loss)}
    if len(losses.total) > 1:
        low, high = interval(lambda t, n, axis: t.sum(axis=axis) / n.sum(axis=axis), losses.total, losses.tokens)
        scores |= {
            f"loss{suffix}_low": low,
            f"loss{suffix}_high": high,
            f"perplexity{suffix}_low": perplexity(low),
            f"perplexity{suffix}_high": perplexity(high),
        }
    return scores


# --- ROUGE -----------------------------------------------------------------------------------------------------
