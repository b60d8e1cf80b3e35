"""Text from prompts of token ids: greedy, beam search, sampling, top-k, top-p, in batches, through
`transformers`' own `generate` (any implementation of GPT-2, LoRA adapters too).

**The same seed draws the same text, alone or in a batch.** `torch.multinomial(p, 1)` is argmax(p / q) with q ~ Exp(1)
for each token: of exponential clocks with rates p, the first to ring is token i with probability p_i. So sampling is
greedy search over p / q, where each sequence draws its q from a generator of its own. For one prompt these are the very
numbers that `torch.manual_seed(seed); model.generate(do_sample=True)` draws, and so the very tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import BaseStreamer, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from gpt2_interp.errors import InputError
from gpt2_interp.generation.probabilities import _eval_mode
from gpt2_interp.generation.processors import Draw, Limits, NoRepeatNGram
from gpt2_interp.generation.settings import BATCH_SIZE, Decoding
from gpt2_interp.model.fast_layers import head_in_blocks, positions_within, roomy_cache


@dataclass(frozen=True)
class Generated:
    """One continuation. ids: new tokens without the end of text; text: what stands behind the prompt, its first space
    included; ended: "end of text", "length", "time" or "interrupted"; seed: what draws it again (None: nothing drawn).
    """

    ids: tuple[int, ...]
    text: str
    ended: str
    seed: int | None


class GenerationInterrupted(KeyboardInterrupt):
    """Ctrl-C during `generate`. results: [prompt][sequence] as `generate` returns them, [] for prompts not begun;
    what was being written has ended == "interrupted"."""

    def __init__(self, results: list[list[Generated]]):
        super().__init__()
        self.results = results


@torch.no_grad()  # under inference_mode autocast would cast every weight again for every token
def generate(
    model,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    seeds: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
    description: str = "generating",
    context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    streamer: BaseStreamer | None = None,
    on_batch: Callable[[list[int], list[list[Generated]]], None] | None = None,
) -> list[list[Generated]]:
    """Return continuations of all prompts, [prompt][sequence].

    Sequence k of a prompt is drawn with seed + k, where seed is the prompt's in `seeds`, by default that of `decoding`.

    batch_size: most sequences (or beams) at once; prompts of similar length go together, left-padded.
    context: the autocast of training, if any. streamer: gets the prompt and then each token of a single prompt's single
    sequence, as in transformers; not for beam search, whose tokens are settled at the end only.
    on_batch: called with (indices of the prompts that were finished, their results) after each batch.
    Raises InputError for prompts without room; GenerationInterrupted on Ctrl-C: what `on_batch` was given stays good.
    The global random state and the model's mode are left as they were.
    """
    limit = model.config.n_positions
    rooms = [decoding.room(len(prompt), limit) for prompt in prompts]
    if not all(len(prompt) for prompt in prompts):
        raise InputError("a prompt is empty: begin it with a word, or with the end-of-text token.")
    if streamer is not None and (decoding.is_beam or len(prompts) != 1 or decoding.num_sequences != 1):
        raise InputError("only a single sequence of a single prompt can be streamed, and not with beam search.")
    if seeds is None:
        seeds = [decoding.seed] * len(prompts)
    results: list[list[Generated]] = [[] for _ in prompts]
    with _eval_mode(model), context():  # one autocast around all steps: weights are cast once, not for every token
        batches = list(_batches(prompts, seeds, rooms, decoding, batch_size))
        for batch in tqdm(batches, desc=description, leave=False, disable=None if len(batches) > 1 else True):
            run = _BatchRun(model, tokenizer, batch, decoding, streamer)
            try:
                finished = run.generate()
            except KeyboardInterrupt:
                for row, found in zip(batch, run.interrupted(), strict=True):
                    results[row.prompt] += found
                raise GenerationInterrupted(results) from None
            for row, found in zip(batch, finished, strict=True):
                results[row.prompt] += found
            whole = sorted({row.prompt for row in batch if len(results[row.prompt]) == decoding.num_sequences})
            if on_batch is not None and whole:
                on_batch(whole, [results[i] for i in whole])
    return results


@dataclass(frozen=True)
class _Row:
    """One row of a batch: a prompt's index and ids, the most new tokens, and the seed of this sequence (None where
    nothing is drawn)."""

    prompt: int
    ids: Sequence[int]
    room: int
    seed: int | None


def _batches(prompts, seeds, rooms, decoding: Decoding, batch_size: int) -> Iterator[list[_Row]]:
    """Put rows of similar length together, shortest first: a row for each drawn sequence, or for each prompt whose
    beams share the batch."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    if decoding.is_random:
        rows = [_Row(i, prompts[i], rooms[i], seeds[i] + k) for i in order for k in range(decoding.num_sequences)]
    else:
        rows = [_Row(i, prompts[i], rooms[i], None) for i in order]
    size = max(1, batch_size // decoding.num_beams)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class _BatchRun:
    """One call of transformers' `generate`, and what came of it, also where it was stopped."""

    def __init__(self, model, tokenizer, rows: Sequence[_Row], decoding: Decoding, streamer):
        self.model, self.tokenizer, self.rows, self.decoding = model, tokenizer, rows, decoding
        self.streamer = streamer
        self.device = next(model.parameters()).device
        self.width = max(len(row.ids) for row in rows)
        self.limits = Limits([row.room for row in rows], self.width, decoding.max_seconds, self.device)

    def generate(self) -> list[list[Generated]]:
        """Return the results [row][sequence]."""
        width = self.width
        input_ids = torch.full((len(self.rows), width), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(row.ids for row in self.rows):
            input_ids[row, width - len(ids) :] = torch.tensor(ids)
            attention_mask[row, width - len(ids) :] = 1
        last = width + int(self.limits.rooms.max())
        with positions_within(self.model, last), head_in_blocks(self.model):
            output = self.model.generate(
                input_ids=input_ids.to(self.device),
                attention_mask=attention_mask.to(self.device),
                logits_processor=LogitsProcessorList(self._processors()),
                stopping_criteria=StoppingCriteriaList([self.limits]),
                past_key_values=roomy_cache(last),
                streamer=self.streamer,
                **self._arguments(last),
            )  # [rows * sequences, width + new]
        return self._results(output)

    def _arguments(self, last: int) -> dict[str, Any]:
        """Return everything that `settings` decide as arguments, so that no folder's generation_config.json decides
        it."""
        return {
            "max_length": last,
            "max_new_tokens": None,
            "max_time": None,
            "do_sample": False,
            "temperature": None,
            "top_k": None,
            "top_p": None,
            "num_beams": self.decoding.num_beams,
            "num_return_sequences": self.decoding.num_sequences if self.decoding.is_beam else 1,
            "early_stopping": self.decoding.early_stopping,
            "length_penalty": self.decoding.length_penalty,
            "repetition_penalty": self.decoding.repetition_penalty,
            "no_repeat_ngram_size": 0,  # NoRepeatNGram does it
            "pad_token_id": self.tokenizer.pad_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
        }

    def _processors(self) -> list[LogitsProcessor]:
        """Return processors in transformers' order: the repetition penalty, which `generate` adds first; n-grams;
        temperature, k, p; and then the draw."""
        decoding, processors = self.decoding, []
        if decoding.no_repeat_ngram:
            padding = [self.width - len(row.ids) for row in self.rows for _ in range(decoding.num_beams)]
            processors.append(NoRepeatNGram(decoding.no_repeat_ngram, torch.tensor(padding, device=self.device)))
        if decoding.is_random:
            if decoding.temperature != 1:
                processors.append(TemperatureLogitsWarper(decoding.temperature))
            if decoding.top_k is not None:
                processors.append(TopKLogitsWarper(decoding.top_k))
            if decoding.top_p is not None and decoding.top_p < 1:
                processors.append(TopPLogitsWarper(decoding.top_p))
            processors.append(Draw([row.seed for row in self.rows], self.device))
        return processors

    def interrupted(self) -> list[list[Generated]]:
        """Return [row][sequence] of what was written when Ctrl-C came; nothing of beams, which have no text before the
        end."""
        if self.streamer is not None:
            self.streamer.end()
        if self.limits.ids is None or self.decoding.is_beam:
            return [[] for _ in self.rows]
        return self._results(self.limits.ids, "interrupted")

    def _results(self, output: torch.Tensor, stopped: str = "time") -> list[list[Generated]]:
        """Return [row][sequence] of output [rows * sequences, width + new]. stopped: why a sequence ended that is
        neither whole nor full."""
        results: list[list[Generated]] = [[] for _ in self.rows]
        sequences = len(output) // len(self.rows)
        eos = self.tokenizer.eos_token_id
        for k, ids in enumerate(output[:, self.width :].tolist()):
            row = self.rows[k // sequences]
            ids, ended = ids[: row.room], stopped if len(ids) < row.room else "length"
            if eos in ids:
                ids, ended = ids[: ids.index(eos)], "end of text"
            results[k // sequences].append(Generated(tuple(ids), text_of(self.tokenizer, ids), ended, row.seed))
        return results


def text_of(tokenizer, ids: Sequence[int]) -> str:
    """The text of some ids as it is, without special tokens."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class TextStream(BaseStreamer):
    """A `streamer` that hands on text token by token; a character of several tokens when it is whole.

    The pieces joined are the `Generated.text`.
    """

    def __init__(self, tokenizer, write: Callable[[str], None]):
        self.tokenizer, self.write = tokenizer, write
        self.held: list[int] = []  # ids not handed on yet
        self.in_prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self.in_prompt:  # transformers gives it first
            self.in_prompt = False
            return
        self.held += value.flatten().tolist()
        text = text_of(self.tokenizer, self.held)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # what an incomplete character is decoded to
            self._hand_on(text)

    def end(self) -> None:
        self._hand_on(text_of(self.tokenizer, self.held))

    def _hand_on(self, text: str) -> None:
        self.held = []
        if text:
            self.write(text)


# --- how likely a text was -----------------------------------------------------------------------------------------
