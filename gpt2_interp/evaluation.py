"""How good is the output: target loss and perplexity, ROUGE, the lead-3 baseline, and intervals for all of them."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import datasets
import evaluate
import numpy as np
import torch
from rouge_score import rouge_scorer, scoring

from gpt2_interp.examples import IGNORED, Example
from gpt2_interp.intervals import interval
from gpt2_interp.packing import pack, packed_attention, packed_token_losses

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


# --- loss ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TargetLosses:
    """Summed negative log-likelihood (nats) and number of supervised tokens of each example, both [example]."""

    total: np.ndarray
    tokens: np.ndarray

    def mean_per_token(self) -> float:
        return float(self.total.sum() / self.tokens.sum())

    @staticmethod
    def merge(shares: Sequence[TargetLosses]) -> TargetLosses:
        """Losses of examples dealt out in turn: share r has examples r, r + len(shares), ..."""
        total, tokens = (np.concatenate([getattr(share, name) for share in shares]) for name in ("total", "tokens"))
        dealt = np.concatenate([np.arange(len(share.total)) * len(shares) + r for r, share in enumerate(shares)])
        order = np.argsort(dealt)
        return TargetLosses(total[order], tokens[order])

    def of(self, examples: Sequence[bool]) -> TargetLosses:
        """Of some of the examples; examples: [example] bool."""
        return TargetLosses(self.total[examples], self.tokens[examples])

    def summed(self, clusters: Sequence[str]) -> TargetLosses:
        """One entry a cluster, so that intervals resample whole clusters; clusters: [example] names."""
        _, index = np.unique(np.asarray(clusters), return_inverse=True)
        return TargetLosses(np.bincount(index, self.total), np.bincount(index, self.tokens).astype(np.int64))


@torch.inference_mode()
def target_losses(
    model,
    examples: Sequence[Example],
    batch_size: int,
    context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> TargetLosses:
    """Teacher-forced loss of each example's target in eval mode; `context` is the autocast of training, if any."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    total, tokens = np.zeros(len(examples)), np.zeros(len(examples), dtype=np.int64)
    with packed_attention(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in pack([examples[i] for i in rows]).items()}
            with context():
                losses = packed_token_losses(model, batch)  # [supervised tokens of all rows]
            tokens[rows] = [sum(label != IGNORED for label in examples[i].labels[1:]) for i in rows]
            for i, of_row in zip(rows, losses.double().cpu().split(tokens[rows].tolist()), strict=True):
                total[i] = of_row.sum()
    model.train(was_training)
    return TargetLosses(total, tokens)


def perplexity(loss: float) -> float:
    """exp(loss in nats/token); infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def loss_scores(losses: TargetLosses, suffix: str = "") -> dict[str, float]:
    """loss and perplexity over all tokens, with 95% bounds from resampling examples."""
    loss = losses.mean_per_token()
    scores = {f"loss{suffix}": loss, f"perplexity{suffix}": perplexity(loss)}
    if len(losses.total) > 1:
        low, high = interval(lambda t, n, axis: t.sum(axis=axis) / n.sum(axis=axis), losses.total, losses.tokens)
        scores |= {
            f"loss{suffix}_low": low,
            f"loss{suffix}_high": high,
            f"perplexity{suffix}_low": perplexity(low),
            f"perplexity{suffix}_high": perplexity(high),
        }
    return scores


# --- ROUGE -----------------------------------------------------------------------------------------------------


class Rouge(evaluate.Metric):
    """ROUGE F1 (0-100) of each prediction. `evaluate.load("rouge")` would fetch a script from the network."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="ROUGE F1 per example",
            citation="Lin 2004",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, use_stemmer=True)
        scores: list[dict[str, scoring.Score]] = [
            # rougeLsum wants one sentence a line
            scorer.score("\n".join(sentences(reference)), "\n".join(sentences(prediction)))
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return {kind: [100 * score[kind].fmeasure for score in scores] for kind in ROUGE_TYPES}


def rouge_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean ROUGE (0-100) with 95% bootstrap bounds `<kind>_low`, `<kind>_high`, and `n`."""
    per_example = Rouge().compute(predictions=list(predictions), references=list(references))
    scores: dict[str, float] = {"n": len(predictions)}
    for kind in ROUGE_TYPES:
        values = np.asarray(per_example[kind])
        scores[kind] = float(values.mean())
        if len(values) > 1:
            scores[f"{kind}_low"], scores[f"{kind}_high"] = interval(lambda x, axis: x.mean(axis=axis), values)
    return scores


_SENTENCE_END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z0-9])""")
_ABBREVIATION = re.compile(r"""\b(?:Mr|Mrs|Ms|Dr|St|Prof|Gen|Sen|Rep|Gov|Lt|Col|Sgt|Capt|Jr|Sr|vs|No|[A-Z])\.$""")


def sentences(text: str) -> list[str]:
    """Sentences of a text: its lines, cut after . ! ? before a capital or digit, not after a title or an initial."""
    found = []
    for line in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            if not _ABBREVIATION.search(line[start : match.start()]):
                found.append(line[start : match.end()].strip())
                start = match.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence]


def lead3(text: str) -> str:
    """The first three sentences, one a line: the baseline that news summaries must beat."""
    return "\n".join(sentences(text)[:3])
