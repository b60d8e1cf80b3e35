"""The memory that training takes and that a device has; the batch size that fits, at one effective batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch
from accelerate.utils import gather_object
from transformers.activations import NewGELUActivation

from gpt2_interp.data.examples import Example, token_counts
from gpt2_interp.errors import LESS_MEMORY, InputError
from gpt2_interp.model.anatomy import LOGITS_AT_ONCE
from gpt2_interp.training.batch import EFFECTIVE_BATCH_SIZE, per_process

USABLE = 0.8  # of the device's memory; the rest is for other programs, evaluation, snapshots and the estimate's error
CPU_TOKENS = 2048  # of a micro-batch: on a CPU, larger ones are no faster (docs/measured.md)
LOGIT_BYTES = 12  # of each: logits, log-probabilities, their gradient
# Memory taken over memory in use where tensors of many sizes come and go: glibc's heap takes half as much again.
ALLOCATOR = {"cpu": 1.5, "cuda": 1.2, "mps": 1.2}
CHECKPOINTED_LAYERS = 4  # whose worth is held at a time: one computed again, its gradients, and what they left behind


# --- what there is ---------------------------------------------------------------------------------------------


def memory_bytes(device: torch.device) -> int:
    """Bytes that the device has, whether free or not: what is free changes with what else runs, and the batch must not.

    CPU: the machine's memory, or the container's limit where that is less, shared among the processes of torchrun.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return int(min(psutil.virtual_memory().total, cgroup_limit()) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def cgroup_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that the container may use (cgroup v1 or v2), infinity without a limit."""
    groups = own.read_text().splitlines() if own.is_file() else []  # "hierarchy:controllers:path"
    found = float("inf")
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        own_folder = top / path.lstrip("/")
        for folder in (own_folder, *own_folder.parents):  # a group is bound by the limits above it too
            limit = folder / ("memory.limit_in_bytes" if controllers else "memory.max")
            if limit.is_file() and (text := limit.read_text().strip()) != "max":
                found = min(found, int(text))
            if folder == top:
                break
    return found


def peak_bytes(device: torch.device) -> int:
    """The most that this process has held so far: tensors on CUDA, all that MPS holds now, resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    own = Path("/proc/self/status")  # Linux; its ru_maxrss would be the parent's peak where the parent held more
    status = dict(line.split(":", 1) for line in own.read_text().splitlines()) if own.is_file() else {}
    if "VmHWM" in status:
        return int(status["VmHWM"].split()[0]) * 1024
    used = psutil.Process().memory_info()
    if hasattr(used, "peak_wset"):  # Windows
        return used.peak_wset
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


# --- what training takes ---------------------------------------------------------------------------------------


def training_bytes(model, training, rows: int, tokens: int, targets: int) -> int:
    """Estimated peak of training with AdamW, the weights included, for a micro-batch of `rows` rows.

    tokens, targets: of one row, all and supervised. With d = n_embd, b = 4 bytes (2 under autocast), per process:

    - weights 4 bytes each; trained ones 12 more (gradient, two moments), and 4 in DDP (its buckets)
    - autocast copies: b per weight of the blocks' matrices and of the output embedding
    - the tied embedding's gradient: 3 copies in float32, of its two uses and their sum beside the earlier steps'
    - per token and layer: 8 d (inputs of the LayerNorms, float32) + b d (10 + 16 + 2): LayerNorm outputs, q, k, v,
      attention output and what the second MLP matrix multiplies; gelu_new's four intermediates (4 d where it is one
      kernel); masks of two dropouts. With activation checkpointing 4 d, and CHECKPOINTED_LAYERS in full
    - attention that keeps its maps (eager, and dropout on it on a CPU): 3 n_head tokens values more per token and layer
    - LOGIT_BYTES per logit, of which no more than LOGITS_AT_ONCE exist at a time
    What is kept per token is multiplied by ALLOCATOR. docs/measured.md compares the estimate with measured peaks.
    """
    config = model.config
    width, layers = config.n_embd, config.n_layer
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    embedding = config.vocab_size * width
    autocast = training.bf16 or training.fp16
    b = 2 if autocast else 4

    fixed = weights + 12 * trained + (4 * trained if training.world_size > 1 else 0)
    if autocast:
        fixed += b * (layers * 12 * width**2 + embedding)
    if model.get_input_embeddings().weight.requires_grad:
        fixed += 3 * 4 * embedding

    gelu = 16 if any(isinstance(module, NewGELUActivation) for module in model.modules()) else 4
    dropout = 2 if config.resid_pdrop else 0
    per_layer = 8 * width + b * width * (10 + gelu + dropout)
    if keeps_attention_maps(model, training.device):
        per_layer += 3 * b * config.n_head * tokens
    per_token = layers * per_layer
    if training.activation_checkpointing:
        per_token = layers * 4 * width + min(layers, CHECKPOINTED_LAYERS) * per_layer
    logits = min(rows * targets * config.vocab_size, LOGITS_AT_ONCE)
    return int(fixed + rows * ALLOCATOR[training.device.type] * tokens * per_token + LOGIT_BYTES * logits)


def keeps_attention_maps(model, device: torch.device) -> bool:
    """Return whether the backward pass reads whole maps: fused kernels don't, but have no dropout on a CPU."""
    return model.config._attn_implementation == "eager" or (device.type != "cuda" and model.config.attn_pdrop > 0)


# --- the batch -------------------------------------------------------------------------------------------------


def choose_batch(share: int, most: int, estimate: Callable[[int], int], available: float) -> tuple[int, int] | None:
    """Return (rows of a micro-batch, number of accumulated ones): the most rows that divide `share`, one process's part
    of the effective batch, are no more than `most` and fit in USABLE of `available` bytes. One row may take all of
    them; None if it takes more."""
    for rows in range(min(share, max(1, most)), 1, -1):
        if share % rows == 0 and estimate(rows) <= USABLE * available:
            return rows, share // rows
    return (1, share) if estimate(1) <= available else None


def settle_batch(experiment, training, model, examples: Sequence[Example]) -> str:
    """Choose the batch size and the accumulation that no flag gave, and write them into `training`.

    Returns what to say. Raises InputError if not even one row fits.
    """
    tokens = int(token_counts(examples).max())
    targets = max(len(example.target_ids) for example in examples)
    processes = training.world_size

    def estimate(rows: int) -> int:
        return training_bytes(model, training, rows, tokens, targets)

    available = min(gather_object([memory_bytes(training.device)]))  # every process must come to the same choice
    if training.per_device_train_batch_size is None:
        effective = experiment.effective_batch_size or EFFECTIVE_BATCH_SIZE
        share = per_process(effective, processes)
        most = share if training.device.type != "cpu" else round(CPU_TOKENS / tokens)
        chosen = choose_batch(share, most, estimate, available)
        if chosen is None:
            raise InputError(
                f"training takes about {_gb(estimate(1))} with one row of {tokens:,} tokens at a time, and "
                f"this device has {_gb(available)}: {LESS_MEMORY}, or try it anyway with "
                f"--per_device_train_batch_size 1."
            )
        training.per_device_train_batch_size, training.gradient_accumulation_steps = chosen
    rows, accumulated = training.per_device_train_batch_size, training.gradient_accumulation_steps
    experiment.effective_batch_size = rows * accumulated * processes
    times = f" x {processes} processes" if processes > 1 else ""
    return (
        f"batch: {rows} example{'s' if rows > 1 else ''} x {accumulated} accumulated{times} = "
        f"{experiment.effective_batch_size} a step (about {_gb(estimate(rows))} of {_gb(available)})"
    )


def _gb(number_of_bytes: float) -> str:
    return f"{number_of_bytes / 1e9:.1f} GB"
