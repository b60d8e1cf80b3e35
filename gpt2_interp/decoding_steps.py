"""The parts of transformers' `generate` that are ours: the draw, rules for padded rows, where each row ends, and a
cache and a head that cost less on a CPU."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import nn
from transformers import LogitsProcessor, StoppingCriteria
from transformers.cache_utils import Cache, DynamicLayer
from transformers.generation import NoRepeatNGramLogitsProcessor

HEAD_BLOCK = 1024  # tokens whose logits are computed at once on a CPU


class Draw(LogitsProcessor):
    """Scores whose largest entry is a draw: probability / Exp(1) noise, a generator a row. Comes last."""

    def __init__(self, seeds: Sequence[int], device: torch.device):
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores: [row, vocabulary]"""
        probabilities = scores.softmax(dim=-1)
        noise = torch.empty_like(probabilities)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return probabilities.div_(noise)


class NoRepeatNGram(NoRepeatNGramLogitsProcessor):
    """As in transformers, but padding is no text: there, padded rows must not repeat their padding, which is EOS.

    padding: [row] columns of padding before each row's text.
    """

    def __init__(self, size: int, padding: torch.Tensor):
        super().__init__(size)
        self.padding = padding

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        # An id outside the vocabulary: it is banned in vain, and windows with it match no text.
        text = input_ids.masked_fill(columns < self.padding[:, None], scores.shape[-1])
        return super().__call__(text, scores)


class Limits(StoppingCriteria):
    """Stops each row at its own length, and all at the deadline. Remembers the tokens so far, for Ctrl-C."""

    def __init__(self, rooms: Sequence[int], width: int, seconds: float | None, device: torch.device):
        self.rooms = torch.tensor(rooms, device=device)  # [row]
        self.width = width
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.ids: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        """input_ids: [row * beams, columns] -> [row * beams] bool"""
        self.ids = input_ids
        stop = self.rooms <= input_ids.shape[1] - self.width
        if self.deadline is not None and time.monotonic() >= self.deadline:
            stop = torch.ones_like(stop)
        return stop.repeat_interleave(len(input_ids) // len(stop))


def _inner(model):
    """The model itself, where PEFT has wrapped it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextlib.contextmanager
def positions_within(model, last: int) -> Iterator[None]:
    """Where a long and a short prompt share a batch, rows that are already full go on while others are written: keep
    their positions, which nobody reads any more, inside the context, and transformers' reminder of its end unsaid."""
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
    """A cache of so many positions for any number of layers."""
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
    """The same logits, of a batch on a CPU in 0.6-0.7 of the time.

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
