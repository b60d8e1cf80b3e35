"""Checks whether a model states a value because the article says so: slot accuracy under deletions, and twins.

A deletion takes from an article what a fact stands on. A twin is the same article with one fact's value swapped for
another of as many tokens: a model that uses the value prefers each of the two behind its own article.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from gpt2_interp.data.examples import Example, ExampleBuilder
from gpt2_interp.errors import InputError
from gpt2_interp.evaluation.facts import states, written_values
from gpt2_interp.generation.generate import generate
from gpt2_interp.generation.settings import DecodingSettings
from gpt2_interp.inside.losses import twin_log_odds
from gpt2_interp.model.task_file import trained_task
from gpt2_interp.probes.known_answers import (
    equal_twin,
    plan_of,
    sentence_spans,
    token_counter,
    twin_question,
)
from gpt2_interp.probes.probe_set import TwinPair
from gpt2_interp.statistics.intervals import estimate
from gpt2_interp.synthetic.rows import GOLD_NAMES, SLOTS
from gpt2_interp.synthetic.templates import Plan, expand, parse, render_target
from gpt2_interp.synthetic.wordings import EVENTS
from gpt2_interp.synthetic.world import generator

DEFAULT_MODEL = "model_outputs/quickstart/best_model"
PROMPTS_AT_ONCE = 64
UNKNOWN_LENGTHS = 256, 64  # tokens of source and target, as the quickstart has them
NEW_TOKENS = 16  # more than any value has


def by_slot(values: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Apply `estimate` to values [row, slot], over all slots and for each."""
    return {"all": estimate(values)} | {slot: estimate(values[:, [i]]) for i, slot in enumerate(SLOTS)}


# ---------------------------------------------------------------------------------------------------------------------
# Deletions
# ---------------------------------------------------------------------------------------------------------------------
def delete(article: str, spans: Sequence[Sequence[int]]) -> str:
    """The article without these spans; what is left is joined by single spaces."""
    parts, at = [], 0
    for start, end in sorted(spans):
        parts.append(article[at:start].strip())
        at = max(at, end)
    parts.append(article[at:].strip())
    return " ".join(filter(None, parts))


def deletions(row: Mapping, fact: Mapping) -> dict[str, str]:
    """Return the text that remains of the article for one fact, under each condition."""
    article, sentences, gold = row["article"], sentence_spans(row), tuple(fact["sentence_span"])
    mentions = [(a, b) for a, b in sentences if any(a <= start < b for start, _ in fact["value_spans"])]
    return {
        "whole article": article,
        "gold sentence deleted": delete(article, [gold]),
        "all mentions deleted": delete(article, mentions),
        "gold sentence alone": delete(article, [span for span in sentences if span != gold]),
        "no source (the prior)": "",
    }


def chance(text: str, fact: Mapping, plan: Plan) -> float:
    """Chance that a value of the fact's type, drawn from those that the text mentions, is the fact's; 0 if none is."""
    candidates = [value for value in plan.values.values() if value.type == fact["type"] and states(text, value.forms)]
    return states(text, fact["forms"]) / max(1, len(candidates))


def told_before(row: Mapping, fact: Mapping) -> str:
    """A highlight of the row up to the fact's value, as training sees it: with a space before it, none at its end.

    It is told in a wording of its event in which the value doesn't begin a sentence, where any wording might go on.
    """
    event, plan = plan_of(row)
    rng = generator("asked", row["id"], fact["slot"])
    for wording in EVENTS[event]["highlights"][0]:
        text, spans = render_target(replace(plan, target=expand(rng, parse(wording), GOLD_NAMES)))
        before = text[: spans[fact["slot"]][0]]
        if before and not before.endswith("\n"):
            return " " + before.rstrip(" ")
    raise AssertionError(f"every highlight of {event} has {fact['slot']} at the beginning of a sentence")


def begins_with(text: str, fact: Mapping, facts: Sequence[Mapping]) -> bool:
    """Return whether the first value of a text is the fact's, and stands at its beginning."""
    first = next(iter(written_values(text, facts)), None)
    return first is not None and (first["slot"], first["span"][0], first["kind"]) == (fact["slot"], 0, "right")


def slot_accuracy(model, builder: ExampleBuilder, rows: Sequence[Mapping]) -> dict[str, dict]:
    """Per condition and slot: percent of facts whose value the model says next, and the chance of that.

    It goes on (greedily) behind the words of a highlight up to the value. So each slot is asked for by itself: a
    summary written freely stumbles over the first fact that a deletion took from it, and never comes to the others.
    """
    texts = [[deletions(row, fact) for fact in row["facts"]] for row in rows]
    asked = [[told_before(row, fact) for fact in row["facts"]] for row in rows]
    # Many are equal: a number rarely recurs, so deleting all its mentions deletes its gold sentence only.
    unique = list(
        dict.fromkeys(
            (text, told)
            for several, tolds in zip(texts, asked, strict=True)
            for left, told in zip(several, tolds, strict=True)
            for text in left.values()
        )
    )
    ids = builder.tokenizer([told for _, told in unique], add_special_tokens=False)["input_ids"]
    room = max(map(len, ids)) + NEW_TOKENS
    prompts = [builder.prompt_ids(text, room) + told for (text, _), told in zip(unique, ids, strict=True)]
    decoding = DecodingSettings("greedy", max_new_tokens=NEW_TOKENS).resolve()
    written = generate(model, builder.tokenizer, prompts, decoding, batch_size=PROMPTS_AT_ONCE, description="deletions")
    outputs = {key: sequences[0].text.strip() for key, sequences in zip(unique, written, strict=True)}
    plans = [plan_of(row)[1] for row in rows]
    report = {}
    for condition in texts[0][0]:
        stated, at_random = np.zeros((2, len(rows), len(SLOTS)))
        for i, row in enumerate(rows):
            for j, fact in enumerate(row["facts"]):
                text = texts[i][j][condition]
                stated[i, j] = 100 * begins_with(outputs[text, asked[i][j]], fact, row["facts"])
                at_random[i, j] = 100 * chance(text, fact, plans[i])
        chances = {"all": at_random.mean(), **dict(zip(SLOTS, at_random.mean(axis=0), strict=True))}
        report[condition] = {
            slot: numbers | {"chance": float(chances[slot])} for slot, numbers in by_slot(stated).items()
        }
    return report


# ---------------------------------------------------------------------------------------------------------------------
# Twins
# ---------------------------------------------------------------------------------------------------------------------
def twin_test(model, builder: ExampleBuilder, rows: Sequence[dict], tokenizers: Sequence) -> dict[str, np.ndarray]:
    """Measure each row's twins, [row, slot], NaN without a twin: "effect" in nats, and "right", 1 if both orders are
    right, else 0.

    Both are read at the first target token where the values v and v' differ, behind the articles x and x':
    effect = 1/2 [log p(v|x) - log p(v'|x) + log p(v'|x') - log p(v|x')].
    """
    count = token_counter(tokenizers)
    pairs = {
        (i, j): other
        for i, row in enumerate(tqdm(rows, desc="making twins", leave=False))
        for j, slot in enumerate(SLOTS)
        if (other := equal_twin(row, slot, count))
    }
    examples, _ = as_examples(builder, [*rows, *pairs.values()])
    own, others = examples[: len(rows)], examples[len(rows) :]
    twins = []
    for (i, j), other in zip(pairs, others, strict=True):
        position, *tokens = twin_question(own[i], other)
        prefixes = own[i].input_ids[:position], other.input_ids[:position]
        twins.append(TwinPair(rows[i]["id"], rows[i]["event"], tuple(SLOTS)[j], prefixes, tuple(tokens)))
    effect, right = np.full((2, len(rows), len(SLOTS)), np.nan)
    for place, (kept, swapped) in zip(pairs, twin_log_odds(model, twins).astype(float), strict=True):
        effect[place] = (kept - swapped) / 2
        right[place] = kept > 0 > swapped
    return {"effect": effect, "right": right}


def as_examples(builder: ExampleBuilder, rows: Sequence[Mapping]) -> tuple[list[Example], int]:
    """News rows as training sees them, and how many articles were cut. Raises InputError if a highlight is too long."""
    examples, report = builder.build(
        {"id": row["id"], "source": row["article"], "target": row["highlights"]} for row in rows
    )
    if report.too_long_targets:
        raise InputError(
            f"highlights don't fit the model's context of {builder.n_positions} tokens; take another model."
        )
    return examples, report.cut_sources


# ---------------------------------------------------------------------------------------------------------------------
# All of it
# ---------------------------------------------------------------------------------------------------------------------
def trained_lengths(path: str) -> tuple[int, int]:
    """Return (max_source_length, max_target_length) of the model's training, or UNKNOWN_LENGTHS.

    Raises InputError for a model of another task.
    """
    trained = trained_task(path)
    if trained is None:
        return UNKNOWN_LENGTHS
    if trained["task"] != "summarization":
        raise InputError(f"{path} was trained for {trained['task']}; the audit needs a model that summarizes news.")
    return trained["max_source_length"], trained["max_target_length"]


def check_model(path: str, model, tokenizer, rows: Sequence[dict], more_tokenizers: Sequence = ()) -> dict:
    """Slot accuracy, twins, and how many rows attributions may be scored on; shares in percent, effects in nats."""
    max_source, max_target = trained_lengths(path)
    builder = ExampleBuilder(tokenizer, "summarization", max_source, max_target, model.config.n_positions)
    _, cut = as_examples(builder, rows)
    twins = twin_test(model, builder, rows, [tokenizer, *more_tokenizers])
    effect, right = by_slot(twins["effect"]), by_slot(100 * twins["right"])
    found = np.isfinite(twins["right"])
    pairs = {"all": found, **{slot: found[:, i] for i, slot in enumerate(SLOTS)}}
    passed = twins["right"] == 1  # a pair without a twin shows nothing
    return {
        "path": path,
        "rows": len(rows),
        "sources cut": cut,
        "slot accuracy": slot_accuracy(model, builder, rows),
        "twins": {
            slot: {
                "effect": effect[slot],
                "accuracy": right[slot],
                "pairs": int(one.sum()),
                "no twin": int((~one).sum()),
            }
            for slot, one in pairs.items()
        },
        "kept": {"rows": estimate(100.0 * passed.all(axis=1, keepdims=True)), "pairs": estimate(100.0 * passed)},
    }
