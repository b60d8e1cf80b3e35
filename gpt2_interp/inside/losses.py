"""Losses of target tokens, and the log-odds of twins. A changed source or a changed weight is measured by them.

Everything here expects the bare GPT2LMHeadModel in eval mode (`observation.measuring` sees to that), runs it in float32
without gradients, and leaves nothing behind. Sequences are padded on the right, where the causal mask hides the padding
from every token that counts; so any attention implementation will do, without a mask for the padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import IGNORED, Example, collate, token_counts
from gpt2_interp.inside.observation import PAD_ID, batches
from gpt2_interp.model.anatomy import LOGITS_AT_ONCE
from gpt2_interp.probes.probe_set import TwinPair

# --- the loss of each target token -------------------------------------------------------------------------------


@contextmanager
def undisturbed(gpt2: GPT2LMHeadModel) -> Iterator[None]:
    """No gradients, and the precision of the weights even where the caller is under autocast."""
    assert not gpt2.training, "dropout would make every number here random"
    with torch.no_grad(), torch.autocast(gpt2.device.type, enabled=False):
        yield


def final_states(gpt2: GPT2LMHeadModel, input_ids: Tensor) -> Tensor:
    """Return [batch, seq, d_model] after ln_f; input_ids [batch, seq], padded on the right."""
    everywhere = torch.ones_like(input_ids)
    return gpt2.transformer(input_ids=input_ids, attention_mask=everywhere, use_cache=False).last_hidden_state


def has_loss(example: Example) -> bool:
    """Return whether any target token has something before it."""
    return bool(example.target_ids) and len(example.input_ids) > 1


def queries(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (row, position, token that is to be predicted there), each [queries], row by row; labels: [batch, seq]."""
    row, position = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    return row, position, labels[row, position + 1]


def token_nll(gpt2: GPT2LMHeadModel, states: Tensor, wanted: Tensor) -> Tensor:
    """-log p of the tokens `wanted` [queries], nats; states: [queries, d_model] after ln_f."""
    rows = max(1, LOGITS_AT_ONCE // gpt2.config.vocab_size)
    parts = zip(states.split(rows), wanted.split(rows), strict=True)
    return torch.cat([F.cross_entropy(gpt2.lm_head(x).float(), y, reduction="none") for x, y in parts])


def row_means(values: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """Return [n_rows], mean of `values` [queries] over the queries of each row; NaN where there is none."""
    total = torch.zeros(n_rows, dtype=values.dtype, device=values.device).index_add_(0, row, values)
    return total / torch.bincount(row, minlength=n_rows)


def kind_means(values: Tensor, row: Tensor, n_rows: int, members: Tensor) -> Tensor:
    """Return [n_rows, kind], mean of `values` [queries] over the queries of each row that are of a kind; NaN where
    there is none. members: [queries, kind] bool, of which kinds a query's token is."""
    chosen = torch.where(members, values[:, None], 0)
    total = torch.zeros(n_rows, members.shape[1], dtype=values.dtype, device=values.device).index_add_(0, row, chosen)
    return total / torch.zeros_like(total).index_add_(0, row, members.to(values.dtype))


def query_members(examples: Sequence[Example], kinds: Sequence[np.ndarray]) -> Tensor:
    """Return `members` of `kind_means`, [queries, kind] bool on the CPU, for the queries that `queries` finds in a
    batch of these examples. kinds: for each example [n_target, kind] bool, as in `ProbeSet.kinds`."""
    # Nothing predicts the first token of a text without a prompt.
    predicted = [members[not e.prompt_ids :] for e, members in zip(examples, kinds, strict=True)]
    return torch.from_numpy(np.concatenate(predicted))


def token_means(examples: Sequence[Example], values: Sequence[np.ndarray], kinds: Sequence[np.ndarray]) -> np.ndarray:
    """Return [example, kind] float32, mean over an example's target tokens of each kind; NaN where there is none.

    values: for each example a number of every target token that is predicted, or also of one that is not. kinds: for
    each example [n_target, kind] bool.
    """
    predicted = [
        one[len(one) + (not e.prompt_ids) - len(e.target_ids) :] for e, one in zip(examples, values, strict=True)
    ]
    counts = torch.tensor([len(one) for one in predicted])
    row = torch.repeat_interleave(torch.arange(len(examples)), counts)
    numbers = torch.from_numpy(np.concatenate(predicted, dtype=np.float64))
    return kind_means(numbers, row, len(examples), query_members(examples, kinds)).numpy().astype(np.float32)


def target_nll(gpt2: GPT2LMHeadModel, examples: Sequence[Example], max_batch_tokens: int = 2048) -> list[np.ndarray]:
    """-log p(token | all tokens before it) of every target token: for each example [n_target] float32, in nats.

    NaN for a token that nothing precedes, the first of a text without a prompt.
    """
    losses = [np.full(len(e.target_ids), np.nan, dtype=np.float32) for e in examples]
    with undisturbed(gpt2):
        for rows in batches(token_counts(examples).tolist(), max_batch_tokens):
            batch = collate([examples[i] for i in rows], PAD_ID)
            row, position, wanted = queries(batch["labels"].to(gpt2.device))
            final = final_states(gpt2, batch["input_ids"].to(gpt2.device))
            nll, row = token_nll(gpt2, final[row, position], wanted).cpu().numpy(), row.cpu().numpy()
            for index, i in enumerate(rows):
                own = nll[row == index]
                losses[i][len(losses[i]) - len(own) :] = own
    return losses


def mean_nll(gpt2: GPT2LMHeadModel, examples: Sequence[Example], max_batch_tokens: int = 2048) -> np.ndarray:
    """Return [example] float32, mean of `target_nll` over an example's tokens; NaN where none has a prefix."""
    return finite_means(target_nll(gpt2, examples, max_batch_tokens))


def finite_means(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return [example] float32, mean over an example's numbers that are finite; NaN where none is."""
    finite = [one[np.isfinite(one)] for one in values]
    return np.array([one.mean(dtype=np.float64) if one.size else np.nan for one in finite], dtype=np.float32)


def twin_log_odds(gpt2: GPT2LMHeadModel, twins: Sequence[TwinPair], max_batch_tokens: int = 2048) -> np.ndarray:
    """Return [pair, 2] float32, log p(v) - log p(v') behind x, which states v, and behind x', which states v'; nats."""
    prefixes = [Example("", "", prefix, (), ()) for pair in twins for prefix in pair.prefixes]
    odds = np.empty(len(prefixes), dtype=np.float32)
    with undisturbed(gpt2):
        for rows in batches(token_counts(prefixes).tolist(), max_batch_tokens):
            ids = collate([prefixes[i] for i in rows], PAD_ID)["input_ids"].to(gpt2.device)
            last = torch.tensor([len(prefixes[i].input_ids) - 1 for i in rows], device=ids.device)
            each = torch.arange(len(rows), device=ids.device)
            logits = gpt2.lm_head(final_states(gpt2, ids)[each, last]).float()  # [batch, vocab]
            tokens = torch.tensor([twins[i // 2].tokens for i in rows], device=ids.device)
            two = logits.gather(1, tokens)  # the softmax's normaliser is the same for both
            odds[rows] = (two[:, 0] - two[:, 1]).cpu().numpy()
    return odds.reshape(-1, 2)


# --- what it costs -----------------------------------------------------------------------------------------------


def token_forwards(examples: Sequence[Example]) -> int:
    """Tokens of one forward pass over the examples, padding left out."""
    return int(token_counts(examples).sum())
