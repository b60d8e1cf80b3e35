"""The fixed held-out examples that every snapshot measures."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gpt2_interp.data.examples import Example
from gpt2_interp.probes.contrasts import at_probe_positions, behind_other_sources, random_sequences
from gpt2_interp.probes.probe_set import TEST, VALIDATION, GoldFact, ProbeSet, TwinPair, evenly
from gpt2_interp.probes.token_kinds import Value, token_kinds
from gpt2_interp.snapshots.table import N_PROBES

MAX_SOURCE, MAX_TARGET = 256, 64  # tokens of a probe
PATTERNS = 4  # probes with full attention patterns
TRAINING = CONTROL = TWINS = 64  # wanted of each, beside the held-out examples
CANDIDATES = 2048  # training rows that are looked at: a table of hundreds of thousands stays packed


def choose_probes(
    held_out: Sequence[Example],
    count: int = N_PROBES,
    seed: int = 0,
    max_source_length: int = MAX_SOURCE,
    max_target_length: int = MAX_TARGET,
    pattern_count: int = PATTERNS,
    pattern_entries: int = PATTERNS * 96 * 97 // 2,
    *,
    test: Sequence[Example] = (),
    training: Sequence[Example] = (),
    control: Sequence[Example] = (),
    whole_texts: Mapping[str, Example] | None = None,
    twins: Sequence[TwinPair] = (),
    gold: Callable[[Example], tuple[GoldFact, ...]] | None = None,
    values: Callable[[Example], Sequence[Value]] | None = None,
    n_positions: int = 1024,
    bos_id: int | None = None,
) -> ProbeSet:
    """Choose the probes, the same for the same arguments; `held_out` alone is enough.

    First from examples within the two lengths, stratified by length. Where these are too few, longer sources are cut
    at their end, and then longer targets (never cut) join, the shortest first, while the tokens of `count` probes of
    full length last. Raises ValueError when nothing is held out.

    pattern_count, pattern_entries: how many pattern probes there are at most, and how many entries their patterns may
    have in each head, all together; see `_pattern_probes`.

    test: unscored examples of the test split, from which half of the probes come in the same way. training: what is
    trained on; TRAINING of them are chosen in the same way. control: general text, of which CONTROL are divided as
    the few probes are; whole_texts: the texts alone by their ids, where those of `control` go on with others, as
    `build.text_examples` has them. twins: of TWINS at most. gold: the known answers of a probe as it was cut.
    values: all values that its target states, which makes kinds of its tokens; by default those of its known
    answers. n_positions: the model's context. bos_id: what the random sequences begin with; by default the token
    that most targets end with, as GPT-2 has one for both.
    """
    notes: list[str] = []
    lengths = max_source_length, max_target_length
    rng = random.Random(seed)
    tested = _within(test, count // 2, *lengths, random.Random(f"{seed} test"), "probes of the test split", notes)
    familiar = _within(held_out, count - len(tested), *lengths, rng, "probes", notes)
    if len(tested) + len(familiar) < count:
        notes.append(
            f"{len(tested) + len(familiar)} probes instead of {count}: {len(held_out)} examples are held out"
            + ("." if len(familiar) == len(held_out) else ", and longer ones would cost too many tokens.")
        )
    pairs = [(e, VALIDATION) for e in familiar] + [(e, TEST) for e in tested]
    if tested:
        pairs.sort(key=lambda pair: _length(pair[0]))
    chosen = [e for e, _ in pairs]
    patterns, too_many = _pattern_probes(held_out, pattern_count, pattern_entries, gold, values, notes)
    candidates = evenly(training, CANDIDATES)
    trained = _within(candidates, TRAINING, *lengths, random.Random(f"{seed} training"), "training rows", notes)
    sequences, why = random_sequences(evenly(training or held_out, CANDIDATES), bos_id, n_positions, seed)
    others = behind_other_sources(chosen, n_positions)
    if alone := sum(other is None and bool(e.source_ids) for e, other in zip(chosen, others, strict=True)):
        notes.append(f"{alone} of the probes have no other source to be compared with.")
    facts = tuple(gold(e) for e in chosen) if gold else ()
    stated = [values(e) for e in chosen] if values else [_stated(answers) for answers in facts] or [()] * len(chosen)
    labels, kinds = token_kinds(chosen, stated, candidates)
    probes = ProbeSet(
        tuple(chosen),
        tuple(patterns),
        training=tuple(trained),
        twins=tuple(twins[:TWINS]),
        sequences=sequences,
        others=others if any(e.source_ids for e in chosen) else (),
        gold=facts if any(facts) else (),
        token_kinds=labels,
        kinds=kinds,
        splits=tuple(split for _, split in pairs),
        pattern_gold=tuple(gold(e) for e in patterns) if gold else (),
        patterns_at_ends=too_many,
    )
    general, shorter = at_probe_positions(control, [probes.examples[i] for i in probes.few], CONTROL, seed)
    notes += [*shorter, *_shortages(trained, general, twins, tested, count // 2), *why]
    whole = whole_texts or {e.id: e for e in control}
    texts = tuple(_as_text(whole[e.id]) for e in general)
    return replace(probes, control=general, general=texts, notes=tuple(notes))


def _as_text(example: Example) -> Example:
    """The example's tokens, at most MAX_SOURCE, all of them target."""
    return replace(example, source_ids=(), template_ids=(), target_ids=example.input_ids[:MAX_SOURCE])


def _stated(answers: Sequence[GoldFact]) -> list[Value]:
    """Return the values of the answers as they stand in the target."""
    return [(answer.slot, tuple(query + 1 for query in answer.queries)) for answer in answers]


def _shortages(trained: Sequence, general: Sequence, twins: Sequence, tested: Sequence, n_test: int) -> list[str]:
    """Return notes on what there is less of than wanted, besides the held-out examples."""
    found = []
    for rows, wanted, what, otherwise in (
        (trained, TRAINING, "training rows", "what the model knows by heart can't be told from what it learned."),
        (general, CONTROL, "general text", "a change on the task can't be told from a change on any text."),
        (tested, n_test, "probes of a test split", "whether what is found holds on unseen kinds of rows is not known."),
        (twins, TWINS, "twins", "they need rows whose facts are known, as synthetic_news has them."),
    ):
        if not rows:
            found.append(f"No {what}: {otherwise}")
        elif len(rows) < wanted:
            found.append(f"{what.capitalize()}: {len(rows)} instead of {wanted}.")
    return found


def affordable_entries(n_layer: int, n_head: int, budget: float = 3e6) -> int:
    """Return how many entries the patterns of a snapshot may have in each head, so that all heads' take `budget` bytes.

    A probe of n tokens has n (n + 1) / 2 entries of 2 bytes.
    """
    return int(budget // (2 * n_layer * n_head))


def _within(
    examples: Sequence[Example],
    count: int,
    max_source_length: int,
    max_target_length: int,
    rng: random.Random,
    what: str,
    notes: list[str],
) -> list[Example]:
    """The examples that `choose_probes` chooses; `what` they are in the notes."""
    short_target = [e for e in examples if len(e.target_ids) <= max_target_length]
    fits = [e for e in short_target if len(e.source_ids) <= max_source_length]
    chosen = stratified(fits, count, rng)
    long_source = [e for e in short_target if len(e.source_ids) > max_source_length]
    cut = [_cut_source(e, max_source_length) for e in stratified(long_source, count - len(chosen), rng)]
    chosen += cut
    long_target = sorted((e for e in examples if len(e.target_ids) > max_target_length), key=_length)
    budget = count * (max_source_length + max_target_length) - sum(map(_length, chosen))
    added = []
    for example in (_cut_source(e, max_source_length) for e in long_target):
        budget -= _length(example)
        if len(chosen) + len(added) == count or (budget < 0 and (chosen or added)):
            break
        added.append(example)
    chosen += added

    if cut:
        notes.append(f"The source of {len(cut)} of the {what} was cut to {max_source_length} tokens.")
    if added:
        notes.append(f"The target of {len(added)} of the {what} is longer than {max_target_length} tokens, kept whole.")
    return chosen


def stratified(examples: Sequence[Example], count: int, rng: random.Random) -> list[Example]:
    """Choose at most `count` examples: sorted by length and divided into `count` equal strata, one drawn from each."""
    ordered = sorted(examples, key=_length)
    if count >= len(ordered):
        return ordered
    strata = [(k * len(ordered) // count, (k + 1) * len(ordered) // count) for k in range(count)]
    return [ordered[rng.randrange(start, end)] for start, end in strata]


def _pattern_probes(
    held_out: Sequence[Example],
    count: int,
    entries: int,
    gold: Callable[[Example], tuple[GoldFact, ...]] | None,
    values: Callable[[Example], Sequence[Value]] | None,
    notes: list[str],
) -> tuple[list[Example], bool]:
    """Return (probes for full patterns, whether they take too much for every snapshot).

    The shortest examples are chosen, those whose known facts are all in view if there are any: as many up to `count` as
    have at most `entries`, or one. A source is never cut, for what was cut away could not be attended to. A plain text
    is cut at its end, where nothing is lost: what stays has the attention that it has in the whole.
    """
    plain = not any(e.source_ids for e in held_out)
    if plain:
        length = int((2 * entries / max(1, count)) ** 0.5)
        held_out = [replace(e, target_ids=e.target_ids[:length]) for e in held_out]
    ordered = sorted(held_out, key=_length)
    whole = [e for e in ordered if len(gold(e)) == len({slot for slot, _ in values(e)})] if gold and values else ordered
    if not whole:
        notes.append("No pattern probe has all its known facts in view: the sources are cut before them.")
    chosen: list[Example] = []
    for example in whole or ordered:
        if len(chosen) == count or (chosen and (len(chosen) + 1) * _entries(example) > entries):
            break
        chosen.append(example)
    too_many = bool(chosen) and len(chosen) * _entries(chosen[-1]) > entries
    if too_many:
        length = _length(chosen[0])
        notes.append(f"Full patterns are taken at the first and the last snapshot only: one probe has {length} tokens.")
    elif len(chosen) < min(count, len(whole or ordered)):
        notes.append(f"{len(chosen)} pattern probes instead of {count}: whole ones take no more room.")
    return chosen, too_many


def _entries(example: Example) -> int:
    return _length(example) * (_length(example) + 1) // 2


def _cut_source(example: Example, length: int) -> Example:
    return replace(example, source_ids=example.source_ids[:length])


def _length(example: Example) -> int:
    return len(example.source_ids) + len(example.template_ids) + len(example.target_ids)
