"""Faster versions of GPT-2's own layers on a CPU, the same functions; a test compares each with the plain one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from transformers import (
    GPT2LMHeadModel,
)
from transformers.activations import NewGELUActivation
from transformers.cache_utils import Cache, DynamicLayer


def use_fast_layers(model: GPT2LMHeadModel) -> None:
    """Make a model's layers faster: `gelu_new` as one kernel instead of eight, and dropout whose random numbers cost
    less on a CPU. The functions, config and weights remain as they are."""
    model.transformer.drop = FastDropout(model.transformer.drop.p)
    for block in model.transformer.h:
        block.attn.resid_dropout = FastDropout(block.attn.resid_dropout.p)
        block.mlp.dropout = FastDropout(block.mlp.dropout.p)
        if isinstance(block.mlp.act, NewGELUActivation):
            block.mlp.act = nn.GELU(approximate="tanh")
    model.train(model.training)  # new layers begin in training mode


class FastDropout(nn.Dropout):
    """Dropout that takes 16 random bits an element on a CPU, where torch's bernoulli_ is most of its time.

    p is rounded to a multiple of 1/65536, and what remains is scaled accordingly: the mean is exact.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or not self.training or not 0 < self.p < 1:
            return super().forward(x)
        dropped = round(self.p * 65536)  # of 65536
        # [x.numel()] uniform in -32768..32767: four of each 64-bit draw
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        is_dropped = bits[: x.numel()].view(x.shape) < dropped - 32768
        return torch.where(is_dropped, 0.0, x * (65536 / (65536 - dropped)))


HEAD_BLOCK = 1024  # tokens whose logits are computed at once on a CPU


def _inner(model):
    """The model itself, where PEFT has wrapped it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextlib.contextmanager
def positions_within(model, last: int) -> Iterator[None]:
    """Keep the positions of full rows inside the context. Where a long and a short prompt share a batch, full rows go
    on while others are written; nobody reads their positions any more. transformers' reminder of the context's end is
    silenced."""
    inner = _inner(model)
    limit = inner.config.n_positions
    if last <= limit:
        yield
        return

    def clamp(module, args, kwargs):
        return args, {**kwargs, "position_ids": kwargs["position_ids"].clamp(max=limit - 1)}

    hook = inner.register_forward_pre_hook(clamp, with_kwargs=True)
    logger = logging.getLogger("transformers.generation.stopping_criteria")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        hook.remove()


def roomy_cache(room: int) -> Cache:
    """Return a cache of `positions` positions for any number of layers."""
    return Cache(layer_class_to_replicate=partial(RoomyLayer, room))


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, [row, head, position, d_head], with room for all positions from the beginning:
    transformers' own cache copies everything for every token."""

    def __init__(self, room: int):
        super().__init__()
        self.room = room

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        rows, heads, _, d_head = key_states.shape
        self.whole = key_states.new_empty((2, rows, heads, self.room, d_head))  # keys, values
        self._use(0)
        self.is_initialized = True

    def _use(self, length: int) -> None:
        self.keys, self.values = self.whole[:, :, :, :length]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        self._use(start + key_states.shape[-2])
        self.keys[:, :, start:] = key_states
        self.values[:, :, start:] = value_states
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """The rows that beam search goes on with."""
        self.keys.copy_(self.keys.index_select(0, beam_idx))
        self.values.copy_(self.values.index_select(0, beam_idx))


@contextlib.contextmanager
def head_in_blocks(model) -> Iterator[None]:
    """Compute the same logits, of a batch on a CPU in 0.6-0.7 of the time.

    For a product of 2-16 rows with the head's matrix (50,257 x 768) the CPU's library first copies the matrix into an
    order of its own: in blocks that stay in the cache. Under autocast each block would be cast anew for every token.
    """
    head = getattr(_inner(model), "lm_head", None)
    if type(head) is not nn.Linear or head.weight.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        yield
        return
    blocks, whole = head.weight.split(HEAD_BLOCK), head.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        """[row, 1, d_model] -> [row, 1, vocabulary]; the prompt's pass too keeps its last position only."""
        if head.bias is not None or x[..., 0].numel() == 1:
            return whole(x)
        return torch.cat([nn.functional.linear(x, block) for block in blocks], dim=-1)

    head.forward = forward
    try:
        yield
    finally:
        del head.forward
