"""Gradients of the loss on the probes, for each weight matrix and each attention head: one set of backward passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate
from gpt2_interp.inside.ablation import (
    PARTS,
    batches_of,
    other_half_means,
    part_masks,
    part_means,
    replaceable,
)
from gpt2_interp.inside.interventions import read
from gpt2_interp.inside.losses import has_loss, queries, row_means, token_nll, undisturbed
from gpt2_interp.inside.observation import PAD_ID
from gpt2_interp.model.anatomy import matrix_parts, measured_modules, stored_weight


def gradient_pass(
    gpt2: GPT2LMHeadModel, examples: Sequence[Example], halves: Sequence[int], max_batch_tokens: int = 512
) -> dict[str, np.ndarray]:
    """probe_grad, probe_grad_cosine: each [matrix]; ablation_approx: [example, layer, head]; float32.

    probe_grad is the Frobenius norm of the gradient of the mean over examples of their mean target NLL, by matrix as in
    `anatomy.matrix_names`; beneath LoRA that of the frozen matrix, for a tied wte that of both uses together.
    probe_grad_cosine is the cosine of the gradients of the two halves' mean losses; NaN where one is empty or 0.
    ablation_approx is what `ablation_exact` would be were the loss a straight line: the sum over positions of
    (zbar - z) dNLL/dz per target token, NaN where that is (Nanda 2023; Kramar et al. 2024).

    Computed on stand-ins for the parameters, which share their memory: the model's own, their gradients and
    requires_grad are never touched. Memory: two copies of the matrices beside what one batch's backward pass needs.
    """
    assert len(halves) == len(examples)
    heads = _HeadGradients(gpt2, len(examples))
    matrices = _MatrixGradients(gpt2)
    with undisturbed(gpt2), torch.enable_grad():
        loss_of = _ProbeLoss(gpt2)
        for half in (0, 1):
            own = [i for i, e in enumerate(examples) if halves[i] == half and has_loss(e)]
            for rows in batches_of(own, examples, max_batch_tokens):
                chosen = [examples[i] for i in rows]
                tensors = {name: t.to(gpt2.device) for name, t in collate(chosen, PAD_ID).items()}
                args = (tensors["input_ids"], tensors["labels"])
                loss, z = functional_call(loss_of, matrices.stand_ins, args)
                z_grads = matrices.backward(loss, z, half, len(rows))
                heads.add(rows, z, z_grads, part_masks(chosen, args[0].shape[1], gpt2.device))
    with undisturbed(gpt2):
        norm, cosine = matrices.norm_and_cosine()
        approx = heads.straight_line(examples, halves)
    return {"ablation_approx": approx, "probe_grad": norm, "probe_grad_cosine": cosine}


class _ProbeLoss(nn.Module):
    """Token ids -> (sum of the examples' mean NLL, z of each layer), so that functional_call can lend it weights."""

    def __init__(self, gpt2: GPT2LMHeadModel):
        super().__init__()
        self.gpt2 = gpt2

    def forward(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        ran = read(self.gpt2, input_ids)
        row, position, wanted = queries(labels)
        nll = token_nll(self.gpt2, ran.final[row, position], wanted)
        return row_means(nll, row, len(labels)).sum(), ran.z


class _MatrixGradients:
    """Sums of the loss's gradients by matrix, one for each half of the probes."""

    def __init__(self, gpt2: GPT2LMHeadModel):
        self.stored = {name: stored_weight(module) for name, module in measured_modules(gpt2).items()}
        leaves = {id(p): p.detach().requires_grad_() for p in self.stored.values()}  # one each, also for a shared one
        self.leaves = list(leaves.values())
        self.index = {name: list(leaves).index(id(p)) for name, p in self.stored.items()}
        # Every parameter gets a stand-in, so that no gradient is followed to one that isn't measured.
        self.stand_ins = {f"gpt2.{name}": leaves.get(id(p), p.detach()) for name, p in gpt2.named_parameters()}
        self.sums: list[list[Tensor] | None] = [None, None]  # by half
        self.counts = [0, 0]

    def backward(self, loss: Tensor, z: list[Tensor], half: int, count: int) -> tuple[Tensor, ...]:
        """Add the gradients of the summed loss of `count` examples of a half; returns dloss/dz for each layer."""
        if self.sums[half] is None:
            self.sums[half] = [torch.zeros_like(leaf, dtype=torch.float32) for leaf in self.leaves]
        self.counts[half] += count
        hooks = [leaf.register_hook(_add_to(total)) for leaf, total in zip(self.leaves, self.sums[half], strict=True)]
        try:
            return torch.autograd.grad(loss, [*z, *self.leaves])[: len(z)]
        finally:
            for hook in hooks:
                hook.remove()

    def norm_and_cosine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (norm of the mean gradient, cosine of the two halves' gradients): each [matrix]; NaN where
        undefined."""
        rows = []
        for name, index in self.index.items():
            parts = len(matrix_parts(name))
            halves = [None if s is None else s[index].chunk(parts, dim=1) for s in self.sums]
            for part in range(parts):
                first, second = (None if h is None else h[part] for h in halves)
                rows.append((_dot(first, first), _dot(second, second), _dot(first, second)))
        first, second, both = np.array(rows).T  # of sums, not means: the cosine is the same
        with np.errstate(invalid="ignore", divide="ignore"):
            norm = np.sqrt(np.maximum(first + second + 2 * both, 0)) / np.float64(sum(self.counts))
            cosine = both / np.sqrt(first * second)
        return norm.astype(np.float32), cosine.astype(np.float32)


def _add_to(total: Tensor):
    """A hook that adds a gradient to `total` at once, so that never a third copy of all of them is alive."""

    def hook(gradient: Tensor) -> Tensor:
        total.add_(gradient)
        return gradient.new_zeros(()).expand_as(gradient)  # what autograd returns instead: the shape, without memory

    return hook


def _dot(a: Tensor | None, b: Tensor | None) -> float:
    """Sum of the products, 0 without a tensor; row by row first: one float32 sum over 40 million would be inexact."""
    if a is None or b is None:
        return 0.0
    return sum(
        torch.linalg.vecdot(x, y).double().sum().item() for x, y in zip(a.split(4096), b.split(4096), strict=True)
    )


class _HeadGradients:
    """The few sums that (zbar - z) dNLL/dz comes from, as zbar is known only after the last example."""

    def __init__(self, gpt2: GPT2LMHeadModel, n_examples: int):
        config = gpt2.config
        self.n_head = config.n_head
        self.means = torch.full((n_examples, config.n_layer, len(PARTS), config.n_embd), torch.nan)  # of z
        self.gradients = torch.zeros_like(self.means)  # dNLL/dz, summed over the positions of a part
        self.own = torch.full((n_examples, config.n_layer, config.n_head), torch.nan)  # sum of z dNLL/dz

    def add(self, rows: list[int], z: list[Tensor], gradients: Sequence[Tensor], masks: Tensor) -> None:
        """z and gradients: [batch, seq, d_model] a layer; masks: [batch, part, seq]."""
        with torch.no_grad():
            self.means[rows] = part_means(z, masks).cpu()
            self.gradients[rows] = torch.stack([masks.float() @ g.float() for g in gradients], dim=1).cpu()
            products = [
                (x * g).float().sum(1).unflatten(-1, (self.n_head, -1)).sum(-1)
                for x, g in zip(z, gradients, strict=True)
            ]
            self.own[rows] = torch.stack(products, dim=1).cpu()

    def straight_line(self, examples: Sequence[Example], halves: Sequence[int]) -> np.ndarray:
        """Return [example, layer, head] float32; NaN where `ablation_exact` is."""
        replacement = other_half_means(self.means, halves)
        # A part that an example does not have has no gradient either: 0 there, not NaN.
        moved = (replacement.nan_to_num() * self.gradients).sum(2).unflatten(-1, (self.n_head, -1)).sum(-1)
        result = torch.full_like(self.own, torch.nan)
        possible = replaceable(examples, replacement)
        result[possible] = (moved - self.own)[possible]
        return result.numpy()
