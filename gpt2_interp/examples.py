"""Rows -> token ids with the prompt masked out of the loss.

An example is `source | template | target`: the article, the words that ask for the summary, and the summary with its
EOS. Only the target is supervised. Plain text has an empty source and template, and every token is target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100  # the label that the cross entropy skips
TEMPLATES = {"summarization": "\nTL;DR:", "creative_writing": "\n\n"}


@dataclass(frozen=True)
class Example:
    """One tokenized row. `target_ids` end with EOS; `cluster` names what makes rows dependent (event, document)."""

    id: str
    cluster: str
    source_ids: tuple[int, ...]
    template_ids: tuple[int, ...]
    target_ids: tuple[int, ...]

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.source_ids + self.template_ids

    @property
    def input_ids(self) -> tuple[int, ...]:
        return self.prompt_ids + self.target_ids

    @property
    def labels(self) -> tuple[int, ...]:
        """[len(input_ids)], IGNORED on the prompt."""
        return (IGNORED,) * len(self.prompt_ids) + self.target_ids


@dataclass
class TokenizationReport:
    """What tokenization had to do to the rows; printed and kept in run.json."""

    rows: int = 0
    cut_sources: int = 0
    long_targets: int = 0
    too_long_targets: int = 0

    def remarks(self) -> dict[str, int]:
        """What had to be done, without the zeros."""
        return {name: count for name, count in vars(self).items() if count and name != "rows"}

    def __str__(self) -> str:
        parts = [f"{self.rows} rows"]
        if self.cut_sources:
            parts.append(f"{self.cut_sources} sources cut to fit")
        if self.long_targets:
            parts.append(f"{self.long_targets} targets longer than --max_target_length, kept whole")
        if self.too_long_targets:
            parts.append(f"{self.too_long_targets} dropped: target alone exceeds the context")
        return ", ".join(parts)


class ExampleBuilder:
    """Tokenizes rows {"id", "cluster", "source", "target"} of one task.

    The source is cut at its end, the target never: a target longer than `max_target_length` takes its room from the
    source. A row whose target alone does not fit the context is dropped and counted.
    """

    def __init__(self, tokenizer, task: str, max_source_length: int, max_target_length: int, n_positions: int):
        self.tokenizer = tokenizer
        self.task = task
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self.template_ids = tuple(self._ids(TEMPLATES[task]))
        self.n_positions = n_positions
        self.limit = min(n_positions, max_source_length + len(self.template_ids) + max_target_length)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def build(self, rows: Iterable[Mapping[str, Any]]) -> tuple[list[Example], TokenizationReport]:
        """Examples in the order of the rows, and what had to be cut or dropped."""
        rows = list(rows)
        report, examples = TokenizationReport(rows=len(rows)), []
        if not rows:
            return examples, report
        sources = self._batch_ids([row["source"].strip() for row in rows])
        # A leading space makes the target's first word the token that it is inside a text.
        targets = self._batch_ids([(" " if row["source"] else "") + row["target"].strip() for row in rows])
        for row, source, target in zip(rows, sources, targets, strict=True):
            example = self._fit(row, source, target, report)
            if example is not None:
                examples.append(example)
        return examples, report

    def _batch_ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    def _fit(self, row, source: list[int], target: list[int], report: TokenizationReport) -> Example | None:
        target = [*target, self.tokenizer.eos_token_id]
        template = self.template_ids if source else ()
        report.long_targets += len(target) > self.max_target_length
        if len(target) + len(template) + bool(source) > self.n_positions:
            report.too_long_targets += 1
            return None
        room = min(
            self.max_source_length, max(self.limit, len(target) + len(template) + 1) - len(template) - len(target)
        )
        report.cut_sources += len(source) > room
        return Example(
            str(row["id"]), str(row.get("cluster", row["id"])), tuple(source[:room]), template, tuple(target)
        )

    def prompt_ids(self, source: str, new_tokens: int) -> list[int]:
        """Prompt of one source for generation, cut so that `new_tokens` fit the context behind it."""
        room = min(self.max_source_length, self.n_positions - new_tokens - len(self.template_ids))
        return [*self._ids(source.strip())[:room], *self.template_ids]


def collate(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Right-padded batch: input_ids, attention_mask, labels, each [batch, seq]; padding is masked in both."""
    length = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(examples), length), dtype=torch.long)
    labels = torch.full((len(examples), length), IGNORED, dtype=torch.long)
    for row, example in enumerate(examples):
        n = len(example.input_ids)
        input_ids[row, :n] = torch.tensor(example.input_ids)
        attention_mask[row, :n] = 1
        labels[row, :n] = torch.tensor(example.labels)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
