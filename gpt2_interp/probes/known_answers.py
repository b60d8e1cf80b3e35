"""Known answers: facts of the embedded news as positions of tokens, and articles with one fact swapped.

The corpus knows its facts to the character (synthetic/rows.py); a model reads tokens. A character span becomes the
tokens that share at least one character with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from gpt2_interp.data.examples import Example, ExampleBuilder
from gpt2_interp.probes.probe_set import GoldFact, TwinPair
from gpt2_interp.probes.token_kinds import Value
from gpt2_interp.synthetic.rows import SLOTS, news_plan, twin
from gpt2_interp.synthetic.templates import Plan, render

TWIN_ATTEMPTS = 20
Span = tuple[int, int]
Question = tuple[int, int, int]  # position of a token in input_ids, and two tokens that may stand there


def plan_of(row: Mapping) -> tuple[str, Plan]:
    """The event and the plan that a news row was rendered from."""
    _, split, seed, index = row["id"].rsplit("-", 3)
    return news_plan(split, int(seed), int(index))


def sentence_spans(row: Mapping) -> list[Span]:
    """Return the span of each sentence of a news article."""
    return [(start, end) for _, start, end in render(plan_of(row)[1]).sentences]


# ---------------------------------------------------------------------------------------------------------------------
# Facts as positions
# ---------------------------------------------------------------------------------------------------------------------
def has_offsets(tokenizer) -> bool:
    """Return whether the tokenizer can say which characters each of its tokens stands for."""
    return bool(getattr(tokenizer, "is_fast", False))


class _Text:
    """The tokens of a text as an example holds them: the first n_kept of them, behind n_before others.

    lead: characters that the row's text lost at its beginning when it was tokenized; negative where it gained some.
    """

    def __init__(self, tokenizer, text: str, kept: Sequence[int], n_before: int, lead: int):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        self.n_kept, self.n_before, self.lead = min(len(kept), len(encoded["input_ids"])), n_before, lead
        assert encoded["input_ids"][: self.n_kept] == list(kept[: self.n_kept]), "the example is not of this row"
        self.starts, self.ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2).T

    def tokens(self, span: Sequence[int]) -> list[int]:
        """Positions in the example of the tokens that share a character with the span of the row's text; also of those
        that were cut away."""
        start, end = span[0] - self.lead, span[1] - self.lead
        return (np.flatnonzero((self.starts < end) & (self.ends > start)) + self.n_before).tolist()

    def kept(self, positions: Sequence[int]) -> list[int]:
        """Those of the positions that were not cut away."""
        return [position for position in positions if position < self.n_before + self.n_kept]

    def whole(self, span: Sequence[int]) -> list[int]:
        """Return what `tokens` returns, but none where any of them was cut away."""
        positions = self.tokens(span)
        return positions if self.kept(positions) == positions else []


def gold_facts(row: Mapping, example: Example, tokenizer) -> tuple[GoldFact, ...]:
    """The row's facts as positions in the `input_ids` of the example that was made of it.

    row: of `corpora.py`, {"id", "source", "target", "facts"} of synthetic_news. A fact is left out when its value was
    cut away with the end of the source: the mention in the sentence that states it, or the value in the target. Other
    mentions that were cut are just not listed, and of a sentence that was cut the tokens that stayed. `control` is
    empty where the source has no other whole sentence without a gold value. Needs a tokenizer with offsets.
    """
    if not example.source_ids:
        return ()
    source_text = row["source"]
    source = _Text(tokenizer, source_text.strip(), example.source_ids, 0, _leading_space(source_text))
    target = _target(row, example, tokenizer)
    free = _sentences_without_value(row, source)
    facts = []
    for fact in row["facts"]:
        stated = target.whole(fact["highlight_span"])
        mentions = [(span, positions) for span in fact["value_spans"] if (positions := source.whole(span))]
        if not stated or not any(_inside(span, fact["sentence_span"]) for span, _ in mentions):
            continue
        sentence = source.tokens(fact["sentence_span"])
        facts.append(
            GoldFact(
                slot=fact["slot"],
                queries=tuple(position - 1 for position in stated),
                value=tuple(sorted({position for _, positions in mentions for position in positions})),
                sentence=tuple(source.kept(sentence)),
                control=tuple(_nearest(free, sentence, len(example.source_ids))),
            )
        )
    return tuple(facts)


def target_values(row: Mapping, example: Example, tokenizer) -> list[Value]:
    """Return the row's values as they stand in the target of the example that was made of it, also those whose place
    in the source was cut away. Needs a tokenizer with offsets."""
    target = _target(row, example, tokenizer)
    stated = [(fact["slot"], tuple(target.whole(fact["highlight_span"]))) for fact in row["facts"]]
    return [(slot, positions) for slot, positions in stated if positions]


def _target(row: Mapping, example: Example, tokenizer) -> _Text:
    text = row["target"]
    # examples.py puts a space before the target.
    return _Text(tokenizer, f" {text.strip()}", example.target_ids, len(example.prompt_ids), _leading_space(text) - 1)


def _leading_space(text: str) -> int:
    return len(text) - len(text.lstrip())


def _inside(span: Sequence[int], outer: Sequence[int]) -> bool:
    return outer[0] <= span[0] and span[1] <= outer[1]


def _sentences_without_value(row: Mapping, source: _Text) -> list[list[int]]:
    """Positions of each whole sentence that states no value of the row."""
    values = [span for fact in row["facts"] for span in fact["value_spans"]]
    spans = (span for span in sentence_spans(row) if not any(_inside(value, span) for value in values))
    return [positions for span in spans if (positions := source.whole(span))]


def _nearest(sentences: Sequence[list[int]], gold: list[int], n_source: int) -> list[int]:
    """The sentence nearest to `gold` in position (of the middle, as a share of the source) and in length (difference as
    a share of the longer one), the two added; empty if there is none. Sentences are lists of consecutive positions."""

    def far(one: list[int]) -> float:
        apart = abs((one[0] + one[-1]) - (gold[0] + gold[-1])) / 2 / n_source
        return apart + abs(len(one) - len(gold)) / max(len(one), len(gold))

    return min(sentences, key=far, default=[])


# ---------------------------------------------------------------------------------------------------------------------
# Twins
# ---------------------------------------------------------------------------------------------------------------------
def token_counter(tokenizers: Sequence) -> Callable[[str], tuple[int, ...]]:
    """A function that counts the tokens of a text in each tokenizer."""

    @cache
    def count(text: str) -> tuple[int, ...]:
        return tuple(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for tokenizer in tokenizers)

    return count


def equal_twin(row: dict, slot: str, count: Callable[[str], tuple[int, ...]]) -> dict | None:
    """A twin whose article and highlight have as many tokens as the row's; None if none is found.

    The whole texts are counted too, for a tokenizer may join the end of a value with what follows it.
    """
    for seed in range(TWIN_ATTEMPTS):
        try:
            other = twin(row, slot, seed, same_length=lambda old, new: count(old) == count(new))
        except ValueError:
            return None
        pairs = (row["article"], other["article"]), (" " + row["highlights"], " " + other["highlights"])
        if all(count(old) == count(new) for old, new in pairs):
            return other
    return None


def twin_question(one: Example, other: Example) -> Question:
    """Return where the targets of twins first differ, counted from the beginning of the example, and the two tokens
    there."""
    at = next(i for i, (a, b) in enumerate(zip(one.target_ids, other.target_ids, strict=True)) if a != b)
    return len(one.prompt_ids) + at, one.target_ids[at], other.target_ids[at]


def twin_pairs(rows: Sequence[Mapping], builder: ExampleBuilder, count: int = 64, seed: int = 0) -> list[TwinPair]:
    """Make at most `count` twin pairs of news rows, the same for the same rows and seed.

    rows: of `corpora.py`, {"id", "cluster", "source", "target", "facts"}; others are passed over. Row k of their
    shuffled order has slot k (mod 4) swapped; only when all had their turn, they come again with the next slot. Left
    out are pairs without a twin of equal length, and those whose gold sentence was cut away with the source's end.
    """
    rows = [row for row in rows if row.get("facts")]
    random.Random(f"{seed} twins").shuffle(rows)
    n_tokens = token_counter([builder.tokenizer])
    pairs: list[TwinPair] = []
    for turn in range(len(SLOTS)):
        for k, row in enumerate(rows):
            if len(pairs) == count:
                return pairs
            if pair := _twin_pair(row, list(SLOTS)[(k + turn) % len(SLOTS)], builder, n_tokens):
                pairs.append(pair)
    return pairs


def _twin_pair(row: Mapping, slot: str, builder: ExampleBuilder, n_tokens: Callable) -> TwinPair | None:
    fact = next((fact for fact in row["facts"] if fact["slot"] == slot), None)
    article = {"id": row["id"], "article": row["source"], "highlights": row["target"], "facts": row["facts"]}
    other = equal_twin(article, slot, n_tokens) if fact else None
    if other is None:
        return None
    swapped = {"id": other["id"], "source": other["article"], "target": other["highlights"]}
    examples, _ = builder.build([row, swapped])
    (needed,) = n_tokens(row["source"][: fact["sentence_span"][1]])  # a sentence ends where a token does
    if len(examples) < 2 or len(examples[0].source_ids) < needed:
        return None  # the highlight exceeds the context, or the gold sentence was cut
    at, *tokens = twin_question(*examples)
    prefixes = tuple(example.input_ids[:at] for example in examples)
    return TwinPair(other["id"], str(row["cluster"]), slot, prefixes, tuple(tokens))
