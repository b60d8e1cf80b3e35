"""Rows -> token ids with the prompt masked out of the loss.

An example is `source | template | target`: the article, the words that ask for the summary, and the summary with its
EOS. Only the target is supervised. Plain text has an empty source and template, and every token is target.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gpt2_interp.data import token_cache
from gpt2_interp.errors import InputError

IGNORED = -100  # the label that the cross entropy skips
TEMPLATES = {"summarization": "\nTL;DR:", "creative_writing": "\n\n"}
CHUNK_ROWS = 1000  # tokenized at once: enough for all cores, and little memory
MANY_ROWS = 5000  # from here on tokenization takes seconds: worth a bar, and a file that remembers it


@dataclass(frozen=True)
class Example:
    """One tokenized row, or a block of one. `target_ids` end with EOS unless the text goes on behind the block.

    `cluster` names what makes rows dependent (event, document, prompt), `group` the source of a mixture ("" elsewhere).
    """

    id: str
    cluster: str
    source_ids: tuple[int, ...]
    template_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    group: str = ""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.source_ids + self.template_ids

    @property
    def input_ids(self) -> tuple[int, ...]:
        return self.prompt_ids + self.target_ids

    @property
    def labels(self) -> tuple[int, ...]:
        """Return [len(input_ids)], IGNORED on the prompt."""
        return (IGNORED,) * len(self.prompt_ids) + self.target_ids


class ExampleTable(Sequence[Example]):
    """Many examples in flat arrays: 4 bytes a token, where tuples of Python's ints would take 36.

    ids: [token] int32, all examples' source, template and target one after another. spans: [example, 4] int64, where in
    `ids` an example's source begins, its template, its target, and where that ends. names: (id, cluster, group).
    An `Example` is made when one is asked for; a slice shares the ids.
    """

    def __init__(self, ids: np.ndarray, spans: np.ndarray, names: Sequence[tuple[str, str, str]]):
        assert spans.shape == (len(names), 4)
        self.ids, self.spans, self.names = ids, spans, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return ExampleTable(self.ids, self.spans[index], self.names[index])
        start, template, target, end = self.spans[index]
        identity, cluster, group = self.names[index]
        parts = (self.ids[a:b].tolist() for a, b in ((start, template), (template, target), (target, end)))
        return Example(identity, cluster, *map(tuple, parts), group)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, [example] int64, without making any."""
        return self.spans[:, 3] - self.spans[:, 0]


@dataclass
class TokenizationReport:
    """Everything that tokenization had to do to the rows; printed and kept in run.json."""

    rows: int = 0
    cut_sources: int = 0
    long_targets: int = 0
    too_long_targets: int = 0
    cut_targets: int = 0  # with --block_size: a prompted story, or a text of which only the first block is used
    blocks: int = 0  # with --block_size: examples that the rows became, where that differs

    def remarks(self) -> dict[str, int]:
        """Return what had to be done, without the zeros."""
        return {name: count for name, count in vars(self).items() if count and name != "rows"}

    def __str__(self) -> str:
        parts = [f"{self.rows} rows"]
        if self.blocks:
            parts.append(f"cut into {self.blocks} blocks")
        if self.cut_sources:
            parts.append(f"{self.cut_sources} sources cut to fit")
        if self.long_targets:
            parts.append(f"{self.long_targets} targets longer than --max_target_length, kept whole")
        if self.too_long_targets:
            parts.append(f"{self.too_long_targets} dropped: target alone exceeds the context")
        if self.cut_targets:
            parts.append(f"{self.cut_targets} texts cut at the end of their block, without end-of-text")
        return ", ".join(parts)


@dataclass(frozen=True)
class TokenizedRow:
    """Token ids of one example before it is stored."""

    source: Sequence[int]
    template: Sequence[int]
    target: Sequence[int]


class ExampleBuilder:
    """Tokenizes rows {"id", "cluster", "source", "target"} and maybe "group" of one task.

    Without `block_size` the source is cut at its end, the target never: a target longer than `max_target_length` takes
    its room from the source. A row whose target alone does not fit the context is dropped and counted.

    With `block_size` no example is longer than that. A plain text becomes as many blocks as it takes (the first alone
    with `first_block_only`), with EOS at the text's end only. A prompt is cut to `max_source_length` and to half a
    block; of its story stays what fits, without EOS if that is not all. Raises InputError where a block exceeds the
    context.
    """

    def __init__(
        self,
        tokenizer,
        task: str,
        max_source_length: int,
        max_target_length: int,
        n_positions: int,
        block_size: int | None = None,
        first_block_only: bool = False,
    ):
        if block_size and block_size > n_positions:
            raise InputError(
                f"--block_size {block_size} exceeds the model's context of {n_positions} tokens; lower it."
            )
        self.tokenizer = tokenizer
        self.task = task
        self.template_ids = tuple(self._ids(TEMPLATES[task]))
        if block_size:  # half of a block is the story's
            max_source_length = max(1, min(max_source_length, block_size // 2 - len(self.template_ids)))
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self.n_positions = n_positions
        self.block_size = block_size
        self.first_block_only = first_block_only
        self.limit = min(n_positions, max_source_length + len(self.template_ids) + max_target_length)

    def settings(self) -> dict[str, Any]:
        """Return what decides the examples, besides the rows and the tokenizer."""
        names = ("task", "max_source_length", "max_target_length", "n_positions", "block_size", "first_block_only")
        return {name: getattr(self, name) for name in names}

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def build(
        self, rows: Iterable[Mapping[str, Any]], fingerprint: str | None = None
    ) -> tuple[ExampleTable, TokenizationReport]:
        """Examples in the order of the rows, and what had to be cut or dropped.

        fingerprint: sha256 of the rows (`rows.fingerprint`). With it, many rows are tokenized once: the examples are
        kept under datasets' cache folder, for the next time that rows, tokenizer and settings are the same.
        """
        rows = rows if isinstance(rows, Sequence) else list(rows)
        if fingerprint is None or len(rows) < MANY_ROWS:
            return self._tokenize(rows)
        key = token_cache.key(fingerprint, self.tokenizer, {**self.settings(), "template": list(self.template_ids)})
        kept = token_cache.read(key)
        if kept is not None:
            ids, spans, names, counts = kept
            return ExampleTable(ids, spans, names), TokenizationReport(**counts)
        table, report = self._tokenize(rows)
        token_cache.write(key, table.ids, table.spans, table.names, vars(report))
        return table, report

    def _tokenize(self, rows: Sequence[Mapping[str, Any]]) -> tuple[ExampleTable, TokenizationReport]:
        report, names = TokenizationReport(rows=len(rows)), []
        ids, lengths = [], []  # one array of each a chunk of rows
        bar = tqdm(total=len(rows), desc="tokenizing", unit=" rows", disable=len(rows) < MANY_ROWS, leave=False)
        for chunk in _chunks(rows, CHUNK_ROWS):
            flat: list[int] = []
            for row, source, target in zip(chunk, *self._chunk_ids(chunk), strict=True):
                pieces = self._pieces(row, source, target, report)
                for k, piece in enumerate(pieces):
                    identity = str(row["id"]) if len(pieces) == 1 else f"{row['id']}#{k}"
                    names.append((identity, str(row.get("cluster", row["id"])), row.get("group", "")))
                    lengths.append((len(piece.source), len(piece.template), len(piece.target)))
                    flat += [*piece.source, *piece.template, *piece.target]
            ids.append(np.asarray(flat, dtype=np.int32))
            bar.update(len(chunk))
        bar.close()
        report.blocks = len(names) if self.block_size and len(names) != len(rows) else 0
        return ExampleTable(np.concatenate([np.zeros(0, np.int32), *ids]), _spans(lengths), names), report

    def _chunk_ids(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[int]], list[list[int]]]:
        """Return (ids of the sources, ids of the targets without EOS); the tokenizer shares a batch among the cores."""
        # A leading space makes the target's first word the token that it is inside a text.
        targets = [(" " if row["source"] else "") + row["target"].strip() for row in rows]
        ids = self._batch_ids([*(row["source"].strip() for row in rows), *targets])
        return ids[: len(rows)], ids[len(rows) :]

    def _batch_ids(self, texts: list[str]) -> list[list[int]]:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not hasattr(backend, "encode_batch_fast"):
            return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        backend.no_padding()  # which an earlier call may have left there
        backend.no_truncation()
        # A quarter faster than through transformers: without offsets, masks and their lists.
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _pieces(self, row, source: list[int], target: list[int], report: TokenizationReport) -> list[TokenizedRow]:
        """The examples of one row: none, one, or with --block_size one a block."""
        target.append(self.tokenizer.eos_token_id)
        if self.block_size is None:
            return self._fit(source, target, report)
        if not source:
            blocks = cut_into_blocks(target, self.block_size)
            if self.first_block_only and len(blocks) > 1:
                report.cut_targets += 1
                del blocks[1:]
            return [TokenizedRow((), (), block) for block in blocks]
        report.cut_sources += len(source) > self.max_source_length
        source = source[: self.max_source_length]
        kept = target[: self.block_size - len(source) - len(self.template_ids)]
        report.cut_targets += len(kept) < len(target)
        return [TokenizedRow(source, self.template_ids, kept)]

    def _fit(self, source: list[int], target: list[int], report: TokenizationReport) -> list[TokenizedRow]:
        template = self.template_ids if source else ()
        report.long_targets += len(target) > self.max_target_length
        if len(target) + len(template) + bool(source) > self.n_positions:
            report.too_long_targets += 1
            return []
        room = min(
            self.max_source_length, max(self.limit, len(target) + len(template) + 1) - len(template) - len(target)
        )
        report.cut_sources += len(source) > room
        return [TokenizedRow(source[:room], template, target)]

    def prompt_ids(self, source: str, new_tokens: int) -> list[int]:
        """Prompt of one source for generation, cut so that `new_tokens` fit the context behind it."""
        room = min(self.max_source_length, self.n_positions - new_tokens - len(self.template_ids))
        return [*self._ids(source.strip())[:room], *self.template_ids]


def _chunks(rows: Iterable, size: int) -> Iterator[list]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def cut_into_blocks(ids: list[int], size: int) -> list[list[int]]:
    """Cut `ids` into blocks of `size`, the last one shorter. A last block of one token would predict nothing, so the
    block before it hands over one of its own."""
    starts = list(range(0, len(ids), size))
    if len(starts) > 1 and len(ids) - starts[-1] == 1:
        starts[-1] -= 1
    return [ids[a:b] for a, b in itertools.pairwise([*starts, len(ids)])]


def _spans(lengths: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Return [example, 4] from the lengths of each example's source, template and target."""
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64).reshape(-1, 3)).reshape(-1, 3)
    starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1, 2]])
    return np.column_stack([starts, ends])


def token_counts(examples: Sequence[Example]) -> np.ndarray:
    """Tokens of each example, [example] int64."""
    if isinstance(examples, ExampleTable):
        return examples.lengths
    return np.asarray([len(example.input_ids) for example in examples], dtype=np.int64)


def collate(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Return a right-padded batch: input_ids, attention_mask, labels, each [batch, seq]; padding is masked in both."""
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
