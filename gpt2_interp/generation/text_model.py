"""A checkpoint that answers prompts: model, tokenizer, its task, and how a prompt becomes an Answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TextIO

import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from gpt2_interp.errors import InputError
from gpt2_interp.generation.answers import Answer, Candidate, Continuation, Page, TokenChoice
from gpt2_interp.generation.generate import Generated, GenerationInterrupted, TextStream, generate
from gpt2_interp.generation.probabilities import token_probabilities
from gpt2_interp.generation.prompts import PromptBuilder
from gpt2_interp.generation.settings import BATCH_SIZE, Decoding
from gpt2_interp.model.load import load_trained
from gpt2_interp.model.settings import IMPLEMENTATIONS
from gpt2_interp.model.task_file import trained_task

ALTERNATIVES = 5  # shown beside each token's probability


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it. lead: the text that its continuations are shown behind. note: what was cut."""

    text: str
    ids: tuple[int, ...]
    lead: str
    note: str | None


class TextModel:
    """One checkpoint. Raises InputError where it can't be loaded.

    task: None takes the one it was trained for, "text" if that isn't known. device: as torch writes it ("cpu",
    "cuda:1"); None takes the best there is.
    """

    def __init__(
        self,
        path: str,
        implementation: str = IMPLEMENTATIONS[0],
        base_model: str | None = None,
        task: str | None = None,
        device: str | None = None,
    ):
        self.path, self.implementation = path, implementation
        self.trained = trained_task(path)
        self.model, self.tokenizer = load_trained(path, implementation, base_model, device and usable_device(device))
        self.set_task(task or (self.trained or {}).get("task", "text"))

    def set_task(self, task: str) -> None:
        """Read prompts as this task does from now on. Raises InputError for an unknown one."""
        self.builder = PromptBuilder(self.tokenizer, self.model.config.n_positions, task, self.trained)
        self.task = task

    @cached_property
    def weights(self) -> str:
        """A fingerprint of the weights, 16 hexadecimal digits of a hash over up to 2,000 numbers of each parameter.

        Weights that differ in other numbers alone have the same fingerprint.
        """
        digest = hashlib.sha256()
        for name, parameter in self.model.named_parameters():
            flat = parameter.detach().flatten()
            digest.update(name.encode())
            digest.update(flat[:: max(1, len(flat) // 1000)].float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def source(self, decoding: Decoding) -> dict[str, Any]:
        """Return where an answer comes from, for its record."""
        return {
            "model": self.path,
            "weights": self.weights,
            "implementation": self.implementation,
            "task": self.task,
            "settings": decoding.record(),
        }

    # --- prompts -----------------------------------------------------------------------------------------------

    def prompt(self, text: str, decoding: Decoding) -> Prompt:
        """Return a text as the model reads it. Raises InputError for a prompt that can't be answered."""
        if any("\ud800" <= character <= "\udfff" for character in text):  # what Python makes of bytes that are no UTF-8
            raise InputError("the prompt is not UTF-8 text: convert it first.")
        ids, _, note = self.builder.build(text, decoding)
        lead = ""
        if self.task == "text" and text:  # what is read of it; an empty one is read as end-of-text, which begins a text
            lead = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False).lstrip("\N{REPLACEMENT CHARACTER}")
        return Prompt(text, tuple(ids), lead, note)

    # --- answers -----------------------------------------------------------------------------------------------

    def answer(
        self,
        prompt: Prompt,
        decoding: Decoding,
        probabilities: bool = False,
        batch_size: int = BATCH_SIZE,
        aloud: TextIO | None = None,
    ) -> Answer:
        """All sequences of one prompt. Ctrl-C ends them where they are, and the answer says so.

        aloud: where to write each token as it comes, sequence by sequence (not for beam search, whose tokens are
        settled at its end). The texts are the same.
        """
        interrupted, found = False, []
        try:
            if aloud is None or decoding.is_beam:
                (found,) = generate(self.model, self.tokenizer, [prompt.ids], decoding, batch_size=batch_size)
            else:
                page = Page(aloud, prompt.lead, strip=self.task != "text")
                for k in range(decoding.num_sequences):
                    found.append(self._aloud(prompt, decoding, k, page, probabilities))
        except GenerationInterrupted as stop:
            interrupted = True
            found = found + stop.results[0]
        sequences = tuple(self._continuation(prompt, one, probabilities) for one in found)
        return self._answer(prompt, decoding, sequences, interrupted)

    def _aloud(self, prompt: Prompt, decoding: Decoding, k: int, page: Page, probabilities: bool) -> Generated:
        """Sequence k alone, each token written when it comes. Raises GenerationInterrupted with what there is."""
        seed = decoding.seed + k if decoding.is_random else None
        alone = replace(decoding, num_sequences=1)
        page.begin(k, decoding.num_sequences, seed)
        stream = TextStream(self.tokenizer, page.write)
        one = None
        try:
            ((one,),) = generate(self.model, self.tokenizer, [prompt.ids], alone, seeds=[seed or 0], streamer=stream)
        except GenerationInterrupted as stop:
            one = next(iter(stop.results[0]), None)
            raise
        finally:
            page.end(one and self._continuation(prompt, one, probabilities))
        return one

    def answer_many(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        on_answers: Callable[[list[tuple[int, Answer]]], None],
        batch_size: int = BATCH_SIZE,
        probabilities: bool = False,
    ) -> None:
        """Answers in batches; `on_answers` gets (index of the prompt, answer) of each batch as soon as it is done."""

        def on_batch(indices: list[int], results: list[list[Generated]]) -> None:
            answers = []
            for i, found in zip(indices, results, strict=True):
                sequences = tuple(self._continuation(prompts[i], one, probabilities) for one in found)
                answers.append((i, self._answer(prompts[i], decoding, sequences)))
            on_answers(answers)

        ids = [prompt.ids for prompt in prompts]
        generate(self.model, self.tokenizer, ids, decoding, batch_size=batch_size, on_batch=on_batch)

    def _answer(
        self, prompt: Prompt, decoding: Decoding, sequences: tuple[Continuation, ...], interrupted=False
    ) -> Answer:
        return Answer(prompt.text, prompt.lead, prompt.note, self.source(decoding), sequences, interrupted)

    def _continuation(self, prompt: Prompt, one: Generated, probabilities: bool) -> Continuation:
        text = one.text if self.task == "text" else one.text.strip()  # its first space joins it to what it continues
        choices = self._choices(prompt, one) if probabilities else None
        return Continuation(text, one.ids, one.ended, one.seed, choices)

    def _choices(self, prompt: Prompt, one: Generated) -> tuple[TokenChoice, ...]:
        end = (self.tokenizer.eos_token_id,) if one.ended == "end of text" else ()
        found = token_probabilities(self.model, prompt.ids, one.ids + end, ALTERNATIVES)
        return tuple(
            TokenChoice(
                self._candidate(choice.token_id, choice.probability),
                choice.rank,
                tuple(self._candidate(*pair) for pair in choice.alternatives),
            )
            for choice in found
        )

    def _candidate(self, token: int, probability: float) -> Candidate:
        text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        if "\N{REPLACEMENT CHARACTER}" in text:  # part of a character, so its bytes: a vocabulary has letters for them
            letters = self.tokenizer.convert_ids_to_tokens(token)
            text = "".join(f"<{_BYTES[letter]:02X}>" for letter in letters)
        return Candidate(token, text, probability)


_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}


def usable_device(name: str) -> torch.device:
    """Return the named device. Raises InputError for one that torch does not know or this machine does not have."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name} is not known: use cpu, cuda, cuda:1 or mps, or leave it out.") from None
    try:
        torch.ones(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a torch without CUDA fails by an assert
        reason = next(iter(str(error).strip().splitlines()), "")[:150]
        raise InputError(f"--device {name} can't be used here ({reason}): use cpu, or leave it out.") from None
    return device
