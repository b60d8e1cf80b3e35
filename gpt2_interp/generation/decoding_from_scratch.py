"""Five ways to write text with a language model, from scratch and to be read: one prompt, one function each.

A language model reads L tokens and gives every token of its vocabulary (V of them) a score for coming next: the logits.
A decoding algorithm turns scores into text, one token after the other:

    greedy_search       always the most probable token
    beam_search         keeps several texts at once, to find one that is more probable as a whole
    ancestral_sampling  draws from the model's distribution
    top_k_sampling      draws from the k most probable tokens                          Fan et al. 2018
    top_p_sampling      draws from the fewest tokens that together have probability p  Holtzman et al. 2020

Every one gives the very tokens of `transformers.generate` (5.23) for a single prompt in float32, with the same settings
and seed. The order of operations is therefore its order:

    logits -> repetition penalty -> n-gram ban -> temperature -> top-k -> top-p -> softmax -> draw
    logits -> log softmax -> repetition penalty -> n-gram ban -> sum over the beam -> the best 2 * num_beams

Where a paper has it otherwise, or transformers does more, a line beginning with "Note" stands where it happens.
A batch of prompts, several draws for one prompt and defaults are not here: `generate.py` beside this file has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from gpt2_interp.generation.settings import Decoding

Ids = Sequence[int]  # tokens
IMPOSSIBLE = -1e9  # below the score of any text


@dataclass(frozen=True)
class Rules:
    """Rules for all five algorithms: where to stop, and what may not be repeated.

    Note: the caller sees to it that prompt and new tokens fit `n_positions`, else the position embedding raises an
    IndexError; transformers does not check that either.
    """

    max_new_tokens: int
    eos_token_id: int | None = None  # the token that ends a text; it is the last of what is returned
    repetition_penalty: float = 1.0  # 1: none
    no_repeat_ngram: int = 0  # 0: none


# --- one token after the other: four of the five differ in `choose` alone ------------------------------------------


@torch.no_grad()
def write(model, prompt_ids: Ids, rules: Rules, choose: Callable[[Tensor], Tensor]) -> list[int]:
    """Return the prompt's continuation; `choose` takes the scores [V] of the next token and returns the token.

    The model keeps the keys and values of all it has read in a cache, so every step after the first reads one token.
    """
    ids = list(prompt_ids)
    unread, cache = torch.tensor([ids], device=model.device), None  # [1, L]
    for _ in range(rules.max_new_tokens):
        output = model(input_ids=unread, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values  # per layer: keys and values [1, n_head, len(ids), head_size]
        logits = output.logits[0, -1].float()  # [V]; also where the model computes in 16 bits
        token = int(choose(discourage_repetition(logits, ids, rules)))
        ids.append(token)
        if token == rules.eos_token_id:
            break
        unread = torch.tensor([[token]], device=model.device)  # [1, 1]
    return ids[len(prompt_ids) :]


def greedy_search(model, prompt_ids: Ids, rules: Rules) -> list[int]:
    """Take the most probable token at every step."""
    return write(model, prompt_ids, rules, torch.argmax)


def ancestral_sampling(model, prompt_ids: Ids, rules: Rules, generator: Generator, temperature=1.0) -> list[int]:
    """Draw every token with the probability that the model gives it.

    Note: for pure sampling transformers needs top_k=0, because `generate` samples from the top 50 by default.
    """
    return write(model, prompt_ids, rules, lambda scores: draw(scores / temperature, generator))


def top_k_sampling(
    model, prompt_ids: Ids, rules: Rules, generator: Generator, temperature=1.0, top_k=50, top_p=None
) -> list[int]:
    """Draw from the k most probable tokens (Fan et al. 2018); with `top_p` from their nucleus."""

    def choose(scores: Tensor) -> Tensor:  # [V] -> []
        scores = keep_top_k(scores / temperature, top_k)
        return draw(keep_top_p(scores, top_p) if top_p else scores, generator)

    return write(model, prompt_ids, rules, choose)


def top_p_sampling(
    model, prompt_ids: Ids, rules: Rules, generator: Generator, temperature=1.0, top_p=0.9, top_k=None
) -> list[int]:
    """Draw from the nucleus: the fewest tokens with probability p (Holtzman et al. 2020, section 3.1).

    With `top_k` the nucleus is that of the k most probable tokens, whose probabilities then sum to 1: k first, then p.
    """

    def choose(scores: Tensor) -> Tensor:  # [V] -> []
        scores = keep_top_k(scores / temperature, top_k) if top_k else scores / temperature
        return draw(keep_top_p(scores, top_p), generator)

    return write(model, prompt_ids, rules, choose)


def draw(scores: Tensor, generator: Generator) -> Tensor:
    """scores [V] -> []: a token with probability softmax(scores).

    Note: torch.multinomial(p, 1) takes the token with the largest p / e, with one e ~ Exp(1) for every token of the
    vocabulary. With num_return_sequences all sequences of a `generate` call share one stream of these, so none is what
    its seed would give alone; here each has a generator of its own.
    """
    return torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=generator)[0]


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Set all but the k largest scores to minus infinity: [V] -> [V].

    Note: in transformers, and so here, a token as good as the k-th stays too: with ties more than k are left.
    """
    kth_largest = torch.topk(scores, min(k, len(scores))).values[-1]  # []
    return scores.masked_fill(scores < kth_largest, -torch.inf)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Set all scores outside the nucleus, the smallest set of most probable tokens with sum >= p, to minus infinity:
    [V] -> [V].

    From the least probable upwards, a token leaves while it and all below have 1 - p or less: then those above it have
    p or more. The most probable stays always.
    Note: which of equally probable tokens stay at the border is left to the sorting; no paper defines it.
    """
    ascending, tokens = torch.sort(scores)  # [V], [V]
    at_or_below = torch.softmax(ascending, dim=-1).cumsum(dim=-1)  # [V]: probability of a token and all less probable
    outside = at_or_below <= 1 - p  # [V]
    outside[-1] = False
    return scores.index_fill(0, tokens[outside], -torch.inf)


# --- several texts at once ----------------------------------------------------------------------------------------


class Hypothesis(NamedTuple):
    score: float  # log probability of the new tokens / their number ** length_penalty
    ids: list[int]  # new tokens, the end-of-text token included


@torch.no_grad()
def beam_search(
    model, prompt_ids: Ids, rules: Rules, num_beams=4, length_penalty=1.0, early_stopping: bool | str = False
) -> list[Hypothesis]:
    """The finished texts, at most `num_beams`, the best first.

    At every step the `num_beams` running texts (beams) are continued by every token, and of these num_beams * V
    candidates the best are kept: those that end become finished, the others run on.

    Note: a finished text's score is log P / length ** length_penalty, over new tokens, the end of text included. (Wu
    et al. 2016, equation 14, divide by ((5 + length) / 6) ** alpha and add a coverage term.) The repetition penalty
    changes log probabilities here, not logits: never positive, those of repeated tokens are always multiplied.
    """
    beams = torch.tensor([list(prompt_ids)] * num_beams, device=model.device)  # [num_beams, L], all the same
    # [num_beams]: log P so far. At first one beam counts, or all would find the same best continuations.
    log_p = torch.tensor([0.0] + [IMPOSSIBLE] * (num_beams - 1), device=model.device)
    finished: list[Hypothesis] = []
    unread, cache = beams, None
    for length in range(1, rules.max_new_tokens + 1):  # of the candidates, in new tokens
        output = model(input_ids=unread, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        next_log_p = torch.log_softmax(output.logits[:, -1].float(), dim=-1)  # [num_beams, V]
        next_log_p = torch.stack(
            [discourage_repetition(row, beam.tolist(), rules) for row, beam in zip(next_log_p, beams, strict=True)]
        )
        candidates = log_p[:, None] + next_log_p  # [num_beams, V]

        # Twice as many as beams: at most one candidate of a beam ends its text, so num_beams are left that do not.
        best = torch.topk(candidates.flatten(), 2 * num_beams)  # values and indices [2 * num_beams], descending
        parent, token = best.indices // candidates.shape[1], best.indices % candidates.shape[1]  # [2 * num_beams] each
        texts = torch.cat([beams[parent], token[:, None]], dim=1)  # [2 * num_beams, L + length]
        ends = torch.full_like(token, length == rules.max_new_tokens, dtype=torch.bool)  # [2 * num_beams]
        if rules.eos_token_id is not None:
            ends |= token == rules.eos_token_id

        # Finished: an end among the best num_beams (not: among the 2 * num_beams), scored per length.
        # Note: so a text cut off by max_new_tokens competes like one that ended by itself.
        scores = (best.values / length**length_penalty).tolist()  # [2 * num_beams]
        for i in ends[:num_beams].nonzero().flatten().tolist():
            if scores[i] > IMPOSSIBLE:
                finished.append(Hypothesis(scores[i], texts[i, len(prompt_ids) :].tolist()))
        finished = sorted(finished, key=lambda hypothesis: hypothesis.score, reverse=True)[:num_beams]

        # Running: the best num_beams that do not end. Their caches are their parents'.
        going = torch.topk(best.values + IMPOSSIBLE * ends, num_beams)  # [num_beams]
        log_p, beams, unread = going.values, texts[going.indices], token[going.indices, None]
        cache.reorder_cache(parent[going.indices])

        # Enough? With num_beams finished: at once (early_stopping True), or when no running text can become better.
        # Note: False judges the running ones by their present length, as if they ended here. That is a guess: with
        # length_penalty > 0 a longer one could still win. "never" judges them by the longest length allowed.
        full = len(finished) == num_beams
        judged_at = rules.max_new_tokens if early_stopping == "never" and length_penalty > 0 else length
        could_reach = float(log_p[0] / judged_at**length_penalty)
        if (full and early_stopping is True) or could_reach <= (finished[-1].score if full else IMPOSSIBLE):
            break
    return finished


# --- what may not be repeated ---------------------------------------------------------------------------------------


def discourage_repetition(scores: Tensor, ids: Ids, rules: Rules) -> Tensor:
    """Scores [V] of the token that follows `ids`, after the repetition penalty and the n-gram ban.

    Note: `ids` hold the prompt too, so a summary is also kept from repeating its article.
    """
    if rules.repetition_penalty != 1.0:
        scores = penalize_seen(scores, ids, rules.repetition_penalty)
    if rules.no_repeat_ngram > 0:
        scores = ban_repeated_ngrams(scores, ids, rules.no_repeat_ngram)
    return scores


def penalize_seen(scores: Tensor, ids: Ids, penalty: float) -> Tensor:
    """Lower the score of every token that occurred, once however often it did: [V] -> [V] (Keskar et al. 2019, section
    4.1).

    Note: the paper divides every score; dividing a negative one would favour the token, so transformers multiplies it.
    """
    seen = torch.tensor(sorted(set(ids)), device=scores.device)  # [number of different tokens]
    lowered = torch.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
    return scores.index_copy(0, seen, lowered)


def ban_repeated_ngrams(scores: Tensor, ids: Ids, n: int) -> Tensor:
    """Set to minus infinity what would complete an n-gram a second time: [V] -> [V] (Paulus et al. 2018, section
    2.5)."""
    ids = list(ids)
    last = ids[len(ids) - (n - 1) :]  # the n - 1 tokens that the next one would complete
    banned = [ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == last]
    return scores.index_fill(0, torch.tensor(banned, dtype=torch.long, device=scores.device), -torch.inf)


# --- all five by name ---------------------------------------------------------------------------------------------


def decode(
    model, prompt_ids: Ids, decoding: Decoding, max_new_tokens: int, eos_token_id: int | None
) -> list[list[int]]:
    """The `num_sequences` continuations that `decoding` asks for; sequence i of a sampling mode has seed + i."""
    rules = Rules(max_new_tokens, eos_token_id, decoding.repetition_penalty, decoding.no_repeat_ngram)
    if decoding.method == "greedy":
        return [greedy_search(model, prompt_ids, rules)]
    if decoding.is_beam:
        found = beam_search(
            model, prompt_ids, rules, decoding.num_beams, decoding.length_penalty, decoding.early_stopping
        )
        return [hypothesis.ids for hypothesis in found[: decoding.num_sequences]]
    sampling = {"sampling": ancestral_sampling, "top_k": top_k_sampling, "top_p": top_p_sampling}[decoding.method]
    given = {name: getattr(decoding, name) for name in ("temperature", "top_k", "top_p") if getattr(decoding, name)}
    seeds = range(decoding.seed, decoding.seed + decoding.num_sequences)
    return [sampling(model, prompt_ids, rules, Generator(model.device).manual_seed(seed), **given) for seed in seeds]
