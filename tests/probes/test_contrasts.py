"""Targets behind other sources, against every arrangement there is; random sequences, against what they promise."""

import itertools
from dataclasses import replace

import pytest

from gpt2_interp.data.examples import Example
from gpt2_interp.probes.contrasts import at_probe_positions, behind_other_sources, random_sequences


def example(name: str, n_source: int, n_target: int = 5, cluster: str = "", first: int = 0) -> Example:
    source = tuple(range(1000 + first, 1000 + first + n_source))
    return Example(name, cluster or f"cluster of {name}", source, (1, 2), (*range(3000, 2999 + n_target), 9))


def of_lengths(name: str, n_source: int, n_template: int, n_target: int) -> Example:
    return Example(name, name, *(tuple(range(n)) for n in (n_source, n_template, n_target)))


def parts(e: Example) -> tuple[int, ...]:
    return len(e.source_ids), len(e.template_ids), len(e.target_ids)


def giver_of(other: Example, examples: list[Example]) -> Example:
    (giver,) = (e for e in examples if e.source_ids == other.source_ids)
    return giver


@pytest.mark.parametrize("n", [2, 3, 7, 8, 9, 12, 13, 40])
def test_every_source_goes_to_another_target_of_its_length(n):
    examples = [example(str(k), 10 + 7 * k % 41, 5 + k, cluster=f"event {k % 3}", first=100 * k) for k in range(n)]
    others = behind_other_sources(examples, 1024)
    givers = [giver_of(other, examples) for other in others]
    for e, other, giver in zip(examples, others, givers, strict=True):
        assert (other.id, other.cluster, other.target_ids) == (e.id, e.cluster, e.target_ids)
        assert giver.id != e.id and other.template_ids == giver.template_ids
    assert sorted(giver.id for giver in givers) == sorted(e.id for e in examples)  # each is given once
    ranks = {e.id: rank for rank, e in enumerate(sorted(examples, key=lambda e: len(e.source_ids)))}
    assert all(abs(ranks[e.id] - ranks[giver.id]) < 12 for e, giver in zip(examples, givers, strict=True))
    assert others == behind_other_sources(examples, 1024)


def test_the_best_arrangement_of_a_bin():
    clusters = ["a", "a", "a", "b", "b", "c"]
    examples = [example(str(k), 20 + k * k, cluster=c, first=100 * k) for k, c in enumerate(clusters)]
    givers = [giver_of(other, examples) for other in behind_other_sources(examples, 1024)]

    def cost(arrangement):  # first the clusters, then the lengths
        pairs = list(zip(examples, arrangement, strict=True))
        same = sum(one.cluster == other.cluster for one, other in pairs)
        return same, sum(abs(len(one.source_ids) - len(other.source_ids)) for one, other in pairs)

    allowed = (p for p in itertools.permutations(examples) if all(a is not b for a, b in zip(examples, p, strict=True)))
    assert cost(givers) == min(map(cost, allowed)) and cost(givers)[0] == 0


def test_equal_sources_are_no_others():
    twice = [example("a", 10), example("b", 10), example("c", 12, first=50)]
    others = behind_other_sources(twice, 1024)
    assert all(other is None or other.source_ids != e.source_ids for e, other in zip(twice, others, strict=True))
    assert others[2] is not None and sum(other is None for other in others) == 1
    assert behind_other_sources(twice[:2], 1024) == (None, None)


def test_without_source_and_alone_there_is_none():
    plain = replace(example("p", 0), template_ids=())
    assert behind_other_sources([plain, example("a", 10), plain], 1024) == (None, None, None)
    assert behind_other_sources([plain], 1024) == (None,)
    assert behind_other_sources([], 1024) == ()


def test_source_and_target_fit_the_context():
    short, long = example("short", 20, 60), example("long", 50, 5, first=100)
    behind_long, behind_short = behind_other_sources([short, long], 80)
    assert behind_long.source_ids == long.source_ids[:18] and len(behind_long.input_ids) == 80
    assert behind_short.source_ids == short.source_ids
    assert behind_other_sources([short, long], 62)[0] is None  # not a token of the source fits


EXAMPLES = [example(str(k), 30, first=10 * k) for k in range(20)]  # 30 + 190 different tokens, and targets


def test_sequences_are_random_tokens_of_the_texts_read_twice():
    sequences, notes = random_sequences(EXAMPLES, 1, 1024, seed=5)
    texts = {i for e in EXAMPLES for i in (*e.source_ids, *e.target_ids)}
    assert len(sequences) == len(set(sequences)) == 64 and notes == []
    for sequence in sequences:
        assert len(sequence) == 101 and sequence[0] == 1
        assert sequence[1:51] == sequence[51:] and len(set(sequence[1:51])) == 50
        assert set(sequence[1:]) <= texts - {1, 9}  # neither the first token nor the one that ends texts
    drawn = {i for sequence in sequences for i in sequence}
    assert len(drawn) > 0.95 * len(texts)
    assert random_sequences(EXAMPLES, 1, 1024, seed=5)[0] == sequences != random_sequences(EXAMPLES, 1, 1024, 6)[0]


def test_shorter_sequences_are_noted():
    sequences, notes = random_sequences(EXAMPLES, 1, 24, seed=0)
    assert {len(sequence) for sequence in sequences} == {23} and "11 tokens instead of 50" in notes[0]
    few = [example("a", 6, 3)]  # six of the source and two of the target
    sequences, notes = random_sequences(few, 1, 1024, seed=0)
    assert {len(sequence) for sequence in sequences} == {17} and "there are 8 different tokens" in notes[0]
    sequences, notes = random_sequences([example("a", 1, 1)], 1, 1024, seed=0)
    assert sequences == () and "of 0 tokens" in notes[0]


def test_the_first_token_is_the_one_that_ends_texts_or_not_known():
    assert {sequence[0] for sequence in random_sequences(EXAMPLES, None, 1024, seed=0)[0]} == {9}
    cut = [replace(e, target_ids=e.target_ids[:-1][: k % 4 + 1]) for k, e in enumerate(EXAMPLES)]
    sequences, notes = random_sequences(cut, None, 1024, seed=0)
    assert sequences == () and "bos_id" in notes[0]


def test_general_text_has_the_positions_of_probes():
    probes = [of_lengths(f"probe {k}", 30 + 7 * k % 40, 2, 5 + k % 3) for k in range(20)]
    texts = [of_lengths(f"text {k}", 0, 0, 60 + k) for k in range(50)]
    found, notes = at_probe_positions(texts, probes, 12, seed=0)
    longest = max(len(e.input_ids) for e in probes)
    assert len({e.id for e in found}) == 12 and notes == []
    assert {parts(e) for e in found} <= {parts(e) for e in probes}
    for e in found:
        whole = texts[int(e.id.split()[1])].input_ids
        assert len(whole) >= longest and e.input_ids == whole[: len(e.input_ids)]
    again, _ = at_probe_positions(texts, probes[:3], 12, seed=0)
    assert [parts(e) for e in again] == [parts(e) for e in probes[:3]] * 4


def test_general_text_that_is_too_short_has_less_source():
    probes = [of_lengths(str(k), 40, 2, 5) for k in range(4)]
    texts = [of_lengths(str(n), 0, 0, n) for n in (1, 20, 47, 4, 30)]
    found, notes = at_probe_positions(texts, probes, 4, seed=0)
    assert sorted(parts(e) for e in found) == [(0, 2, 2), (13, 2, 5), (23, 2, 5), (40, 2, 5)]
    assert len(notes) == 1 and notes[0].startswith("3 texts")
    assert at_probe_positions([], probes, 4, seed=0) == ((), [])
