"""The fixed held-out examples that every snapshot measures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpt2_interp.examples import Example


@dataclass(frozen=True)
class ProbeSet:
    """`examples` give all per-probe measures, `pattern_examples` the full attention patterns; `notes` what was done."""

    examples: tuple[Example, ...]
    pattern_examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.examples:
            raise ValueError("a probe set needs at least one held-out example")

    def describe(self, tokenizer=None) -> dict[str, Any]:
        """What probe_set.json holds; tokens as readable text, or as ids without a tokenizer."""
        return {
            "example": [{"id": e.id, "cluster": e.cluster, **_sizes(e)} for e in self.examples],
            "pattern": [
                {
                    "id": e.id,
                    "tokens": [_readable(i, tokenizer) for i in e.input_ids],
                    "token_ids": list(e.input_ids),
                    **_sizes(e),
                }
                for e in self.pattern_examples
            ],
            "notes": list(self.notes),
        }


def _sizes(example: Example) -> dict[str, int]:
    return {
        "n_source": len(example.source_ids),
        "n_template": len(example.template_ids),
        "n_target": len(example.target_ids),
    }


def _readable(token_id: int, tokenizer) -> str:
    if tokenizer is None:
        return str(token_id)
    text = tokenizer.decode([token_id])
    # Half a character decodes to the replacement mark; the vocabulary's own spelling says more.
    return tokenizer.convert_ids_to_tokens(token_id) if "\ufffd" in text else text


def choose_probes(
    held_out: Sequence[Example],
    count: int = 256,
    seed: int = 0,
    max_source_length: int = 256,
    max_target_length: int = 64,
    pattern_count: int = 4,
    pattern_length: int = 96,
) -> ProbeSet:
    """Choose the probes, the same for the same held-out examples and seed.

    First from examples within the two lengths, stratified by length. Where these are too few, longer sources are cut
    at their end, and then longer targets (never cut) join, the shortest first, while the tokens of `count` probes of
    full length last. Raises ValueError when nothing is held out.
    """
    rng = random.Random(seed)
    notes: list[str] = []
    short_target = [e for e in held_out if len(e.target_ids) <= max_target_length]
    fits = [e for e in short_target if len(e.source_ids) <= max_source_length]
    chosen = stratified(fits, count, rng)
    long_source = [e for e in short_target if len(e.source_ids) > max_source_length]
    cut = [_cut_source(e, max_source_length) for e in stratified(long_source, count - len(chosen), rng)]
    chosen += cut
    long_target = sorted((e for e in held_out if len(e.target_ids) > max_target_length), key=_length)
    budget = count * (max_source_length + max_target_length) - sum(map(_length, chosen))
    added = []
    for example in (_cut_source(e, max_source_length) for e in long_target):
        budget -= _length(example)
        if len(chosen) + len(added) == count or (budget < 0 and (chosen or added)):
            break
        added.append(example)
    chosen += added

    if len(chosen) < count:
        notes.append(
            f"{len(chosen)} probes instead of {count}: {len(held_out)} examples are held out"
            + ("." if len(chosen) == len(held_out) else ", and longer ones would cost too many tokens.")
        )
    if cut:
        notes.append(f"The source of {len(cut)} of the probes was cut to {max_source_length} tokens.")
    if added:
        notes.append(f"The target of {len(added)} of the probes is longer than {max_target_length} tokens, kept whole.")
    patterns = _pattern_probes(held_out, pattern_count, pattern_length, rng, notes)
    return ProbeSet(tuple(chosen), tuple(patterns), tuple(notes))


def stratified(examples: Sequence[Example], count: int, rng: random.Random) -> list[Example]:
    """At most `count` examples: sorted by length and divided into `count` equal strata, one drawn from each."""
    ordered = sorted(examples, key=_length)
    if count >= len(ordered):
        return ordered
    strata = [(k * len(ordered) // count, (k + 1) * len(ordered) // count) for k in range(count)]
    return [ordered[rng.randrange(start, end)] for start, end in strata]


def _pattern_probes(held_out, count: int, length: int, rng: random.Random, notes: list[str]) -> list[Example]:
    """A few probes of at most `length` tokens; when fewer are that short, the shortest others are cut to fit."""
    short = stratified([e for e in held_out if _length(e) <= length], count, rng)
    others = sorted((e for e in held_out if _length(e) > length), key=_length)[: count - len(short)]
    cut = [_cut_to(e, length) for e in others]
    if cut:
        notes.append(f"{len(cut)} of the {len(short) + len(cut)} pattern probes were cut to {length} tokens.")
    beheaded = [e.id for e, whole in zip(cut, others, strict=True) if e.target_ids != whole.target_ids]
    if beheaded:
        notes.append(
            f"Pattern probes without their whole target, which alone exceeds {length} tokens: {', '.join(beheaded)}."
        )
    return short + cut


def _cut_to(example: Example, length: int) -> Example:
    """`example` in `length` tokens: the source loses its end; if that is not enough, only the first tokens stay."""
    room = length - len(example.template_ids) - len(example.target_ids)
    if example.source_ids and room > 0:
        return _cut_source(example, room)
    source = example.source_ids[:length]
    template = example.template_ids[: length - len(source)]
    target = example.target_ids[: length - len(source) - len(template)]
    return replace(example, source_ids=source, template_ids=template, target_ids=target)


def _cut_source(example: Example, length: int) -> Example:
    return replace(example, source_ids=example.source_ids[:length])


def _length(example: Example) -> int:
    return len(example.source_ids) + len(example.template_ids) + len(example.target_ids)
