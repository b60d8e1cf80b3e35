"""The fixed examples that every snapshot measures, and where their answers stand."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gpt2_interp.data.examples import Example
from gpt2_interp.probes.token_kinds import ALL

VALIDATION, TEST = "validation", "test"  # splits of the corpus that a held-out example may come from
FEW = 64  # examples for backward passes, lens, ablation and the band


KL_EXAMPLES, KL_ROWS = 32, 16  # of attn_kl0
OFTEN = 16  # twins, and sequences, of a measure that is asked dozens of times


@dataclass(frozen=True)
class GoldFact:
    """The answer to one slot of a probe, as positions in the example's `input_ids`.

    queries: positions that predict a token of the value in the target. value, sentence: tokens of the value (each
    mention) and of its sentence in the source. control: tokens of the other sentence nearest in position and length,
    one that states no value of the example; empty where there is none.
    """

    slot: str
    queries: tuple[int, ...]
    value: tuple[int, ...]
    sentence: tuple[int, ...]
    control: tuple[int, ...]


@dataclass(frozen=True)
class TwinPair:
    """Two articles x and x' that differ in one fact. prefixes: the ids of (x, x') and their equal beginning of the
    target, up to where the values differ; tokens: (v, v') there, v being what x states."""

    id: str
    cluster: str
    slot: str
    prefixes: tuple[tuple[int, ...], tuple[int, ...]]
    tokens: tuple[int, int]


@dataclass(frozen=True)
class ProbeSet:
    """Everything that a snapshot measures; `notes` say what there is less of than wanted.

    examples: held-out, for all per-probe measures. pattern_examples: a few short ones, for full attention patterns.
    training: rows that are trained on. control: general text, divided as probes are. general: its texts whole and
    alone, of which the loss is measured: a text in `control` may go on with another one, which surprises the model;
    without them what `control` has. twins: articles with one fact swapped. sequences: random tokens read twice,
    [BOS, r_1..r_T, r_1..r_T], all of one length. others[i]: the target of examples[i] behind another probe's
    source, None where there is no other; empty for a task without sources. gold[i]: the known answers of
    examples[i]; empty where none are known. token_kinds: names of the kinds of token, "all" first; kinds[i]:
    [n_target, kind] bool, which of them each target token of examples[i] is of. By default there is "all" alone.
    splits[i]: VALIDATION or TEST, the split of the corpus that examples[i] comes from; empty where all are of
    VALIDATION. pattern_gold[i]: the known answers of pattern_examples[i]; empty where none are known.
    patterns_at_ends: whether patterns are taken at the first and the last snapshot only.
    """

    examples: tuple[Example, ...]
    pattern_examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    training: tuple[Example, ...] = ()
    control: tuple[Example, ...] = ()
    general: tuple[Example, ...] = ()
    twins: tuple[TwinPair, ...] = ()
    sequences: tuple[tuple[int, ...], ...] = ()
    others: tuple[Example | None, ...] = ()
    gold: tuple[tuple[GoldFact, ...], ...] = ()
    token_kinds: tuple[str, ...] = (ALL,)
    kinds: tuple[np.ndarray, ...] = field(default=(), compare=False)  # arrays can't be compared in a tuple
    splits: tuple[str, ...] = ()
    pattern_gold: tuple[tuple[GoldFact, ...], ...] = ()
    patterns_at_ends: bool = False

    def __post_init__(self) -> None:
        if not self.examples:
            raise ValueError("a probe set needs at least one held-out example")
        if self.token_kinds == (ALL,) and not self.kinds:
            every = tuple(np.ones((len(e.target_ids), 1), dtype=bool) for e in self.examples)
            object.__setattr__(self, "kinds", every)  # the class is frozen
        if not self.general:
            alone = (replace(e, source_ids=(), template_ids=(), target_ids=e.input_ids) for e in self.control)
            object.__setattr__(self, "general", tuple(alone))
        assert len(self.general) == len(self.control)
        sizes = [(len(e.target_ids), len(self.token_kinds)) for e in self.examples]
        assert [members.shape for members in self.kinds] == sizes and self.token_kinds[0] == ALL
        assert all(len(of_each) in (0, len(self.examples)) for of_each in (self.others, self.gold, self.splits))

    @property
    def split_of(self) -> tuple[str, ...]:
        """The split of each of `examples`."""
        return self.splits or (VALIDATION,) * len(self.examples)

    @cached_property
    def halves(self) -> tuple[int, ...]:
        """0 or 1 for each of `examples`: the half that it belongs to. Whole clusters, the largest first, go to the half
        that is smaller; where the examples are of two splits, to the half that keeps both divided evenly."""
        clusters: dict[str, Counter[str]] = {}
        for example, split in zip(self.examples, self.split_of, strict=True):
            clusters.setdefault(example.cluster, Counter())[split] += 1
        half_of: dict[str, int] = {}
        more: Counter[str] = Counter()  # of each split, how many more the first half has
        for cluster, sizes in sorted(clusters.items(), key=lambda item: (-item[1].total(), item[0])):
            half_of[cluster] = int(sum(size * more[split] for split, size in sizes.items()) > 0)
            for split, size in sizes.items():
                more[split] += size if half_of[cluster] == 0 else -size
        return tuple(half_of[e.cluster] for e in self.examples)

    @cached_property
    def few(self) -> tuple[int, ...]:
        """Indices of the examples for what is expensive (backward passes, lens, ablation, band): as many of each
        half, and of each split in it, as there are, FEW at most, spread evenly over the probes' lengths."""
        parts = [
            [i for i, own in enumerate(zip(self.halves, self.split_of, strict=True)) if own == (half, split)]
            for half in (0, 1)
            for split in sorted(set(self.split_of))
        ]
        return tuple(sorted(i for part in parts for i in evenly(part, FEW // len(parts))))

    def restricted(self) -> ProbeSet:
        """The examples of attn_kl0 alone, with all that belongs to them, and OFTEN twins and sequences.

        They are what a measure is asked for when it is asked dozens of times. Training rows, general text and patterns
        are left out.
        """
        kept = self.kl
        alone = ProbeSet(
            tuple(self.examples[i] for i in kept),
            pattern_examples=(),
            twins=tuple(evenly(self.twins, OFTEN)),
            sequences=tuple(evenly(self.sequences, OFTEN)),
            others=tuple(self.others[i] for i in kept) if self.others else (),
            gold=tuple(self.gold[i] for i in kept) if self.gold else (),
            token_kinds=self.token_kinds,
            kinds=tuple(self.kinds[i] for i in kept),
            splits=tuple(self.splits[i] for i in kept) if self.splits else (),
        )
        alone.__dict__["halves"] = tuple(self.halves[i] for i in kept)  # as they were divided among all examples
        assert alone.few == alone.kl == tuple(range(len(kept)))  # rows of attn_logprob_0, in their order
        return alone

    @property
    def mean_length(self) -> float:
        """Tokens of a held-out example, on average."""
        return sum(len(e.input_ids) for e in self.examples) / len(self.examples)

    @property
    def kl(self) -> tuple[int, ...]:
        """Indices of the examples of attn_kl0."""
        parts = [[i for i in self.few if self.split_of[i] == split] for split in sorted(set(self.split_of))]
        return tuple(sorted(i for part in parts for i in evenly(part, KL_EXAMPLES // len(parts))))

    @staticmethod
    def kl_rows(example: Example) -> tuple[int, ...]:
        """KL_ROWS positions of region Q at most, spread evenly: the fixed query rows of attn_kl0."""
        n, n_prompt = len(example.input_ids), len(example.prompt_ids)
        return tuple(evenly(range(max(n_prompt - 1, 0), n - 1), KL_ROWS))

    def describe(self, tokenizer=None) -> dict[str, Any]:
        """Return the content of probe_set.json: for each axis of probes its entries, in order, with all that it takes
        to compute every measure again from a checkpoint. docs/read_a_run.md explains the fields.

        Without a tokenizer the tokens of the pattern probes are their ids.
        """
        examples = [
            {"id": e.id, "cluster": e.cluster, "half": half, "split": split, **_parts(e)}
            for e, half, split in zip(self.examples, self.halves, self.split_of, strict=True)
        ]
        chosen = [{key: entry[key] for key in entry if key != "token_ids"} for entry in examples]
        return {
            "example": examples,
            "few_example": [{**chosen[i], "example": i} for i in self.few],
            "kl_example": [{**chosen[i], "example": i, "rows": list(self.kl_rows(self.examples[i]))} for i in self.kl],
            "training_example": [{"id": e.id, "cluster": e.cluster, **_parts(e)} for e in self.training],
            "control_example": [
                {"id": e.id, "cluster": e.cluster, **_parts(e), "text_ids": list(text.input_ids)}
                for e, text in zip(self.control, self.general, strict=True)
            ],
            "sequence": [
                {"id": f"sequence {i}", "cluster": f"sequence {i}", "token_ids": list(ids)}
                for i, ids in enumerate(self.sequences)
            ],
            "pair": [
                {
                    "id": p.id,
                    "cluster": p.cluster,
                    "slot": p.slot,
                    "prefixes": [list(ids) for ids in p.prefixes],
                    "answers": list(p.tokens),
                }
                for p in self.twins
            ],
            "pattern": [
                {
                    "id": e.id,
                    "tokens": [readable_token(i, tokenizer) for i in e.input_ids],
                    **_parts(e),
                    "gold": _answers(facts),
                }
                for e, facts in itertools.zip_longest(self.pattern_examples, self.pattern_gold, fillvalue=())
            ],
            "other_source": [None if e is None else _parts(e) for e in self.others],
            "gold": [_answers(facts) for facts in self.gold],
            "token_kinds": [self._kinds_of(i) for i in range(len(self.examples))],
            "notes": list(self.notes),
        }

    def _kinds_of(self, index: int) -> dict[str, list[int]]:
        """Return for each kind the positions in `input_ids` of the example's tokens that are of it."""
        n_prompt = len(self.examples[index].prompt_ids)
        columns = zip(self.token_kinds, self.kinds[index].T, strict=True)
        return {kind: (n_prompt + np.flatnonzero(members)).tolist() for kind, members in columns}

    def tokens(self, tokenizer=None) -> dict[int, str]:
        """The readable text of every token that occurs in the probes."""
        texts = (*self.training, *self.control, *self.general)
        rows = [e.input_ids for e in (*self.examples, *self.pattern_examples, *texts)]
        rows += [e.input_ids for e in self.others if e is not None]
        rows += [*self.sequences, *(ids for p in self.twins for ids in (*p.prefixes, p.tokens))]
        ids = sorted({token for row in rows for token in row})
        return {token: readable_token(token, tokenizer) for token in ids}


def same_probes(stored: Any, described: Any) -> bool:
    """Return whether probe_set.json, as it was stored, describes these probes.

    What `described` has beside it is no difference: earlier versions stored fewer fields of the same probes.
    """
    if isinstance(stored, dict) and isinstance(described, dict):
        return all(key in described and same_probes(stored[key], described[key]) for key in stored)
    if isinstance(stored, list) and isinstance(described, list):
        pairs = zip(stored, described, strict=False)
        return len(stored) == len(described) and all(same_probes(one, other) for one, other in pairs)
    return stored == described


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Choose at most `count` of the items, spread evenly over their order."""
    n = len(items)
    return list(items) if n <= count else [items[(2 * k + 1) * n // (2 * count)] for k in range(count)]


def _parts(example: Example) -> dict[str, Any]:
    """The token ids, and how many of them are source, then template, then target."""
    return {
        "n_source": len(example.source_ids),
        "n_template": len(example.template_ids),
        "n_target": len(example.target_ids),
        "token_ids": list(example.input_ids),
    }


def _answers(facts: Sequence[GoldFact]) -> list[dict[str, Any]]:
    return [{key: _plain(value) for key, value in vars(fact).items()} for fact in facts]


def _plain(value: str | tuple[int, ...]) -> str | list[int]:
    """The value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def readable_token(token_id: int, tokenizer) -> str:
    if tokenizer is None:
        return str(token_id)
    text = tokenizer.decode([token_id])
    # Half a character decodes to the replacement mark; the vocabulary's own spelling says more.
    return tokenizer.convert_ids_to_tokens(token_id) if "\ufffd" in text else text
