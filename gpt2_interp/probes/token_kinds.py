"""Kinds of target tokens, over which a loss is averaged apart: values, words of the source, frequent words, ...

In one mean over all tokens of a target the many easy ones outweigh the few that tell whether a model reads its source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gpt2_interp.data.examples import Example

ALL = "all"
# A target whose facts are known:
VALUE_FIRST, VALUE_REST, COPIED, TEMPLATE = "value_first", "value_rest", "copied", "template"
NEW = "new"  # a target with a source, but without known facts: COPIED and NEW
# A text without a source: the token's position in it, and how frequent the token is in the training texts.
POSITIONS = {"position 0-15": (0, 16), "position 16-63": (16, 64), "position 64-255": (64, 256)}
POSITIONS |= {"position 256+": (256, 2**62)}
FREQUENCIES = ("frequent", "middle", "rare")

Value = tuple[str, tuple[int, ...]]  # slot, and the positions in input_ids of the value's tokens in the target


def copied_tokens(example: Example) -> np.ndarray:
    """Return [n_target] bool, whether the token, the same id, occurs in the example's own source."""
    return np.isin(np.asarray(example.target_ids, dtype=np.int64), np.asarray(example.source_ids, dtype=np.int64))


def token_kinds(
    examples: Sequence[Example], values: Sequence[Sequence[Value]], training: Sequence[Example]
) -> tuple[tuple[str, ...], tuple[np.ndarray, ...]]:
    """Return (labels of the kinds, "all" first; for each example [n_target, kind] bool, which kinds a token is of).

    values: for each example its values in the target, none where its facts are not known. training: the texts in which
    words are counted. A kind without any token is left out.

    Known facts: value_first, value_rest, copied (another token that occurs in the source) and template (the rest, with
    the end of text) divide a target; "value_first <slot>" divides value_first. A source alone: copied and new. Neither:
    bands of the position, and "frequent", "middle" and "rare", the most frequent words that make up a third of the
    training texts, those of the next third, and the rest.
    """
    band = _frequency_bands([e for e in training if not e.source_ids] or examples)
    found = [_of_one(example, of_example, band) for example, of_example in zip(examples, values, strict=True)]
    slots = dict.fromkeys(f"{VALUE_FIRST} {slot}" for of_example in values for slot, _ in of_example)
    order = (VALUE_FIRST, VALUE_REST, COPIED, TEMPLATE, NEW, *POSITIONS, *FREQUENCIES, *slots)
    labels = (ALL, *(label for label in order if any(kinds[label].any() for kinds in found if label in kinds)))
    columns = [[kinds.get(label, np.zeros_like(kinds[ALL])) for label in labels] for kinds in found]
    return labels, tuple(np.stack(one, axis=-1) for one in columns)


def _of_one(example: Example, values: Sequence[Value], band: np.ndarray) -> Mapping[str, np.ndarray]:
    """The kinds of one example, each [n_target] bool."""
    n, n_prompt = len(example.target_ids), len(example.prompt_ids)
    kinds = {ALL: np.ones(n, dtype=bool)}
    if not example.source_ids:
        position = n_prompt + np.arange(n)
        kinds |= {label: (position >= start) & (position < stop) for label, (start, stop) in POSITIONS.items()}
        known = np.minimum(np.asarray(example.target_ids, dtype=np.int64), len(band) - 1)  # the last one is "rare"
        return kinds | {label: band[known] == k for k, label in enumerate(FREQUENCIES)}
    copied = copied_tokens(example)
    if not values:
        return kinds | {COPIED: copied, NEW: ~copied}
    first, value = np.zeros((2, n), dtype=bool)
    slots: dict[str, np.ndarray] = {}
    for slot, positions in values:
        at = np.asarray(positions) - n_prompt
        value[at], first[at.min()] = True, True
        slots.setdefault(f"{VALUE_FIRST} {slot}", np.zeros(n, dtype=bool))[at.min()] = True
    rest = {VALUE_FIRST: first, VALUE_REST: value & ~first, COPIED: copied & ~value, TEMPLATE: ~copied & ~value}
    return kinds | rest | slots


def _frequency_bands(texts: Sequence[Example]) -> np.ndarray:
    """Return [token id + 1] int, the index in FREQUENCIES of every token; the last entry stands for all higher ids."""
    ids = np.fromiter((i for e in texts for i in e.target_ids), dtype=np.int64)
    counts = np.append(np.bincount(ids), 0)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]  # running tokens of all more frequent words
    band = np.empty(len(counts), dtype=np.int64)
    band[order] = np.minimum(len(FREQUENCIES) * before // max(1, len(ids)), len(FREQUENCIES) - 1)
    return band
