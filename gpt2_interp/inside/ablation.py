"""Attention heads taken away: each one's output replaced by its mean over other examples (Wang et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate, token_counts
from gpt2_interp.inside.interventions import read
from gpt2_interp.inside.losses import (
    has_loss,
    kind_means,
    queries,
    query_members,
    row_means,
    token_forwards,
    token_nll,
    undisturbed,
)
from gpt2_interp.inside.observation import PAD_ID, batches

PARTS = ("source", "target")  # parts of an example: source and template, and target


def part_masks(examples: Sequence[Example], length: int, device: torch.device) -> Tensor:
    """Return [example, part, seq] bool, positions of the source and template, and of the target."""
    position = torch.arange(length, device=device)
    start = torch.tensor([len(e.prompt_ids) for e in examples], device=device)[:, None]
    stop = torch.tensor([len(e.input_ids) for e in examples], device=device)[:, None]
    return torch.stack([position < start, (position >= start) & (position < stop)], dim=1)


def part_means(z: Sequence[Tensor], masks: Tensor) -> Tensor:
    """Return [example, layer, part, d_model], mean of z over the positions of a part; NaN where it has none."""
    weights = masks.float() / masks.sum(dim=-1, keepdim=True)
    return torch.stack([weights @ layer.float() for layer in z], dim=1)


def other_half_means(means: Tensor, halves: Sequence[int]) -> Tensor:
    """Return what replaces an example's z: the mean of `means` over the examples of the other half, each with equal
    weight.

    means: [example, ...], NaN where undefined; halves: 0 or 1 for each example. Same shape; NaN where the other half
    has none.
    """
    half = torch.tensor(halves, dtype=torch.long, device=means.device)
    assert len(half) == len(means)
    return torch.stack([means[half != k].nanmean(dim=0) for k in (0, 1)])[half]


def replaceable(examples: Sequence[Example], replacement: Tensor) -> list[int]:
    """Indices of the examples with a loss whose every part has a replacement [example, layer, part, d_model]."""
    missing = replacement[:, 0].isnan().any(dim=-1).tolist()  # [example, part]
    return [
        i for i, e in enumerate(examples) if has_loss(e) and not (e.prompt_ids and missing[i][0]) and not missing[i][1]
    ]


def batches_of(chosen: Sequence[int], examples: Sequence[Example], max_tokens: int) -> Iterator[list[int]]:
    """The indices `chosen` in batches of examples of similar length."""
    for batch in batches(token_counts([examples[i] for i in chosen]).tolist(), max_tokens):
        yield [chosen[i] for i in batch]


def ablation_exact(
    gpt2: GPT2LMHeadModel,
    examples: Sequence[Example],
    halves: Sequence[int],
    kinds: Sequence[np.ndarray],
    max_batch_tokens: int = 2048,
) -> dict[str, np.ndarray]:
    """Return what taking each head away costs, mean NLL(target) ablated - intact, nats per token: ablation_exact
    [example, layer, head] and ablation_exact_by_kind [example, layer, head, kind], float32.

    A head's output z (its slice of attn.c_proj's input) is replaced at every position by its mean over the examples of
    the other half, each with equal weight, separately in the source with the template and in the target (Wang et al.
    2022, mean ablation). halves: 0 or 1 for each example. kinds: for each example [n_target, kind] bool. NaN for an
    example whose other half is empty, or has no source while it has one, and for a kind of which it has no token.
    """
    n_kind = kinds[0].shape[1] if kinds else 0
    shape = (len(examples), gpt2.config.n_layer, gpt2.config.n_head, 1 + n_kind)
    losses = np.full(shape, np.nan, dtype=np.float32)
    with undisturbed(gpt2):
        means = torch.full((len(examples), gpt2.config.n_layer, len(PARTS), gpt2.config.n_embd), torch.nan)
        counted = [i for i, e in enumerate(examples) if has_loss(e)]
        for rows in batches_of(counted, examples, max_batch_tokens):
            chosen = [examples[i] for i in rows]
            ids = collate(chosen, PAD_ID)["input_ids"].to(gpt2.device)
            means[rows] = part_means(read(gpt2, ids).z, part_masks(chosen, ids.shape[1], ids.device)).cpu()
        replacement = other_half_means(means, halves)
        possible = replaceable(examples, replacement)
        total = len(possible) * gpt2.config.n_layer * gpt2.config.n_head
        with tqdm(total=total, desc="ablating heads", unit=" heads", leave=False, disable=not total) as bar:
            for rows in batches_of(possible, examples, max_batch_tokens):
                new_means = replacement[rows].to(gpt2.device)
                chosen, members = [examples[i] for i in rows], [kinds[i] for i in rows]
                losses[rows] = _ablate_batch(gpt2, chosen, members, new_means, max_batch_tokens, bar)
    return {"ablation_exact": losses[..., 0], "ablation_exact_by_kind": losses[..., 1:]}


def _ablate_batch(
    gpt2: GPT2LMHeadModel,
    examples: Sequence[Example],
    kinds: Sequence[np.ndarray],
    replacement: Tensor,
    max_batch_tokens: int,
    bar,
) -> np.ndarray:
    """Return [batch, layer, head, all tokens and each kind] of a batch that fits; replacement: [batch, layer, part,
    d_model]."""
    n_layer, n_head = gpt2.config.n_layer, gpt2.config.n_head
    batch = {name: t.to(gpt2.device) for name, t in collate(examples, PAD_ID).items()}
    ids, labels = batch["input_ids"], batch["labels"]
    in_source = part_masks(examples, ids.shape[1], ids.device)[:, 0, :, None]
    intact = read(gpt2, ids)
    row, position, wanted = queries(labels)
    members = torch.zeros(*ids.shape, kinds[0].shape[1], dtype=torch.bool, device=ids.device)  # [batch, seq, kind]
    members[row, position] = query_members(examples, kinds).to(ids.device)
    before = _means(token_nll(gpt2, intact.final[row, position], wanted), row, members[row, position], len(examples))
    # Every head of a layer is a row of its own, for each example.
    pairs = torch.cartesian_prod(torch.arange(len(examples)), torch.arange(n_head)).reshape(-1, 2).to(ids.device)
    after = []
    for layer, block in enumerate(gpt2.transformer.h):
        source, target = replacement[:, layer, None].unbind(2)
        new_z = torch.where(in_source, source, target).unflatten(-1, (n_head, -1))  # [batch, seq, head, d_head]
        for which, head in (chunk.T for chunk in pairs.split(max(1, max_batch_tokens // ids.shape[1]))):
            z = intact.z[layer][which].unflatten(-1, (n_head, -1))  # a copy
            z[torch.arange(len(head), device=head.device), :, head] = new_z[which, :, head].to(z.dtype)
            residual = intact.entries[layer][which] + block.attn.c_proj(z.flatten(-2))
            after.append(_loss_from(gpt2, layer, residual, labels[which], members[which], intact.mask))
            bar.update(len(head))
    changed = torch.cat(after).unflatten(0, (n_layer, len(examples), n_head)).transpose(0, 1)
    return (changed - before[:, None, None]).cpu().numpy()


def _means(nll: Tensor, row: Tensor, members: Tensor, n_rows: int) -> Tensor:
    """Return [n_rows, all tokens and each kind], mean of `nll` [queries]; members: [queries, kind]."""
    return torch.cat([row_means(nll, row, n_rows)[:, None], kind_means(nll, row, n_rows, members)], dim=1)


def _loss_from(
    gpt2: GPT2LMHeadModel, layer: int, residual: Tensor, labels: Tensor, members: Tensor, mask: Tensor | None
) -> Tensor:
    """Return [batch, all tokens and each kind], mean NLL of the target. residual: [batch, seq, d_model], the stream
    after the attention of `layer`; members: [batch, seq, kind], the kinds of what each position predicts."""
    blocks = gpt2.transformer.h
    for block, following in pairwise(blocks[layer:]):
        residual = residual + block.mlp(block.ln_2(residual))
        residual = residual + following.attn(following.ln_1(residual), attention_mask=mask)[0]
    row, position, wanted = queries(labels)
    residual = residual[row, position]  # behind the last attention no position needs another
    residual = residual + blocks[-1].mlp(blocks[-1].ln_2(residual))
    nll = token_nll(gpt2, gpt2.transformer.ln_f(residual), wanted)
    return _means(nll, row, members[row, position], len(labels))


def ablation_tokens(examples: Sequence[Example], n_layer: int, n_head: int) -> int:
    """Tokens of whole forward passes that `ablation_exact` is worth: a head of layer l runs the n_layer - l last."""
    return int(token_forwards(examples) * (2 + n_head * (n_layer + 1) / 2))
