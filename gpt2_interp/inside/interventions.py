"""Heads changed for the length of a forward pass: their pattern, their values or their output, from another reading.

A `Reading` is what one forward pass computed. Between two of them (base and tuned model on one text, or one model on
two texts of equal length) parts of heads can be exchanged: z = A V, with the pattern A of one and the values V of the
other. `states_after` continues a reading from the layer in which a head's output is changed; `heads_changed` changes
whole forward passes, all layers at once.

Everything here expects the bare GPT2LMHeadModel in eval mode, right-padded sequences and no gradients
(`losses.undisturbed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import GPT2LMHeadModel

from gpt2_interp.inside.losses import final_states
from gpt2_interp.model.gpt2_from_scratch import causal


@dataclass(frozen=True)
class Reading:
    """Everything that one forward pass leaves behind.

    entries: the residual stream where a layer begins; qkv: its queries, keys and values side by side, the output of
    attn.c_attn; z: its heads' outputs side by side, the input of attn.c_proj. One tensor a layer, [batch, seq, d_model]
    or [batch, seq, 3 d_model]. final: [batch, seq, d_model] after ln_f. mask: what attention got, the same for every
    row. scalings: of each layer's scores.
    """

    entries: list[Tensor]
    qkv: list[Tensor]
    z: list[Tensor]
    final: Tensor
    mask: Tensor | None
    n_head: int
    scalings: list[float]

    def heads(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, keys and values of a layer, each [batch, head, seq, d_head]."""
        return split_heads(self.qkv[layer], self.n_head)

    def values(self, layer: int) -> Tensor:
        """Return the values of a layer, [batch, head, seq, d_head]."""
        return self.heads(layer)[2]

    def pattern(self, layer: int, first: int = 0) -> Tensor:
        """Return the attention of the queries first, first + 1, ... of a layer, [batch, head, query, key] float32."""
        query, key, _ = self.heads(layer)
        return attention_pattern(query[:, :, first:], key, self.scalings[layer])

    def outputs(self, layer: int, first: int = 0) -> Tensor:
        """Return the heads' outputs z of a layer at the positions from `first` on, [batch, head, query, d_head]."""
        return self.z[layer][:, first:].unflatten(-1, (self.n_head, -1)).transpose(1, 2)


def read(gpt2: GPT2LMHeadModel, input_ids: Tensor) -> Reading:
    """Run [batch, seq] token ids, padded on the right, and keep what `Reading` lists."""
    entries, qkv, z, masks = [], [], [], []
    with ExitStack() as stack:
        for block in gpt2.transformer.h:
            for hook in (
                block.register_forward_pre_hook(lambda _, args: entries.append(args[0])),
                block.attn.register_forward_pre_hook(
                    lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
                ),
                block.attn.c_attn.register_forward_hook(lambda _, args, output: qkv.append(output)),
                block.attn.c_proj.register_forward_pre_hook(lambda _, args: z.append(args[0])),
            ):
                stack.callback(hook.remove)
        final = final_states(gpt2, input_ids)
    mask = None if masks[0] is None else masks[0][:1]  # only causal: padding is on the right
    scalings = [block.attn.scaling for block in gpt2.transformer.h]
    return Reading(entries, qkv, z, final, mask, gpt2.config.n_head, scalings)


def split_heads(qkv: Tensor, n_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """[batch, seq, 3 d_model] -> queries, keys and values, each [batch, head, seq, d_head]."""
    query, key, value = (x.unflatten(-1, (n_head, -1)).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
    return query, key, value


def attention_pattern(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Return the attention [batch, head, query, key] in float32 of the last queries of a sequence.

    query: [batch, head, query, d_head]; key: [batch, head, key, d_head]. The last query stands at the last key.
    """
    scores = ((query * scaling) @ key.transpose(-1, -2)).float()
    visible = causal(query.shape[-2], key.shape[-2], key.shape[-2] - query.shape[-2], query.device)
    return scores.masked_fill_(~visible, -torch.inf).softmax(dim=-1)


def states_after(
    gpt2: GPT2LMHeadModel,
    reading: Reading,
    layer: int,
    which: Tensor,
    z: Tensor,
    wanted: tuple[Tensor, Tensor],
) -> Tensor:
    """Return the final states, after ln_f, of a reading in which one layer's heads put out `z` instead.

    which: [row], the reading's example that each row continues; z: [row, query, d_model], all heads side by side, at
    the last positions of the sequence, before which nothing changes: their keys and values are the reading's. wanted:
    (row, position) [queries] of the states that are asked for, at those last positions. Returns [queries, d_model].
    """
    blocks, (row, position) = gpt2.transformer.h, wanted
    length = reading.final.shape[1]
    first = length - z.shape[1]
    residual = reading.entries[layer][which, first:] + blocks[layer].attn.c_proj(z)
    for l in range(layer + 1, len(blocks)):  # noqa: E741
        before, block = blocks[l - 1], blocks[l]
        residual = residual + before.mlp(before.ln_2(residual))
        query, key, value = split_heads(block.attn.c_attn(block.ln_1(residual)), reading.n_head)
        if first:
            _, early_key, early_value = reading.heads(l)
            key = torch.cat([early_key[which, :, :first], key], dim=2)
            value = torch.cat([early_value[which, :, :first], value], dim=2)
        if l == len(blocks) - 1 and len(position):  # behind the last keys and values no other position counts
            start = int(position.min()) - first
            query, residual, first = query[:, :, start:], residual[:, start:], first + start
        found = _attend(query, key, value, block.attn.scaling)
        residual = residual + block.attn.c_proj(found.transpose(1, 2).flatten(2))
    residual = residual[row, position - first]
    residual = residual + blocks[-1].mlp(blocks[-1].ln_2(residual))
    return gpt2.transformer.ln_f(residual)


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Return causal attention's output [batch, head, query, d_head]; the last query stands at the last key."""
    n_query, n_key = query.shape[2], key.shape[2]
    if n_query == n_key:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    visible = causal(n_query, n_key, n_key - n_query, query.device)
    return F.scaled_dot_product_attention(query, key, value, visible, scale=scaling)


@contextmanager
def heads_changed(gpt2: GPT2LMHeadModel, change: Callable[[int, Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Change what the heads put out during forward passes: of layer l they put out change(l, values, z).

    values, z and the result: [batch, head, seq, d_head]; both come from a stream in which the layers before are changed
    already. With a pattern of another reading, pattern @ values is this layer with that pattern.
    """
    n_head = gpt2.config.n_head
    values: dict[int, Tensor] = {}

    def keep(layer: int):
        def hook(module, args, output):
            values[layer] = split_heads(output, n_head)[2]

        return hook

    def put_out(layer: int):
        def hook(module, args):
            z = args[0].unflatten(-1, (n_head, -1)).transpose(1, 2)
            return (change(layer, values.pop(layer), z).to(z.dtype).transpose(1, 2).flatten(2),)

        return hook

    with ExitStack() as stack:
        for layer, block in enumerate(gpt2.transformer.h):
            stack.callback(block.attn.c_attn.register_forward_hook(keep(layer)).remove)
            stack.callback(block.attn.c_proj.register_forward_pre_hook(put_out(layer)).remove)
        yield
