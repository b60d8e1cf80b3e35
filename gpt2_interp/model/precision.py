"""Which precision trains faster here: float32, or autocast to bfloat16 or float16 over float32 weights. Measured, and
said."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import torch
from transformers import GPT2Config, TrainingArguments
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from gpt2_interp.errors import InputError, first_line

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
FUSED_GELU = "gelu_pytorch_tanh"  # what training runs: see models.use_fast_layers
WORTH_IT = 1.15  # a lower precision must be faster by this factor
TRIALS = 4
TOKENS = 1024  # of a batch


@dataclass(frozen=True)
class Precision:
    """name: fp32, bf16 or fp16; `why` for the console; dtype None is float32."""

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
    """The wanted precision, or for "auto" what trains one block of this model faster on this device.

    The lower precision is bfloat16 where the device computes it natively, else float16 (CUDA). A CPU without AVX-512
    emulates bfloat16, many times slower than float32.
    """
    if wanted != "auto":
        return Precision(wanted, "as asked for")
    if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Precision("fp32", "this processor has no fast bf16")  # measuring that took two minutes on GPT-2's shape
    lower = "fp16" if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False) else "bf16"
    try:
        seconds = block_seconds(config, device, ("fp32", lower))
    except RuntimeError as error:  # autocast that this device or torch build does not have
        return Precision("fp32", f"{lower} does not run here: {first_line(error)}")
    factor = seconds["fp32"] / seconds[lower]
    if factor >= WORTH_IT:
        return Precision(lower, f"{factor:.1f} times as fast as fp32 here; weights and optimizer stay fp32")
    return Precision("fp32", f"{lower} would be {factor:.1f} times as fast here")


def block_seconds(config: GPT2Config, device: torch.device, precisions: tuple[str, ...]) -> dict[str, float]:
    """Seconds of one block's forward and backward pass in each precision: the least of a few, taken in turns."""
    length = min(TOKENS, config.n_positions)
    rows = TOKENS // length
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        config = GPT2Config(**{**config.to_dict(), "attn_implementation": "sdpa", "activation_function": FUSED_GELU})
        block = GPT2Block(config, layer_idx=0).to(device)
        x = torch.randn(rows, length, config.n_embd, device=device, requires_grad=True)
        seconds: dict[str, list[float]] = {name: [] for name in precisions}
        for _ in range(TRIALS + 1):  # the first one warms up
            for name in precisions:
                _wait(device)
                start = time.perf_counter()
                with Precision(name, "").autocast(device):
                    output = block(x)
                output.float().sum().backward()
                _wait(device)
                seconds[name].append(time.perf_counter() - start)
    return {name: min(values[1:]) for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
