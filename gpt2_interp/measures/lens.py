"""The logit lens: what each layer would predict if the model ended there (nostalgebraist 2020; Belrose et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gpt2_interp.model.anatomy import LOGITS_AT_ONCE

_BUFFERS = 3  # the final prediction, a layer's logits, and its prediction


@torch.no_grad()
def lens_measures(
    states: Tensor,
    targets: Tensor,
    norm: Callable[[Tensor], Tensor],
    output: Callable[[Tensor], Tensor],
    max_logits: int = LOGITS_AT_ONCE,
) -> dict[str, Tensor]:
    """Compute how undecided each layer is, how far from the final prediction, and what it thinks of the right token.

    states: [hidden_layer, queries, d_model] before ln_f, the last one final; targets: [queries] token ids. norm and
    output: ln_f and the output matrix (lm_head), [queries, d_model] -> [queries, d_model] -> new logits [queries,
    vocab]; the final prediction goes through the same two. Queries are taken in pieces, so that at most `max_logits`
    numbers in tensors of the logits' size are held at once (those of one query at least).

    Returns, each [hidden_layer, queries] float32: entropy, bits; kl = KL(p_final || p_l), bits, exactly 0 at the last
    layer; rank = 1 + #{logits > the target's}; logprob of the target, nats. NaN where a prediction is not finite.
    """
    n_layer, n_query = states.shape[:2]
    names = ("entropy", "kl", "rank", "logprob")
    result = {name: torch.full((n_layer, n_query), torch.nan, device=states.device) for name in names}
    if n_query == 0:
        return result
    rows = max(1, max_logits // (_BUFFERS * output(norm(states[-1, :1])).shape[-1]))
    for first in range(0, n_query, rows):
        chunk = slice(first, first + rows)
        p_final = final_cross = None
        for layer in reversed(range(n_layer)):  # the last one first: the others are compared with it
            entropy, cross, rank, logprob, p_final = _measure(
                output(norm(states[layer, chunk])).float(), targets[chunk, None], p_final
            )
            final_cross = cross if final_cross is None else final_cross
            result["entropy"][layer, chunk] = entropy / math.log(2)
            # The last layer's is x - x. Others are sums of 50,000 roundings, which could come out below 0.
            result["kl"][layer, chunk] = (cross - final_cross).clamp_min(0) / math.log(2)
            result["rank"][layer, chunk] = rank.masked_fill(logprob.isnan(), torch.nan)
            result["logprob"][layer, chunk] = logprob
    return result


def _measure(logits: Tensor, targets: Tensor, p_final: Tensor | None) -> tuple[Tensor, ...]:
    """Entropy and cross entropy -sum p_final log p (nats), rank and log p of the targets, each [rows]; p_final.

    logits: [rows, vocab], overwritten; targets: [rows, 1]. Without p_final: the logits' own, [rows, vocab]. In place,
    because a pass over the logits costs little beside their matrix product only while nothing is allocated.
    """
    scratch = torch.empty_like(logits)
    rank = 1 + torch.gt(logits, logits.gather(-1, targets), out=scratch).sum(dim=-1)
    p = torch.softmax(logits, dim=-1, out=scratch)
    # log p = z - max z + log max p, since max p = 1 / sum exp(z - max z): without a second, slow exp
    log_p = logits.sub_(logits.amax(dim=-1, keepdim=True)).add_(p.amax(dim=-1, keepdim=True).log_())
    if p_final is None:
        p_final = p.clone()
    entropy = -p.mul_(log_p).sum(dim=-1)
    cross = -torch.mul(p_final, log_p, out=scratch).sum(dim=-1)
    return entropy, cross, rank, log_p.gather(-1, targets).squeeze(-1), p_final


def mean_over_queries(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Mean over the queries of each example: [example, hidden_layer]; NaN for an example without queries.

    values: [hidden_layer, queries]; owner: [queries], the example 0..n-1 that each query belongs to.
    """
    total = values.new_zeros(n, len(values)).index_add_(0, owner, values.T)
    return total / torch.bincount(owner, minlength=n)[:, None]
