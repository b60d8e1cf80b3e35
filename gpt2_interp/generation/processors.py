"""The parts of transformers' `generate` that are ours: the draw, rules for padded rows, where each row ends, and a
cache and a head that cost less on a CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation import NoRepeatNGramLogitsProcessor


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
    """The n-gram rule of transformers, except that padding is no text: in transformers padded rows must not repeat
    their padding, which is EOS.

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
