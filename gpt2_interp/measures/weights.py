"""How far each weight matrix has moved from the base model, for full fine-tuning and for LoRA alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from gpt2_interp.scratch_gpt2 import ScratchGPT2LMHeadModel

if TYPE_CHECKING:
    from gpt2_interp.base_weights import BaseWeights

QKV = ("q", "k", "v")


def find_gpt2(model: nn.Module) -> GPT2LMHeadModel:
    """The GPT2LMHeadModel inside `model`, or the one written out, whose modules have the same names: itself, or wrapped
    by PEFT, DDP or torch.compile. Raises ValueError."""
    kinds = (GPT2LMHeadModel, ScratchGPT2LMHeadModel)
    gpt2 = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if gpt2 is None:
        raise ValueError(f"snapshots measure GPT2LMHeadModel; there is none inside this {type(model).__name__}")
    return gpt2


def is_tied(gpt2: GPT2LMHeadModel) -> bool:
    """Whether the output matrix is the token embedding, as in every published GPT-2, and nothing of its own on top."""
    wrapped = isinstance(gpt2.lm_head, (BaseTunerLayer, ModulesToSaveWrapper))
    return not wrapped and gpt2.lm_head.weight is gpt2.transformer.wte.weight


def measured_modules(gpt2: GPT2LMHeadModel) -> dict[str, nn.Module]:
    """Modules whose weight is measured, by name: h.i.attn.c_attn whole; lm_head only where it is not tied to wte."""
    modules = {"wte": gpt2.transformer.wte, "wpe": gpt2.transformer.wpe}
    for i, block in enumerate(gpt2.transformer.h):
        modules[f"h.{i}.attn.c_attn"] = block.attn.c_attn
        modules[f"h.{i}.attn.c_proj"] = block.attn.c_proj
        modules[f"h.{i}.mlp.c_fc"] = block.mlp.c_fc
        modules[f"h.{i}.mlp.c_proj"] = block.mlp.c_proj
    return modules if is_tied(gpt2) else {**modules, "lm_head": gpt2.lm_head}


def matrix_names(model: nn.Module) -> list[str]:
    """Labels of the axis `matrix`: the measured modules with c_attn split into q, k, v."""
    return [part for name in measured_modules(find_gpt2(model)) for part in matrix_parts(name)]


def matrix_parts(module_name: str) -> list[str]:
    """Matrices of a measured module, equal shares of its columns: c_attn's are query, key and value."""
    return [f"{module_name}.{part}" for part in QKV] if module_name.endswith("c_attn") else [module_name]


def stored_weight(module: nn.Module) -> nn.Parameter:
    """The parameter that holds a measured module's matrix: beneath an adapter, or the copy trained in its stead."""
    module = _in_use(module)
    return module.get_base_layer().weight if isinstance(module, BaseTunerLayer) else module.weight


def lora_factors(name: str, module: nn.Module) -> list[tuple[Tensor, Tensor, float]]:
    """(A [r, in], B [out, r], scaling) of each active adapter of a measured module; none without LoRA.

    Raises ValueError for adapters that don't simply add scaling B A.
    """
    module = _in_use(module)
    if not isinstance(module, BaseTunerLayer):
        return []
    if not isinstance(module, LoraLayer):
        raise ValueError(f"weight change is measured for full fine-tuning and LoRA; {name} has {type(module).__name__}")
    factors = []
    adapters = module.merged_adapters if module.merged else () if module.disable_adapters else module.active_adapters
    for adapter in adapters:
        if adapter not in module.scaling:  # this module has no such adapter
            continue
        if adapter in module.lora_variant:
            raise ValueError(f"weight change is measured for plain LoRA; {name} has a variant of it, such as DoRA")
        if adapter in module.lora_embedding_A:
            a, b = module.lora_embedding_A[adapter], module.lora_embedding_B[adapter]
        else:
            a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
        factors.append((a, b, module.scaling[adapter]))
    return factors


def weight_deltas(model: nn.Module, base: BaseWeights) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(matrix, W_t - W_0, W_0) for each matrix of `matrix_names`, one alive at a time; float32 on the CPU, read only.

    Shapes as GPT-2 stores them, Conv1D [in, out]. With LoRA the difference is taken from the adapters (scaling B A),
    not from their sum with the frozen weight, where a small change would drown in rounding. Raises ValueError for
    adapters other than plain LoRA, for quantised weights, and as BaseWeights.replaced does for a base of another model.
    """
    initial = base.initial(model)
    for name, module in measured_modules(find_gpt2(model)).items():
        delta, before = _delta_and_base(name, module, initial)
        parts = matrix_parts(name)
        columns = (delta.chunk(len(parts), dim=1), before.chunk(len(parts), dim=1))
        yield from zip(parts, *columns, strict=True)


def columns_are_outputs(module: nn.Module) -> bool:
    """Whether a measured module's matrix is stored [in, out], y = x W: Conv1D and embeddings, but not nn.Linear."""
    module = _in_use(module)
    layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return isinstance(layer, (Conv1D, nn.Embedding))


def weight_measures(model: nn.Module, base: BaseWeights) -> dict[str, np.ndarray]:
    """Every light measure of the weights, float32.

    weight_change, weight_change_relative, weight_change_rms: each [matrix], in the order of `matrix_names`.
    ov_change, qk_change: each [layer, head]. Raises ValueError as `weight_deltas` does.
    """
    n_head = find_gpt2(model).config.n_head
    rows, circuits, attention = [], [], []
    for name, delta, before in weight_deltas(model, base):
        change, size = frobenius_norm(delta), frobenius_norm(before)
        rows.append((change, change / size if size else math.nan, change / math.sqrt(delta.numel())))
        if ".attn." in name:  # q, k, v and c_proj of a layer come one after the other
            attention.append((before, delta))
        if name.endswith("attn.c_proj"):
            circuits.append(_circuit_changes(*attention, n_head))
            attention = []
    change, relative, rms = np.array(rows, dtype=np.float32).T
    ov, qk = np.array(circuits, dtype=np.float32).transpose(1, 0, 2)
    norms = {"weight_change": change, "weight_change_relative": relative, "weight_change_rms": rms}
    return {**norms, "ov_change": ov, "qk_change": qk}


Change = tuple[Tensor, Tensor]  # (W_0, W_t - W_0)


def _circuit_changes(q: Change, k: Change, v: Change, c_proj: Change, n_head: int) -> tuple[Tensor, Tensor]:
    """(ov_change, qk_change) of one layer, each [head]. q, k, v: [d_model, d_model], heads side by side in the columns;
    c_proj: [d_model, d_model], heads one below the other in the rows."""

    def heads(w: Tensor) -> Tensor:  # -> [head, d_model, d_head]
        return w.double().unflatten(1, (n_head, -1)).transpose(0, 1)

    q, k, v = ([heads(w) for w in change] for change in (q, k, v))
    o = [heads(w.T) for w in c_proj]
    return product_change(*v, *o), product_change(*q, *k)


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


def frobenius_norm(matrix: Tensor) -> float:
    """Row by row first, because one float32 sum over 40 million squares would be inexact."""
    return torch.linalg.vector_norm(torch.linalg.vector_norm(matrix, dim=1).double()).item()


def _delta_and_base(name: str, module: nn.Module, initial: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(W_t - W_0, W_0) of a whole module, as stored."""

    def now_and_before(parameter: Tensor) -> tuple[Tensor, Tensor]:
        return _float_cpu(name, parameter), _float_cpu(name, initial(parameter))

    stored, stored_0 = now_and_before(stored_weight(module))
    factors = lora_factors(name, module)
    if not factors:
        return stored - stored_0, stored_0
    change, start = torch.zeros_like(stored), torch.zeros_like(stored)
    for *factor, scaling in factors:
        (a, a_0), (b, b_0) = map(now_and_before, factor)
        products = (b - b_0) @ a + b_0 @ (a - a_0), b_0 @ a_0  # the first: B_t A_t - B_0 A_0, where little cancels
        for total, product in zip((change, start), products, strict=True):  # product: [out, in]
            total += scaling * (product.T if columns_are_outputs(module) else product)
    if _in_use(module).merged:  # the stored weight has the adapters in it
        return change, stored - change
    return change + (stored - stored_0), stored_0 + start


def _in_use(module: nn.Module) -> nn.Module:
    """The module, or the fully trained copy that stands in for it."""
    if not isinstance(module, ModulesToSaveWrapper):
        return module
    use_copy = module.active_adapters and not module.disable_adapters
    return module.modules_to_save[module.active_adapters[0]] if use_copy else module.original_module


def _float_cpu(name: str, weight: Tensor) -> Tensor:
    if not weight.is_floating_point():
        raise ValueError(f"weight change needs floating-point weights; {name} is stored as {weight.dtype}")
    return weight.detach().to("cpu", torch.float32)
