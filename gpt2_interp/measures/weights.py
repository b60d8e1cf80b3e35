"""How far each weight matrix has moved from the base model, for full fine-tuning and for LoRA alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

QKV = ("q", "k", "v")


def find_gpt2(model: nn.Module) -> GPT2LMHeadModel:
    """The GPT2LMHeadModel inside `model`: itself, or wrapped by PEFT, DDP or torch.compile. Raises ValueError."""
    gpt2 = next((module for module in model.modules() if isinstance(module, GPT2LMHeadModel)), None)
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
    names = []
    for name in measured_modules(find_gpt2(model)):
        names += [f"{name}.{part}" for part in QKV] if name.endswith("c_attn") else [name]
    return names


@dataclass(frozen=True)
class ReferenceWeight:
    """One matrix of the untouched model, float32 on the CPU; the forward pass uses base + adapter."""

    base: Tensor
    adapter: Tensor | None  # what adapters already add to it; None when nothing, as with LoRA's B = 0

    @property
    def weight(self) -> Tensor:
        return self.base if self.adapter is None else self.base + self.adapter


def reference_weights(model: nn.Module) -> dict[str, ReferenceWeight]:
    """A copy of the untouched model's matrices, by module name, for `weight_deltas` to compare with."""
    reference = {}
    for name, module in measured_modules(find_gpt2(model)).items():
        stored, adapter, merged = _stored_and_adapter(name, module)
        adapter = None if adapter is None or not adapter.any() else adapter
        base = stored - adapter if merged and adapter is not None else stored.clone()
        reference[name] = ReferenceWeight(base, adapter)
    return reference


def weight_deltas(model: nn.Module, reference: dict[str, ReferenceWeight]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(matrix, W_t - W_0, W_0) for each matrix of `matrix_names`, one alive at a time; float32 on the CPU.

    Shapes as GPT-2 stores them, Conv1D [in, out]. With LoRA the difference is taken from the adapters (scaling B A),
    not from their sum with the base, where a small change would drown in rounding.
    """
    for name, module in measured_modules(find_gpt2(model)).items():
        stored, adapter, merged = _stored_and_adapter(name, module)
        before = reference.get(name) or reference["wte"]  # an lm_head that was tied when the reference was taken
        if adapter is None:
            delta = stored - before.weight
        else:
            delta = adapter if before.adapter is None else adapter - before.adapter
            if not merged:
                delta = delta + (stored - before.base)  # exactly 0 while the base is frozen, as LoRA's is
        if name.endswith("c_attn"):
            parts = zip(QKV, delta.chunk(3, dim=1), before.weight.chunk(3, dim=1), strict=True)
            yield from ((f"{name}.{part}", d, w) for part, d, w in parts)
        else:
            yield name, delta, before.weight


def weight_change(model: nn.Module, reference: dict[str, ReferenceWeight]) -> dict[str, np.ndarray]:
    """weight_change, weight_change_relative, weight_change_rms: each [matrix], in the order of `matrix_names`."""
    rows = []
    for _, delta, base in weight_deltas(model, reference):
        change, size = _norm(delta), _norm(base)
        rows.append((change, change / size if size else math.nan, change / math.sqrt(delta.numel())))
    change, relative, rms = np.array(rows, dtype=np.float32).T
    return {"weight_change": change, "weight_change_relative": relative, "weight_change_rms": rms}


def _norm(matrix: Tensor) -> float:
    """Frobenius norm; row by row first, because one float32 sum over 40 million squares would be inexact."""
    return torch.linalg.vector_norm(torch.linalg.vector_norm(matrix, dim=1).double()).item()


def _stored_and_adapter(name: str, module: nn.Module) -> tuple[Tensor, Tensor | None, bool]:
    """(stored weight, what LoRA adds to it or None without LoRA, whether it is already merged into the weight)."""
    if isinstance(module, ModulesToSaveWrapper):  # a fully trained copy stands in for the frozen module
        use_copy = module.active_adapters and not module.disable_adapters
        module = module.modules_to_save[module.active_adapters[0]] if use_copy else module.original_module
    if not isinstance(module, BaseTunerLayer):
        return _float_cpu(name, module.weight), None, False
    if not isinstance(module, LoraLayer):
        raise ValueError(f"weight change is measured for full fine-tuning and LoRA; {name} has {type(module).__name__}")
    weight = _float_cpu(name, module.get_base_layer().weight)
    adapter = torch.zeros_like(weight)
    adapters = module.merged_adapters if module.merged else () if module.disable_adapters else module.active_adapters
    for adapter_name in adapters:
        if adapter_name not in module.scaling:  # this module has no such adapter
            continue
        if adapter_name in module.lora_variant:
            raise ValueError(f"weight change is measured for plain LoRA; {name} has a variant of it, such as DoRA")
        adapter += _float_cpu(name, module.get_delta_weight(adapter_name))  # scaling B A, transposed for Conv1D
    return weight, adapter, module.merged


def _float_cpu(name: str, weight: Tensor) -> Tensor:
    if not weight.is_floating_point():
        raise ValueError(f"weight change needs floating-point weights; {name} is stored as {weight.dtype}")
    return weight.detach().to("cpu", torch.float32)
