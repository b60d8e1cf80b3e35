"""Distance of each weight matrix from the base model, for full fine-tuning and for LoRA alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from gpt2_interp.model.anatomy import find_gpt2, frobenius_norm
from gpt2_interp.model.base_weights import weight_deltas

if TYPE_CHECKING:
    from gpt2_interp.model.base_weights import BaseWeights


Change = tuple[Tensor, Tensor]  # (W_0, W_t - W_0)


def weight_measures(model: nn.Module, base: BaseWeights) -> dict[str, np.ndarray]:
    """Compute every light measure of the weights, float32.

    weight_change, weight_change_relative, weight_change_rms: each [matrix], in the order of `matrix_names`.
    ov_change, qk_change: each [layer, head]. Raises ValueError as `weight_deltas` does.
    """
    n_head = find_gpt2(model).config.n_head
    rows, circuits = [], []
    attention: list[Change] = []
    for name, delta, before in weight_deltas(model, base):
        change, size = frobenius_norm(delta), frobenius_norm(before)
        rows.append((change, change / size if size else math.nan, change / math.sqrt(delta.numel())))
        if ".attn." in name:  # q, k, v and c_proj of a layer come one after the other
            attention.append((before, delta))
        if name.endswith("attn.c_proj"):
            q, k, v, c_proj = attention
            circuits.append(_circuit_changes(q, k, v, c_proj, n_head))
            attention = []
    change, relative, rms = np.array(rows, dtype=np.float32).T
    ov, qk = np.array(circuits, dtype=np.float32).transpose(1, 0, 2)
    norms = {"weight_change": change, "weight_change_relative": relative, "weight_change_rms": rms}
    return {**norms, "ov_change": ov, "qk_change": qk}


def _circuit_changes(q: Change, k: Change, v: Change, c_proj: Change, n_head: int) -> tuple[Tensor, Tensor]:
    """Return (ov_change, qk_change) of one layer, each [head]. q, k, v: [d_model, d_model], heads side by side in the
    columns; c_proj: [d_model, d_model], heads one below the other in the rows."""

    def heads(w: Tensor) -> Tensor:  # -> [head, d_model, d_head]
        return w.double().unflatten(1, (n_head, -1)).transpose(0, 1)

    of_q, of_k, of_v = ([heads(w) for w in change] for change in (q, k, v))
    o = [heads(w.T) for w in c_proj]
    return product_change(*of_v, *o), product_change(*of_q, *of_k)


def product_change(a_0: Tensor, da: Tensor, b_0: Tensor, db: Tensor) -> Tensor:
    """||A B' - A_0 B_0'||_F / ||A_0 B_0'||_F with A = A_0 + dA, B = B_0 + dB, all [head, n, d_head], float64.

    Returns [head]; NaN where A_0 B_0' is 0. The difference is dA B' + A_0 dB' = [dA, A_0] [B, dB]', so nothing nearly
    equal is subtracted; and ||L R'||_F^2 = sum of (L'L) * (R'R), so no n x n product is made.
    """

    def square(left: Tensor, right: Tensor) -> Tensor:
        return ((left.mT @ left) * (right.mT @ right)).sum((1, 2)).clamp(min=0)

    change = square(torch.cat([da, a_0], 2), torch.cat([b_0 + db, db], 2))
    size = square(a_0, b_0)
    return (change / size.masked_fill(size == 0, math.nan)).sqrt()
