"""The probe set of a run: everything that choose_probes wants, made from the run's corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from transformers import GPT2Config

from gpt2_interp.data.corpora import Corpus
from gpt2_interp.data.examples import Example, ExampleBuilder
from gpt2_interp.data.rows import Row
from gpt2_interp.probes.choose import MAX_SOURCE, affordable_entries, choose_probes
from gpt2_interp.probes.known_answers import gold_facts, has_offsets, target_values, twin_pairs
from gpt2_interp.probes.probe_set import GoldFact, ProbeSet
from gpt2_interp.probes.token_kinds import Value


def build_probes(
    corpus: Corpus,
    examples: Mapping[str, Sequence[Example]],
    builder: ExampleBuilder,
    config: GPT2Config,
    count: int,
    seed: int,
) -> ProbeSet:
    """The probes of a run: `count` of the held-out ones, with training rows, general text, twins and known answers as
    far as the corpus has them, half of them of the test split. examples: what `builder` made of corpus.train ("train"),
    corpus.probes ("probes") and corpus.test_probes ("test_probes", if there are any).
    """
    tokenizer = builder.tokenizer
    test = examples.get("test_probes", ())
    rows = {str(row["id"]): row for row in (*corpus.probes, *corpus.test_probes) if row.get("facts")}
    answers_known = bool(rows) and has_offsets(tokenizer)

    def gold(example: Example) -> tuple[GoldFact, ...]:
        return gold_facts(rows[example.id], example, tokenizer) if example.id in rows else ()

    def values(example: Example) -> Sequence[Value]:
        return target_values(rows[example.id], example, tokenizer) if example.id in rows else ()

    longest = max(
        min(len(e.source_ids), MAX_SOURCE) + _length(e) - len(e.source_ids) for e in (*examples["probes"], *test)
    )
    control, alone = text_examples(corpus.control, tokenizer, longest)
    probes = choose_probes(
        examples["probes"],
        count,
        seed,
        test=test,
        pattern_entries=affordable_entries(config.n_layer, config.n_head),
        training=examples["train"],
        control=control,
        whole_texts=alone,
        twins=twin_pairs(corpus.probes, builder, seed=seed),
        gold=gold if answers_known else None,
        values=values if answers_known else None,
        n_positions=config.n_positions,
        bos_id=tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id,
    )
    return replace(probes, notes=(*probes.notes, *_notes_on_answers(probes, rows, answers_known)))


def text_examples(rows: Sequence[Row], tokenizer, length: int) -> tuple[Sequence[Example], dict[str, Example]]:
    """Return (texts that are long enough, each text alone by its id): examples of target only, cut at `length` tokens.

    The end-of-text token stands where a text was not cut. In the first, a text that is shorter goes on with the next
    one, of its own cluster if that has several texts, and has the id of the first.
    """
    builder = ExampleBuilder(tokenizer, "creative_writing", length, length, length, length, first_block_only=True)
    alone = {example.id: example for example in builder.build(rows)[0]}
    of_cluster = Counter(row["cluster"] for row in rows)
    joined: list[Row] = []
    waiting: dict[str, list[Row]] = {}
    for row in rows:
        group = waiting.setdefault(row["cluster"] if of_cluster[row["cluster"]] > 1 else "", [])
        group.append(row)
        if sum(_length(alone[str(one["id"])]) for one in group) >= length:
            joined.append(_as_one(group))
            group.clear()
    joined += [_as_one(group) for group in waiting.values() if group]
    return builder.build(joined)[0], alone


def _length(example: Example) -> int:
    return len(example.input_ids)


def _as_one(rows: Sequence[Row]) -> Row:
    """The rows' texts one after the other, with id and cluster of the first."""
    return {**rows[0], "target": " ".join(row["target"].strip() for row in rows)}


def _notes_on_answers(probes: ProbeSet, rows: Mapping[str, Row], answers_known: bool) -> list[str]:
    if rows and not answers_known:
        return ["No known answers: the tokenizer does not say which characters its tokens stand for."]
    stated = sum(len(rows[example.id]["facts"]) for example in probes.examples if example.id in rows)
    missing = stated - sum(map(len, probes.gold))
    return [f"{missing} of the {stated} known answers are left out: they were cut off with their source."] * (
        missing > 0
    )
