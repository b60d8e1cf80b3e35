"""The precision that a run trains in: float32, or autocast to bfloat16 or float16 over float32 weights.

"auto" is a rule of device, processor and model width, not a stopwatch: the same command must give the same run, also
while other programs load the machine. docs/measured.md has the ratios that the rule rests on.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from transformers import GPT2Config, TrainingArguments

from gpt2_interp.errors import InputError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
WIDE = 256  # n_embd from which bfloat16 is clearly faster on a CPU that has it; below, casting costs what it saves


@dataclass(frozen=True)
class Precision:
    """A precision. name: fp32, bf16 or fp16; `why` for the console; dtype None is float32."""

    name: str
    why: str

    @property
    def dtype(self) -> torch.dtype | None:
        return PRECISIONS[self.name]

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not None)


def set_precision(training: TrainingArguments, precision: Precision) -> None:
    """Let a Trainer made with `training` compute in this precision. Raises InputError where the device can't."""
    if precision.name == "fp16" and training.device.type == "cpu":
        raise InputError("--precision fp16 needs a GPU: on a CPU take bf16, fp32 or auto.")
    training.bf16, training.fp16 = precision.name == "bf16", precision.name == "fp16"
    training.mixed_precision = "no" if precision.dtype is None else precision.name


def choose_precision(wanted: str, config: GPT2Config, device: torch.device) -> Precision:
    """The wanted precision, or for "auto" what trains a model of this width faster on such a device.

    CUDA: bfloat16 where the GPU computes it natively, else float16. CPU: bfloat16 from n_embd WIDE on where the
    processor has instructions for it (AVX-512 BF16 or AMX; emulated it is many times slower), else float32. MPS and
    others: float32.
    """
    if wanted != "auto":
        return Precision(wanted, "as asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "this GPU computes it natively; weights and optimizer stay fp32")
        return Precision("fp16", "this GPU has no bf16 of its own; weights and optimizer stay fp32")
    if device.type != "cpu":
        return Precision("fp32", f"nothing faster is known for {device.type}")
    if not has_bf16_instructions():
        return Precision("fp32", "this processor has no instructions for bf16")
    if config.n_embd < WIDE:
        return Precision("fp32", f"bf16 gains little below a width of {WIDE}")
    return Precision("bf16", "this processor has instructions for it; weights and optimizer stay fp32")


def has_bf16_instructions() -> bool:
    """Return whether this CPU multiplies bfloat16 itself."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
