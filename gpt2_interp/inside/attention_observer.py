"""Attention measures gathered block by block while a batch of probes passes through the model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.measures.attention import (
    QUERY_MEASURES,
    STRIPES,
    attention_between,
    kl_bits,
    moved_norms,
    norm_weighted_share,
    query_measures,
    region_mean,
    source_chance,
    source_shares,
    stripe_sums,
)
from gpt2_interp.model.anatomy import lora_factors, stored_weight
from gpt2_interp.probes.probe_set import KL_ROWS, GoldFact
from gpt2_interp.probes.regions import region_spans, source_masks, span_masks

SOURCE_SHARES = ("attn_source", "attn_source_ns")
MOVED = ("attn_source_normw", "head_write")
TARGET_MEASURES = (*SOURCE_SHARES, *MOVED)  # of region Q alone
LIFTS = ("attn_gold_lift", "attn_gold_sentence_lift")
AGAINST_BASE = ("attn_kl0", "attn_logprob")
OBSERVED = (*QUERY_MEASURES, *TARGET_MEASURES, "attn_source_chance", *LIFTS, *AGAINST_BASE)


def output_grams(gpt2: GPT2LMHeadModel) -> Tensor:
    """Return W_O W_O' of each head, [layer, head, d_head, d_head] float32 on the model's device; W_O [d_head, d_model]
    are the rows of c_proj's weight that the head's output is multiplied by, adapters included. Raises ValueError for
    adapters other than LoRA."""
    grams = []
    with torch.autocast(gpt2.device.type, enabled=False):
        for layer, block in enumerate(gpt2.transformer.h):
            c_proj = block.attn.c_proj
            weight = stored_weight(c_proj).detach().float()  # [d_model, d_model], Conv1D: [in, out]
            if not getattr(c_proj, "merged", False):  # else the stored weight has the adapters in it
                for a, b, scaling in lora_factors(f"h.{layer}.attn.c_proj", c_proj):
                    weight = weight + scaling * (b.detach().float() @ a.detach().float()).T
            heads = weight.view(gpt2.config.n_head, -1, gpt2.config.n_embd)
            grams.append(heads @ heads.transpose(1, 2))
    return torch.stack(grams)


class AttentionObserver:
    """The measures `wanted` (names of OBSERVED) of one right-padded batch of examples, during one forward pass.

    gold: the known answers of each example; without any, the lifts are NaN. kl_rows: KL_ROWS query positions of each
    example at most, none where attn_kl0 isn't wanted. logprob_0: what `attn_logprob` was for the base, [batch, layer,
    head, kl_row, kl_key], with the keys that these rows see at least; without it there is no attn_kl0. grams: of
    `output_grams`, to share between the batches of one model. targets_only: QUERY_MEASURES are taken in region Q alone,
    and queries before `first_q` need not be shown. The measures are float32 under autocast too.

    For each layer, `see_residual` comes before the blocks of queries, and these in order. Kept are only numbers per
    query, never a map.
    """

    def __init__(
        self,
        gpt2: GPT2LMHeadModel,
        examples: Sequence[Example],
        *,
        wanted: Collection[str],
        gold: Sequence[Sequence[GoldFact]] = (),
        kl_rows: Sequence[Sequence[int]] = (),
        logprob_0: Tensor | None = None,
        grams: Tensor | None = None,
        targets_only: bool = False,
    ):
        assert set(wanted) <= set(OBSERVED), f"not observed: {set(wanted) - set(OBSERVED)}"
        assert len(gold) in (0, len(examples)) and len(kl_rows) in (0, len(examples))
        self.wanted = set(wanted)
        self.device, self.n_layer, self.n_head = gpt2.device, gpt2.config.n_layer, gpt2.config.n_head
        self.n_example, self.length = len(examples), max(len(e.input_ids) for e in examples)
        spans = [region_spans(example) for example in examples]
        self.regions = span_masks(spans, self.length).to(self.device)  # [batch, region, seq]
        self.source = source_masks(examples, self.length).to(self.device)  # [batch, seq]
        targets = [span for span, _ in spans if span[1] > span[0]]
        # From the first query of region Q in any example to the last: the others need no look at the source.
        self.first_q = min((start for start, _ in targets), default=0)
        self.stop_q = max((stop for _, stop in targets), default=0)

        each_query = [name for name in QUERY_MEASURES if name in self.wanted]
        self._of_all = [] if targets_only else each_query
        self._each_target = each_query if targets_only else []
        self._of_target = [*self._each_target, *(name for name in TARGET_MEASURES if name in self.wanted)]
        self._all_blocks: list[list[Tensor]] = [[] for _ in range(self.n_layer)]  # each [measure, batch, head, query]
        self._target_blocks: list[list[Tensor]] = [[] for _ in range(self.n_layer)]
        if not self.wanted.isdisjoint(MOVED):
            self._grams = output_grams(gpt2) if grams is None else grams
        self._norms: tuple[int, Tensor] | None = None  # (layer, ||f(x_j)||: [batch, head, seq])
        self._residual: Tensor | None = None  # ||resid_pre||: [batch, seq] of the current layer
        self._facts = None
        if any(gold) and not self.wanted.isdisjoint(LIFTS):
            self._facts = tuple(t.to(self.device) for t in gold_weights(examples, gold, self.length))
            self._lift_sums = torch.zeros(4, self.n_example, self.n_layer, self.n_head, device=self.device)
        self._start_kl(kl_rows, logprob_0)

    def see_residual(self, layer: int, x: Tensor) -> None:
        """x: [batch, seq, d_model], the residual stream that `layer` reads."""
        if "head_write" in self.wanted:
            self._residual = torch.linalg.vector_norm(x.float(), dim=-1)

    def __call__(self, layer: int, first: int, scores: Tensor, a: Tensor, value: Tensor, output: Tensor) -> None:
        """Measure the queries first, first + 1, ... of `layer`.

        scores, a: [batch, head, query, key] float32 before and after softmax, keys 0 to the last query; value: [batch,
        head, seq, d_head] of all keys; output: [batch, head, query, d_head] = a @ value.
        """
        stop = first + a.shape[2]
        if self._of_all:
            self._all_blocks[layer].append(torch.stack(list(query_measures(a, first, self._of_all).values())))
        start_q, stop_q = max(first, self.first_q), min(stop, self.stop_q)
        if start_q >= stop_q:
            return
        rows = slice(start_q - first, stop_q - first)
        in_q = a[:, :, rows]
        if self._of_target:
            values = query_measures(in_q, start_q, self._each_target) if self._each_target else {}
            if not self.wanted.isdisjoint(SOURCE_SHARES):
                values |= source_shares(in_q, self.source)
            if "attn_source_normw" in self.wanted:
                values["attn_source_normw"] = norm_weighted_share(in_q, self._value_norms(layer, value), self.source)
            if "head_write" in self.wanted:
                written = moved_norms(output[:, :, rows], self._grams[layer])
                values["head_write"] = written / self._residual[:, None, start_q:stop_q]
            self._target_blocks[layer].append(torch.stack([values[name] for name in self._of_target]))
        if self._facts is not None:
            for k, (queries, keys) in enumerate(zip(*self._facts, strict=True)):
                sums = attention_between(in_q, queries[..., start_q:stop_q], keys[..., : a.shape[-1]])
                self._lift_sums[k, :, layer] += sums
        self._see_kl_rows(layer, first, scores)

    def result(self) -> dict[str, Tensor]:
        """The wanted measures by name, float32 on the model's device, NaN where undefined.

        QUERY_MEASURES: [batch, region, layer, head], without `region` where targets_only; attn_source_chance: [batch];
        attn_logprob: [batch, layer, head, kl_row, kl_key], natural logarithms, -inf for keys that a row does not see,
        NaN for rows that an example does not have; the others: [batch, layer, head].
        """
        with torch.autocast(self.device.type, enabled=False):
            result = {**self._means_of_all(), **self._means_of_target()}
        if "attn_source_chance" in self.wanted:
            result["attn_source_chance"] = source_chance(self.source, self.regions[:, 0])
        for k, name in enumerate(LIFTS):
            if name in self.wanted:
                known = self._facts is not None
                result[name] = self._lift_sums[2 * k] / self._lift_sums[2 * k + 1] if known else self._undefined()
        if self._kl is not None:
            result["attn_kl0"] = self._kl.nanmean(dim=-1)
        if self._logprob is not None:
            result["attn_logprob"] = self._logprob
        return result

    def _means_of_all(self) -> dict[str, Tensor]:
        if not self._of_all:
            return {}
        means = region_mean(self._joined(self._all_blocks), self.regions)  # [measure, layer, batch, region, head]
        return dict(zip(self._of_all, means.permute(0, 2, 3, 1, 4), strict=True))

    def _means_of_target(self) -> dict[str, Tensor]:
        if self.first_q >= self.stop_q:
            return {name: self._undefined() for name in self._of_target}
        if not self._of_target:
            return {}
        queries = self.regions[:, :1, self.first_q : self.stop_q]
        means = region_mean(self._joined(self._target_blocks), queries)[..., 0, :]  # [measure, layer, batch, head]
        return dict(zip(self._of_target, means.transpose(1, 2), strict=True))

    def _joined(self, blocks: list[list[Tensor]]) -> Tensor:
        """Return [measure, layer, batch, head, query]."""
        return torch.stack([torch.cat(layer, dim=-1) for layer in blocks], dim=1)

    def _undefined(self, *more: int) -> Tensor:
        return torch.full((self.n_example, self.n_layer, self.n_head, *more), torch.nan, device=self.device)

    def _value_norms(self, layer: int, value: Tensor) -> Tensor:
        if self._norms is None or self._norms[0] != layer:
            self._norms = layer, moved_norms(value, self._grams[layer])
        return self._norms[1]

    # --- against the base model ----------------------------------------------------------------------------------

    def _start_kl(self, kl_rows: Sequence[Sequence[int]], logprob_0: Tensor | None) -> None:
        assert all(len(rows) <= KL_ROWS for rows in kl_rows)
        # (example, which of its rows, query position)
        self._kl_rows = [(b, r, q) for b, rows in enumerate(kl_rows) for r, q in enumerate(rows)]
        self._kl = self._undefined(KL_ROWS) if "attn_kl0" in self.wanted and logprob_0 is not None else None
        self._logprob_0 = None if logprob_0 is None else logprob_0.to(self.device, torch.float32)
        assert logprob_0 is None or all(q < logprob_0.shape[-1] for _, _, q in self._kl_rows)
        self._logprob = self._undefined(KL_ROWS, self.length) if "attn_logprob" in self.wanted else None

    def _see_kl_rows(self, layer: int, first: int, scores: Tensor) -> None:
        chosen = [row for row in self._kl_rows if first <= row[2] < first + scores.shape[2]]
        if not chosen or (self._kl is None and self._logprob is None):
            return
        n_key = scores.shape[-1]
        example, row, query = torch.tensor(chosen, device=self.device).unbind(-1)  # each [rows in this block]
        log_a = scores[example, :, query - first].float().log_softmax(dim=-1)  # [rows, head, key]
        if self._kl is not None:
            n_known = min(n_key, self._logprob_0.shape[-1])  # none of these rows sees a key beyond
            log_a0 = self._logprob_0[example, layer, :, row, :n_known]
            self._kl[example, layer, :, row] = kl_bits(log_a[..., :n_known], log_a0)
        if self._logprob is not None:
            self._logprob[example, layer, :, row, :n_key] = log_a
            self._logprob[example, layer, :, row, n_key:] = -torch.inf


def gold_weights(examples: Sequence[Example], gold: Sequence[Sequence[GoldFact]], length: int) -> tuple[Tensor, Tensor]:
    """Return (queries [4, batch, fact, seq], keys [4, batch, fact, seq]) for `attention_between`.

    The four sums are numerator and denominator of attn_gold_lift, then of attn_gold_sentence_lift:
    value tokens, and n_gold / n_S of all source tokens; the mean over the gold sentence, and over its control. Position
    0 counts nowhere. A fact that lacks one of the two sides is left out of its lift.
    """
    n_fact = max(len(facts) for facts in gold)
    queries, keys = torch.zeros(2, 4, len(examples), n_fact, length).unbind(0)
    for b, (example, facts) in enumerate(zip(examples, gold, strict=True)):
        source = range(1, len(example.source_ids))
        for f, fact in enumerate(facts):
            value, sentence, control = (
                [k for k in tokens if k in source] for tokens in (fact.value, fact.sentence, fact.control)
            )
            if value:
                queries[:2, b, f, list(fact.queries)] = 1
                keys[0, b, f, value] = 1
                keys[1, b, f, source.start : source.stop] = len(value) / len(source)
            if sentence and control:
                queries[2:, b, f, list(fact.queries)] = 1
                keys[2, b, f, sentence] = 1 / len(sentence)
                keys[3, b, f, control] = 1 / len(control)
    return queries, keys


class RepeatedTokens:
    """STRIPES of one batch of sequences [BOS, r_1..r_T, r_1..r_T] (T = period), during one forward pass.

    Called like AttentionObserver, which says what the arguments are.
    """

    def __init__(self, n_layer: int, period: int):
        assert period >= 1
        self.period = period
        self._sums: list[dict[str, Tensor]] = [{} for _ in range(n_layer)]  # each [batch, head]

    def see_residual(self, layer: int, x: Tensor) -> None:
        """Ignore the residual stream: nothing here is compared with it."""

    def __call__(self, layer: int, first: int, scores: Tensor, a: Tensor, value: Tensor, output: Tensor) -> None:
        """Add the block's queries; see AttentionObserver."""
        sums = self._sums[layer]
        for name, block in stripe_sums(a, first, self.period).items():
            sums[name] = sums[name] + block if name in sums else block

    def result(self) -> dict[str, Tensor]:
        """STRIPES, each [batch, layer, head]: mean attention, uniform attention would give 1 / (q + 1)."""
        return {name: torch.stack([sums[name] for sums in self._sums], dim=1) / self.period for name in STRIPES}
