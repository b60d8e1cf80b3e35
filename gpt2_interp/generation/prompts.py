"""A user's text -> the token ids of a prompt, with the template and the cuts of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpt2_interp.data.examples import ExampleBuilder
from gpt2_interp.data.settings import TASKS, DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.generation.settings import Decoding

LENGTHS = ("max_source_length", "max_target_length")  # tokens, as task.json has them


class PromptBuilder:
    """Builds the prompts of one task for one model.

    A source loses its end, as in training; a text that is to be continued loses its beginning. Room is kept behind the
    prompt for the new tokens that were asked for, but never more than half the context.
    """

    def __init__(self, tokenizer, n_positions: int, task: str = "text", trained: Mapping[str, Any] | None = None):
        """trained: what `trained_task` says about the model; its lengths hold if it was trained for this task."""
        if task not in TASKS:
            raise InputError(f"--task {task} is not known: use one of {', '.join(TASKS)}.")
        self.tokenizer, self.n_positions, self.task = tokenizer, n_positions, task
        self.builder: ExampleBuilder | None = None
        if task != "text":
            same = trained is not None and trained["task"] == task
            lengths = DataArguments()  # the flags' defaults
            if same:
                lengths = replace(lengths, **{name: trained[name] for name in LENGTHS})
            self.builder = ExampleBuilder(
                tokenizer, task, lengths.max_source_length, lengths.max_target_length, n_positions
            )

    def build(self, text: str, decoding: Decoding) -> tuple[list[int], int, str | None]:
        """Return (ids, most new tokens behind them, what had to be cut, for the user: a sentence or None).

        Raises InputError for an empty source, and where the prompt leaves no room.
        """
        least = decoding.max_new_tokens or 1  # with max_length the prompt decides how many there are
        reserved = min(least, self.n_positions // 2)
        if self.builder is None:
            ids = self._ids(text) or [self.tokenizer.eos_token_id]  # where GPT-2's documents begin
            kept = ids[-(self.n_positions - reserved) :]
            lost = "beginning"
        else:
            if not text.strip():
                raise InputError(f"--task {self.task} takes a text, and this one is empty.")
            ids = [*self._ids(text.strip()), *self.builder.template_ids]
            kept = self.builder.prompt_ids(text, reserved)
            lost = "end"
        room = decoding.room(len(kept), self.n_positions)
        notes = []
        if len(kept) < len(ids):
            template = 0 if self.builder is None else len(self.builder.template_ids)
            notes.append(
                f"the text's {lost} was cut: {len(ids) - template} tokens, of which {len(kept) - template} are used"
            )
        wanted = None if decoding.default_length else decoding.max_new_tokens
        if wanted is not None and room < wanted:
            notes.append(f"at most {room} new tokens, not {wanted}, fit the context behind the prompt")
        elif decoding.max_length is not None and decoding.max_length > self.n_positions:
            notes.append(f"--max_length is cut to the context of {self.n_positions} tokens")
        return kept, room, "; ".join(notes) or None

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
