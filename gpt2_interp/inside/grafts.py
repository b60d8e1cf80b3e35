"""Grafts: the tuned model with single blocks of the base, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from torch import nn
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.inside.losses import finite_means, target_nll, token_forwards, token_means
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.model.base_weights import BaseWeights

IN_LAYER = re.compile(r"(?:^|\.)h\.(\d+)\.(ln_1|attn|ln_2|mlp)\.")


EMBEDDING = re.compile(r"(?:^|\.)(?:wte|wpe)\.")


def block_names(gpt2: GPT2LMHeadModel) -> list[str]:
    """Labels of the axis `block`: embeddings, layer 0 attn, layer 0 mlp, ..., ln_f."""
    layers = [f"layer {i} {kind}" for i in range(gpt2.config.n_layer) for kind in ("attn", "mlp")]
    return ["embeddings", *layers, "ln_f"]


def block_of(parameter_name: str) -> str:
    """The block that a parameter, named as in `gpt2.named_parameters()`, belongs to; each to one.

    A layer norm goes with what reads it. The output matrix is in "embeddings" where it is the token embedding, as in
    every published GPT-2; one of its own, or an adapter on it, goes with ln_f, which it reads.
    """
    match = IN_LAYER.search(parameter_name)
    if match:
        return f"layer {match[1]} {'attn' if match[2] in ('ln_1', 'attn') else 'mlp'}"
    return "embeddings" if EMBEDDING.search(parameter_name) else "ln_f"


def graft(
    model: nn.Module,
    base: BaseWeights,
    examples: Sequence[Example],
    kinds: Sequence[np.ndarray],
    max_batch_tokens: int = 2048,
) -> dict[str, np.ndarray]:
    """graft_necessity, L(W_t, block := W_0) - L(W_t), and graft_sufficiency, L(W_0) - L(W_0, block := W_t).

    Each [example, block] float32, nats per token, blocks as in `block_names`; L is an example's mean target NLL, W_0
    what `base` holds. With `_by_kind` behind their names, [example, block, kind]: the same over the target tokens of
    each kind. kinds: for each example [n_target, kind] bool. A block of which nothing was trained is the same in both
    models: exactly 0.
    """
    gpt2 = find_gpt2(model)
    names = block_names(gpt2)
    trained = trained_blocks(model, base)

    def losses() -> np.ndarray:
        """[example, all tokens and each kind]"""
        nll = target_nll(gpt2, examples, max_batch_tokens)
        return np.column_stack([finite_means(nll), token_means(examples, nll, kinds)])

    tuned = losses()
    with base.replaced(model):
        untouched = losses()
    necessity, sufficiency = np.zeros((2, len(examples), len(names), tuned.shape[1]), dtype=np.float32)
    for index, name in enumerate(tqdm(names, desc="grafting blocks", unit=" blocks", leave=False)):
        if name not in trained:
            continue
        with base.replaced(model, only=lambda parameter, name=name: block_of(parameter) == name):
            necessity[:, index] = losses() - tuned
        with base.replaced(model, only=lambda parameter, name=name: block_of(parameter) != name):
            sufficiency[:, index] = untouched - losses()
    found = {}
    for name, change in (("graft_necessity", necessity), ("graft_sufficiency", sufficiency)):
        change[np.broadcast_to(np.isnan(tuned)[:, None], change.shape)] = np.nan
        found |= {name: change[..., 0], f"{name}_by_kind": change[..., 1:]}
    return found


def trained_blocks(model: nn.Module, base: BaseWeights) -> set[str]:
    """Return the blocks of which anything is trained."""
    return {block_of(name) for name in base.trained_names(model)}


def graft_passes(n_blocks: int) -> int:
    """Return how often `graft` reads all examples, where `n_blocks` blocks are trained."""
    return 2 + 2 * n_blocks


def graft_tokens(examples: Sequence[Example], n_layer: int) -> int:
    """Tokens of forward passes that `graft` runs at most, which is when every block was trained."""
    return token_forwards(examples) * graft_passes(2 * n_layer + 2)
