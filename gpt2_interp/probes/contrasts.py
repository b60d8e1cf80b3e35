"""Contrasts to the probes: each target behind another probe's source, general text at the probes' positions, and
random tokens that are read twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from gpt2_interp.data.examples import Example
from gpt2_interp.probes.probe_set import evenly

SEQUENCES, SEQUENCE_LENGTH = 64, 50  # how many; random tokens before they come again
BIN = 8  # probes whose sources are about equally long, among which sources are exchanged
OWN = 1e3  # cost of pairing an example with its own source (same-cluster pairs cost 1)


def behind_other_sources(examples: Sequence[Example], n_positions: int) -> tuple[Example | None, ...]:
    """Each example's target behind the source and template of another one, the same for the same examples.

    The examples with a source are sorted by its length and cut into bins of BIN; in each bin every source goes to
    another example: never to one with an equal source, to one of its own cluster only where the bin leaves no choice,
    and otherwise to one of nearly its length. Where source and target exceed n_positions, the source loses its end.
    None for an example without a source, and for one whose bin has none but its own.
    """
    order = sorted((i for i, e in enumerate(examples) if e.source_ids), key=lambda i: len(examples[i].source_ids))
    found: list[Example | None] = [None] * len(examples)
    n_bins = max(1, round(len(order) / BIN))
    for bin_ in np.array_split(np.asarray(order, dtype=np.int64), n_bins):
        members = [examples[i] for i in bin_]
        for i, owner in zip(bin_, _source_owners(members), strict=True):
            found[i] = None if owner is None else _behind(examples[i], members[owner], n_positions)
    return tuple(found)


def _source_owners(members: Sequence[Example]) -> list[int | None]:
    """Return for each member the one whose source it gets: the assignment of least cost."""
    lengths = [len(member.source_ids) for member in members]
    whole = 2 * sum(lengths) + 1  # more than all differences of length in an assignment add up to
    cost = np.zeros((len(members), len(members)))
    for i, one in enumerate(members):
        for j, other in enumerate(members):
            cost[i, j] = OWN * (one.source_ids == other.source_ids) + (one.cluster == other.cluster)
            cost[i, j] += abs(lengths[i] - lengths[j]) / whole
    _, columns = linear_sum_assignment(cost)
    return [int(j) if cost[i, j] < OWN else None for i, j in enumerate(columns)]


def _behind(example: Example, owner: Example, n_positions: int) -> Example | None:
    room = n_positions - len(owner.template_ids) - len(example.target_ids)
    if room < 1:
        return None
    return replace(example, source_ids=owner.source_ids[:room], template_ids=owner.template_ids)


def at_probe_positions(
    texts: Sequence[Example], probes: Sequence[Example], count: int, seed: int
) -> tuple[tuple[Example, ...], list[str]]:
    """Return (general text, at most `count`, divided as probes are; notes), the same for the same arguments.

    Each text has as many source, template and target tokens as one of the probes, so that what is measured at the
    target has the same positions. The probes are taken evenly, or again and again where they are fewer. Texts that are
    long enough for every probe are drawn at random; where these are too few, the longest texts are taken, the longest
    for the longest probe, and what a text lacks its source lacks.
    """
    usable = [text for text in texts if _length(text) > 1]
    shapes = evenly(probes, min(count, len(usable)))
    shapes = [shapes[k % len(shapes)] for k in range(min(count, len(usable)))]
    longest = max(map(_length, shapes), default=0)
    whole = [text for text in usable if _length(text) >= longest]
    if len(whole) >= len(shapes):
        chosen = random.Random(f"{seed} control").sample(whole, len(shapes))
    else:
        chosen = sorted(usable, key=_length)[-len(shapes) :]
    found = list(shapes)
    by_length = sorted(range(len(shapes)), key=lambda k: _length(shapes[k]))
    for k, text in zip(by_length, sorted(chosen, key=_length), strict=True):
        found[k] = _divided(text, shapes[k])
    if short := sum(_length(text) < _length(shape) for text, shape in zip(found, shapes, strict=True)):
        return tuple(found), [f"{short} texts of general text are shorter than the probes whose positions they take."]
    return tuple(found), []


def _divided(text: Example, probe: Example) -> Example:
    """The beginning of the text, divided as the probe is; where it is shorter, less of it is source."""
    ids = text.input_ids[: _length(probe)]
    source = max(0, len(probe.source_ids) - (_length(probe) - len(ids)))
    template = source + len(probe.template_ids)
    return replace(text, source_ids=ids[:source], template_ids=ids[source:template], target_ids=ids[template:])


def _length(example: Example) -> int:
    return len(example.input_ids)


def random_sequences(
    examples: Sequence[Example], bos_id: int | None, n_positions: int, seed: int
) -> tuple[tuple[tuple[int, ...], ...], list[str]]:
    """Return (SEQUENCES sequences [bos, r_1..r_T, r_1..r_T], notes), as Olsson et al. 2022 find heads that copy.

    The r are drawn without replacement from the tokens that occur in the examples, but not bos_id, nor the token that
    most targets end with. T is SEQUENCE_LENGTH, or fewer where the context or the tokens are fewer, which is noted;
    below 2 there are no sequences. bos_id None: the token with which more than half of the targets end.
    """
    ends = Counter(e.target_ids[-1] for e in examples if e.target_ids)
    end_id, times = ends.most_common(1)[0] if ends else (None, 0)
    if bos_id is None:
        if 2 * times <= len(examples):
            return (), ["No random sequences: it is not known which token they begin with (bos_id)."]
        bos_id = end_id
    ids = sorted({i for e in examples for part in (e.source_ids, e.target_ids) for i in part} - {bos_id, end_id})
    length = min(SEQUENCE_LENGTH, (n_positions - 1) // 2, len(ids))
    notes = []
    if length < SEQUENCE_LENGTH:
        why = f"there are {len(ids)} different tokens and a context of {n_positions}."
        notes.append(f"Random sequences of {length if length > 1 else 0} tokens instead of {SEQUENCE_LENGTH}: {why}")
    if length < 2:
        return (), notes
    rng = random.Random(f"{seed} sequences")
    drawn = (rng.sample(ids, length) for _ in range(SEQUENCES))
    return tuple((bos_id, *once, *once) for once in drawn), notes
