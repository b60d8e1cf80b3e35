"""A batch as one row of tokens: examples one behind the other, no padding, and no attention between neighbours.

Everything that works on single tokens (embeddings, MLPs, layer norms, logits) sees the row [1, tokens]. Only attention
must know where an example ends: it sees [segment, longest], padded on the right, where the causal mask alone keeps
every real token from the padding. The loss is that of the examples one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, GPT2LMHeadModel

from gpt2_interp.data.examples import IGNORED, Example
from gpt2_interp.model.anatomy import LOGITS_AT_ONCE, find_gpt2


def pack(examples: Sequence[Example]) -> dict[str, Tensor]:
    """One row of all examples.

    input_ids, position_ids, shift_labels: [1, tokens]; shift_labels[t] is the supervised token that position t
    predicts, else IGNORED. padded: [segment, longest], where in the row each segment's tokens stand (0 behind a
    segment's end). unpadded: [tokens], where each token of the row stands in the flattened `padded`.
    """
    lengths = torch.tensor([len(example.input_ids) for example in examples])
    ids = torch.cat([torch.tensor(example.input_ids) for example in examples])
    labels = torch.cat([torch.tensor((*example.labels[1:], IGNORED)) for example in examples])
    position = torch.arange(int(lengths.max()))  # [longest]
    inside = position < lengths[:, None]  # [segment, longest]
    starts = lengths.cumsum(0) - lengths  # [segment]
    return {
        "input_ids": ids[None],
        "position_ids": position.expand_as(inside)[inside][None],
        "shift_labels": labels[None],
        "padded": torch.where(inside, starts[:, None] + position, 0),
        "unpadded": inside.flatten().nonzero().squeeze(1),
    }


# --- loss --------------------------------------------------------------------------------------------------------


def packed_loss(model: nn.Module, batch: dict[str, Tensor], num_items: Tensor | int | None = None) -> Tensor:
    """Cross entropy of next-token prediction over the supervised tokens of a packed batch, nats/token.

    The sum is divided by `num_items` (supervised tokens of the whole accumulated batch), or by this batch's own number
    when None. Under `packed_attention`.
    """
    losses = packed_token_losses(model, batch)
    return losses.sum() / (len(losses) if num_items is None else num_items)


def packed_token_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """-log p of each supervised token of a packed batch, in its order: [supervised], nats. Under `packed_attention`.

    Of many supervised tokens, as in plain text, only `LOGITS_AT_ONCE` logits exist at a time: the backward pass
    computes them again, instead of keeping them.
    """
    states, targets = supervised_states(model, batch)
    head = find_gpt2(model).lm_head
    rows = max(1, LOGITS_AT_ONCE // head.out_features)
    if len(targets) <= rows:
        return _token_losses(head, states, targets)
    chunks = zip(states.split(rows), targets.split(rows), strict=True)
    return torch.cat([checkpoint(_token_losses, head, x, y, use_reentrant=False) for x, y in chunks])


def _token_losses(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(head(states).float(), targets, reduction="none")  # of logits [rows, vocab]


def supervised_states(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return (final hidden states that predict a supervised token [supervised, d_model], these tokens [supervised])."""
    labels = batch["shift_labels"][0]
    positions = (labels != IGNORED).nonzero().squeeze(1)
    states = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        padded=batch["padded"],
        unpadded=batch["unpadded"],
        output_hidden_states=[-1],
        logits_to_keep=1,  # the head is applied below
        use_cache=False,
    ).hidden_states[-1]  # [1, tokens, d_model], after ln_f
    return states[0, positions], labels[positions]


# --- attention ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def packed_attention(model: nn.Module) -> Iterator[None]:
    """Let the GPT-2 inside `model` (plain, PEFT, DDP, compiled) read packed rows; restored afterwards.

    Around the backward pass too: activation checkpointing runs the forward again there.
    """
    gpt2: GPT2LMHeadModel = find_gpt2(model)
    implementation = gpt2.config._attn_implementation
    gpt2.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        gpt2.set_attn_implementation(implementation)


def attend_packed(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """Hugging Face's attention interface over a packed row: query, key, value [1, head, tokens, d_head], with `padded`
    and `unpadded` of `pack`. Returns ([1, tokens, head, d_head], None)."""
    assert attention_mask is None, "Hugging Face makes no mask for an attention function that it does not know"
    padded, unpadded = kwargs["padded"], kwargs["unpadded"]
    segments, longest = padded.shape
    heads, tokens, width = query.shape[1:]
    has_padding = tokens != segments * longest

    def to_segments(x: Tensor) -> Tensor:  # [1, head, tokens, d_head] -> [segment, head, longest, d_head]
        rows = x.squeeze(0).transpose(0, 1)  # [tokens, head, d_head]; squeeze: the backward pass of x[0] fills zeros
        if has_padding:
            rows = rows.index_select(0, padded.flatten())
        return rows.reshape(segments, longest, heads, width).transpose(1, 2)

    output = F.scaled_dot_product_attention(
        *map(to_segments, (query, key, value)), is_causal=True, scale=scaling, dropout_p=dropout
    )
    rows = output.transpose(1, 2).reshape(segments * longest, heads, width)
    if has_padding:
        rows = rows.index_select(0, unpadded)
    return rows[None], None


PACKED = "gpt2_interp_packed"
AttentionInterface.register(PACKED, attend_packed)
