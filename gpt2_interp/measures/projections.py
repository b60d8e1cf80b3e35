"""The rows of attention nearest to a head's own in which one number is another one.

A row's number (a share, a mean, an entropy) is given another value, and nothing else is changed: of all rows with that
value, the one from which the Kullback-Leibler divergence KL(a' || a) is the least. That is Csiszar's I-projection
(1975, I-divergence geometry of probability distributions and minimization problems).

All functions take rows a: [..., key], not negative, with sum 1, 0 at keys that a query does not see, and return rows of
the same shape, float64 (float32 on mps, which has no more). A row is NaN where none on the keys with a > 0 has the
value, or where the value is NaN. The number may be one of the keys `within` alone ([..., key] bool), as are shares of
what does not rest on the first token; then the row keeps its proportions elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-6  # of a number from its value, in units of the number's range
PRECISE = {torch.float32: 2e-6, torch.float64: 1e-9}  # at which a search ends
MOST_STEPS = {torch.float32: 40, torch.float64: 100}  # of a search: many more than it takes
Evaluated = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (x, which rows), each [open] -> (value, slope)
WIDEST = 30.0  # logarithm of the largest and smallest power of a row that is tried


def with_share(a: Tensor, members: Tensor, target: Tensor, within: Tensor | None = None) -> Tensor:
    """Return the rows whose keys `members` [..., key] bool have the share `target` [...] of the attention on `within`.

    In closed form: members are multiplied by target / share, the other keys of `within` by (1 - target) / (1 - share).
    """
    inside = _conditional(a, within)
    members, target = members.expand(a.shape), target.to(inside)
    share = (inside * members).sum(-1)
    rest = (inside * ~members).sum(-1)  # not 1 - share, which cancels
    of_members, of_rest = _ratio(target, share), _ratio(1 - target, rest)
    known = ~(of_members.isnan() | of_rest.isnan())[..., None]
    factor = torch.where(members, of_members[..., None], of_rest[..., None])
    return _around(a, within, inside, torch.where(known, inside * factor, torch.nan))


def with_mean(a: Tensor, values: Tensor, target: Tensor, within: Tensor | None = None) -> Tensor:
    """Return the rows over which the mean of `values` [..., key] on the keys `within` is `target` [...].

    a'_j = a_j exp(lambda values_j) / Z; lambda by Newton's method, kept inside a shrinking bracket.
    """
    inside = _conditional(a, within)
    values, target = values.to(inside).expand(a.shape), target.to(inside)[..., None]
    has = inside > 0
    distance = torch.where(has, values - target, 0)  # of a key's value from the target
    scale = distance.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(inside.dtype).tiny)
    distance = distance / scale  # -1..1, so that lambda has the same size for any unit
    highest = distance.masked_fill(~has, -torch.inf).amax(-1)
    lowest = distance.masked_fill(~has, torch.inf).amin(-1)
    found = torch.full_like(inside, torch.nan)
    for end in (lowest, highest):  # a limit: all attention on the keys that have the largest or smallest value
        at_end = (end.abs() <= TOLERANCE)[..., None] & has & ((distance - end[..., None]).abs() <= TOLERANCE)
        found = torch.where(at_end.any(-1, keepdim=True), _conditional(inside, at_end), found)
    between = (lowest < -TOLERANCE) & (highest > TOLERANCE)
    log_p, distance = inside[between].log(), distance[between]

    def search(dtype: torch.dtype) -> Evaluated:
        log_q, x = log_p.to(dtype), distance.to(dtype)

        def evaluated(lam: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            values = x[rows]
            return _mean_and_variance(log_q[rows] + lam[:, None] * values, values)

        return evaluated

    lam = _root(search, torch.zeros_like(target[..., 0][between]))
    found[between] = (log_p + lam[:, None] * distance).softmax(-1)
    return _around(a, within, inside, found)


def with_entropy(a: Tensor, target: Tensor, within: Tensor | None = None) -> Tensor:
    """Return the rows whose entropy on the keys `within` is `target` [...], in nats.

    a'_j = a_j^tau / Z with tau > 0; the logarithm of tau by Newton's method, kept inside a shrinking bracket.
    """
    inside = _conditional(a, within)
    target = target.to(inside)
    has = inside > 0
    log_p = inside.log()
    log_p = (log_p - log_p.amax(-1, keepdim=True)).masked_fill(~has, -torch.inf)  # the most attended key has 0
    tops = has & (log_p >= -TOLERANCE)
    most, least = has.sum(-1).to(inside).log(), tops.sum(-1).to(inside).log()
    found = torch.full_like(inside, torch.nan)
    for end, keys in ((most, has), (least, tops)):  # limits: all keys alike, or only the most attended ones
        at_end = ((target - end).abs() <= TOLERANCE)[..., None] & keys
        found = torch.where(at_end.any(-1, keepdim=True), at_end / at_end.sum(-1, keepdim=True), found)
    between = (target > least + TOLERANCE) & (target < most - TOLERANCE)
    log_p, wanted = log_p[between], target[between]

    def search(dtype: torch.dtype) -> Evaluated:
        log_q = log_p.to(dtype)
        finite, goal = log_q.masked_fill(log_q.isneginf(), 0), wanted.to(dtype)

        def evaluated(power: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            tau = power.exp()
            scaled = tau[:, None] * log_q[rows]
            mean, variance = _mean_and_variance(scaled, finite[rows])
            return goal[rows] - (scaled.logsumexp(-1) - tau * mean), tau.square() * variance

        return evaluated

    power = _root(search, torch.zeros_like(wanted), WIDEST)
    found[between] = (power.exp()[:, None] * log_p).softmax(-1)
    return _around(a, within, inside, found)


def entropy(a: Tensor, within: Tensor | None = None) -> Tensor:
    """Return the entropy of rows [..., key] on the keys `within`, [...] in nats; NaN where they have no attention."""
    inside = _conditional(a, within)
    return torch.where(inside.isnan(), torch.nan, -torch.xlogy(inside, inside)).sum(-1)


# --- the parts of a row ------------------------------------------------------------------------------------------


def _conditional(a: Tensor, within: Tensor | None) -> Tensor:
    """Return what of a row is `within`, renormalised to 1, float64; NaN where that is nothing."""
    a = a.to(torch.float32 if a.device.type == "mps" else torch.float64)
    inside = a if within is None else a * within
    return inside / inside.sum(-1, keepdim=True)


def _ratio(wanted: Tensor, share: Tensor) -> Tensor:
    """Return wanted / share; 1 where both are 0, NaN where no factor gives what is wanted."""
    ratio = torch.where(share > 0, wanted / share, torch.where(wanted.abs() <= TOLERANCE, 1.0, torch.nan))
    return ratio.masked_fill((wanted < -TOLERANCE) | (wanted > 1 + TOLERANCE), torch.nan).clamp_min(0)


def _around(a: Tensor, within: Tensor | None, inside: Tensor, found: Tensor) -> Tensor:
    """Return the rows that are `found` on the keys `within` and in proportion to `a` elsewhere.

    inside, found: [..., key] distributions on `within`. How much attention the two sides get is part of the
    projection: the odds of `within` fall by the factor exp(-KL(found || inside)).
    """
    found = found / found.sum(-1, keepdim=True)
    if within is None:
        return found
    a = a.to(found)
    divergence = (torch.xlogy(found, found) - torch.xlogy(found, inside).masked_fill(found == 0, 0)).sum(-1)
    weight = (a * within).sum(-1) * (-divergence).exp()
    rows = torch.where(within, weight[..., None] * found, a)
    return (rows / rows.sum(-1, keepdim=True)).masked_fill(weight.isnan()[..., None], torch.nan)


def _mean_and_variance(logits: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of `values` [row, key] under softmax(logits) [row, key], each [row]."""
    p = logits.softmax(-1)
    mean = torch.linalg.vecdot(p, values)
    centred = values - mean[:, None]
    return mean, torch.linalg.vecdot(p, centred.square_())


def _root(search: Callable[[torch.dtype], Evaluated], x: Tensor, bound: float = 1e8) -> Tensor:
    """Return where an increasing function of one number is 0, for many rows at once: [row]; x: [row], where to begin.

    search: makes the function of numbers of a type. First float32, which is fast, then the type of x, for the last
    digits. A step of Newton's method may at most about triple x; where it leaves the bracket of what is known, the
    bracket is halved instead.
    """
    for dtype in dict.fromkeys((torch.float32, x.dtype)):
        function, x = search(dtype), x.to(dtype)
        low, high = torch.full_like(x, -bound), torch.full_like(x, bound)
        rows = torch.arange(len(x), device=x.device)
        for _ in range(MOST_STEPS[dtype]):
            at = x[rows]
            value, slope = function(at, rows)
            still = value.abs() > PRECISE[dtype]
            rows, at, value, slope = rows[still], at[still], value[still], slope[still]
            if not len(rows):
                break
            low[rows], high[rows] = torch.where(value < 0, at, low[rows]), torch.where(value > 0, at, high[rows])
            longest = 2 * at.abs() + 2
            new = at - (value / slope).nan_to_num(nan=torch.inf).clamp(-longest, longest)
            outside = (new <= low[rows]) | (new >= high[rows])
            x[rows] = torch.where(outside, (low[rows] + high[rows]) / 2, new)
    return x
