"""Shares of the training gradient, matrix by matrix."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from gpt2_interp.model.anatomy import find_gpt2, measured_modules

REST = "biases and layer norms"
# wte.weight, h.0.attn.c_attn.weight, and whatever an adapter adds to the same module, such as
# ...c_attn.lora_A.default.weight or ...c_attn.ia3_l.default; only biases are no matrix
MATRIX = re.compile(
    r"(?:^|\.)(wte|wpe|lm_head|h\.\d+\.(?:attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj))\.(?!(?:.*\.)?bias$)"
)


def grad_matrix_names(model: nn.Module) -> list[str]:
    """Labels of the axis `grad_matrix`. c_attn is not split: LoRA's A is shared by query, key and value."""
    return [*measured_modules(find_gpt2(model)), REST]


def grad_matrix_of(parameter_name: str) -> str:
    """The label that a parameter counts under, so that every parameter counts once."""
    match = MATRIX.search(parameter_name)
    return match[1] if match else REST


class GradientShares:
    """Norm of the training gradient per label, read from `.grad`; what an adapter adds counts for its module."""

    def __init__(self, model: nn.Module):
        self.labels = grad_matrix_names(model)
        named = [(name, p) for name, p in find_gpt2(model).named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self.index = [self.labels.index(grad_matrix_of(name)) for name, _ in named]

    @torch.no_grad()
    def squares(self) -> tuple[list[int], Tensor] | None:
        """Return (label of each parameter that has a gradient, its squared norm [parameter]); stays on the device, no
        sync."""
        present = [(i, p.grad) for i, p in zip(self.index, self.parameters, strict=True) if p.grad is not None]
        if not present:
            return None
        index, grads = zip(*present, strict=True)
        norms = torch._foreach_norm(grads, 2, dtype=torch.float32)
        return list(index), torch.stack(norms).square()

    def shares(self, squares: tuple[list[int], Tensor] | None) -> tuple[Tensor, float]:
        """Return (||g_m|| / ||g|| [grad_matrix], ||g||) of what `squares` returned; NaN for labels without a
        gradient."""
        sums = torch.full((len(self.labels),), torch.nan, dtype=torch.float64)
        if squares is None:
            return sums.float(), float("nan")
        index, values = torch.tensor(squares[0]), squares[1].cpu().double()
        sums[index] = 0.0
        sums.index_add_(0, index, values)
        total = values.sum()
        return (sums / total).sqrt().float(), total.sqrt().item()
