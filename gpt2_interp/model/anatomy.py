"""The parts of a GPT-2, found inside whatever wraps it, and named."""

from __future__ import annotations

import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from gpt2_interp.model.gpt2_from_scratch import ScratchGPT2LMHeadModel

LOGITS_AT_ONCE = 2**24  # logits, or numbers as large, that are held at any time (64 MiB in float32)

QKV = ("q", "k", "v")


def find_gpt2(model: nn.Module) -> GPT2LMHeadModel:
    """Return the GPT2LMHeadModel inside `model`, or the one from scratch, whose modules have equal names: `model`
    itself, or wrapped by PEFT, DDP or torch.compile. Raises ValueError."""
    kinds = (GPT2LMHeadModel, ScratchGPT2LMHeadModel)
    gpt2 = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if gpt2 is None:
        raise ValueError(f"snapshots measure GPT2LMHeadModel; there is none inside this {type(model).__name__}")
    return gpt2


def is_tied(gpt2: GPT2LMHeadModel) -> bool:
    """Return whether the output matrix is the token embedding, as in every published GPT-2, and nothing of its own on
    top."""
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
    """Return (A [r, in], B [out, r], scaling) of each active adapter of a measured module; none without LoRA.

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


def columns_are_outputs(module: nn.Module) -> bool:
    """Return whether a measured module's matrix is stored [in, out], y = x W: Conv1D and embeddings, but not
    nn.Linear."""
    module = _in_use(module)
    layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return isinstance(layer, (Conv1D, nn.Embedding))


def why_unmeasurable(model: nn.Module) -> str | None:
    """Return why the GPT-2 inside `model` is not what is trained; None where it is.

    With prompt or prefix tuning a learned prompt stands outside the GPT-2, which alone is the base at every step.
    """
    for module in model.modules():
        if isinstance(module, PeftModel) and module.active_peft_config.is_prompt_learning:
            return (
                f"{module.active_peft_config.peft_type.value} trains a prompt outside the GPT-2, which stays the base"
            )
    return None


def why_weights_unknown(gpt2: nn.Module) -> str | None:
    """Return why the change of the weights can't be computed, with a module's name; None for full fine-tuning and plain
    LoRA."""
    for name, module in gpt2.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if not isinstance(module, LoraLayer) or isinstance(module, AdaLoraLayer):
            kind = next(c.__name__ for c in type(module).__mro__ if c.__name__.endswith("Layer"))
            return f"{name} has an adapter that does not add a product of two matrices: {kind}"
        if module.lora_variant:
            variant = type(next(iter(module.lora_variant.values()))).__name__.removesuffix("Variant")
            return f"{name} has a variant of LoRA: {variant}"
    for name, module in measured_modules(gpt2).items():
        if not (dtype := stored_weight(module).dtype).is_floating_point:
            return f"{name} is stored as {dtype}"
    return None


def frobenius_norm(matrix: Tensor) -> float:
    """Sum row by row first, because one float32 sum over 40 million squares would be inexact."""
    return torch.linalg.vector_norm(torch.linalg.vector_norm(matrix, dim=1).double()).item()


def _in_use(module: nn.Module) -> nn.Module:
    """The module, or the fully trained copy that stands in for it."""
    if not isinstance(module, ModulesToSaveWrapper):
        return module
    use_copy = module.active_adapters and not module.disable_adapters
    return module.modules_to_save[module.active_adapters[0]] if use_copy else module.original_module


def model_sizes(model: torch.nn.Module) -> dict[str, int]:
    """Sizes for run.json and the model card."""
    config = model.config
    parameters = list(model.parameters())
    return {
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_positions": config.n_positions,
        "vocab_size": config.vocab_size,
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }


def device_name(training) -> str:
    """cuda (its name), mps or cpu, as the Trainer chose it."""
    device = training.device
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
