"""The probability and rank of every token of a text."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@contextlib.contextmanager
def _eval_mode(model):
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@dataclass(frozen=True)
class TokenProbability:
    """One token of a text. probability: under the model's own distribution, before temperature, truncation and
    penalties; rank: 1 is the likeliest; alternatives: the likeliest tokens (id, probability), this one too if it is
    among them."""

    token_id: int
    probability: float
    rank: int
    alternatives: tuple[tuple[int, float], ...]


@torch.no_grad()
def token_probabilities(model, prompt_ids: Sequence[int], ids: Sequence[int], top: int = 5) -> list[TokenProbability]:
    """Return how likely each of `ids` was behind the prompt and the ids before it: one pass over all, whatever method
    wrote them. The prompt must not be empty."""
    if not len(ids):
        return []
    device = next(model.parameters()).device
    inputs = torch.tensor([[*prompt_ids, *ids[:-1]]], device=device)
    with _eval_mode(model):
        logits = model(input_ids=inputs, logits_to_keep=len(ids), use_cache=False).logits[0]  # [len(ids), vocabulary]
    probabilities = logits.float().softmax(dim=-1).cpu()
    chosen = probabilities.gather(1, torch.tensor(ids)[:, None])  # [len(ids), 1]
    ranks = 1 + (probabilities > chosen).sum(dim=1)
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    return [
        TokenProbability(token, p, rank, tuple(zip(others, others_p, strict=True)))
        for token, p, rank, others, others_p in zip(
            ids, chosen[:, 0].tolist(), ranks.tolist(), best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
