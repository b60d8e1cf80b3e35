"""One forward pass over examples: batched, and what is seen on the way reduced to numbers at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate
from gpt2_interp.inside.at_targets import AT_TARGETS
from gpt2_interp.inside.attention_observer import AGAINST_BASE, LIFTS, MOVED, AttentionObserver, output_grams
from gpt2_interp.inside.losses import queries
from gpt2_interp.inside.observation import PAD_ID, Stopwatch, batches, hooks, observed_states
from gpt2_interp.measures.neurons import NeuronStatistics
from gpt2_interp.probes.probe_set import GoldFact, ProbeSet
from gpt2_interp.probes.regions import pooling_weights, region_spans, span_masks
from gpt2_interp.snapshots.table import POOLINGS, REGIONS

MAX_BATCH_TOKENS = 2048


class ExamplePass:
    """Everything that one forward pass saw of its examples.

    arrays: the attention measures by name, [example, ...]; attn_kl0 and attn_logprob [kl, ...].
    pooled: [example, pooling, hidden_layer, d_model], NaN where an example lacks a pooling; None if not asked for.
    per_token: name of AT_TARGETS -> for each example the number of each of its supervised tokens.
    neurons: the statistics of `NeuronStatistics`; {} if not asked for.
    lens: (states [hidden_layer, queries, d_model] in the regions Q of the lens examples, one after the other; targets
    [queries]; owner [queries], which lens example); None if not asked for.
    """

    def __init__(
        self,
        gpt2: GPT2LMHeadModel,
        examples: Sequence[Example],
        watch: Stopwatch,
        *,
        attention: Collection[str] = (),
        numbers: Collection[str] = ("probe_loss",),
        gold: Sequence[Sequence[GoldFact]] = (),
        kl: Sequence[int] = (),
        logprob_0: np.ndarray | None = None,
        lens: Sequence[int] = (),
        pooled: bool = False,
        halves: Sequence[int] | None = None,
        targets_only: bool = False,
        max_tokens: int = MAX_BATCH_TOKENS,
    ):
        """attention: names of `attention_observer.OBSERVED`. numbers: of AT_TARGETS. kl: indices of the examples of
        attn_kl0; logprob_0 [kl, layer, head, kl_row, kl_key]: the base's attention there. lens: indices of the lens
        examples. halves: 0 or 1 for each example; with them neurons are measured. targets_only: attention is
        observed in region Q alone, which is much cheaper, and no array has an axis `region`."""
        self.gpt2, self.examples, self.watch = gpt2, examples, watch
        self.attention = set(attention)
        if not kl:
            self.attention -= set(AGAINST_BASE)
        if not any(gold):
            self.attention -= set(LIFTS)
        self.gold, self.halves, self.targets_only = gold, halves, targets_only
        self.kl = {index: k for k, index in enumerate(kl)}
        self.kl_keys = max((len(examples[i].input_ids) for i in kl), default=0)
        self.logprob_0 = logprob_0
        self.grams = output_grams(gpt2) if self.attention & set(MOVED) else None
        config, n = gpt2.config, len(examples)
        self.arrays: dict[str, np.ndarray] = {}
        shape = (n, len(POOLINGS), config.n_layer + 1, config.n_embd)
        self.pooled = np.full(shape, np.nan, np.float32) if pooled else None
        self.per_token: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.float32)] * n for name in numbers}
        d_mlp = config.n_inner or 4 * config.n_embd
        self._neurons = NeuronStatistics(len(REGIONS), config.n_layer, d_mlp) if halves else None
        self._lens_states: dict[int, list[Tensor]] = {index: [] for index in lens}  # of each layer [queries, d_model]

        for rows in batches([len(e.input_ids) for e in examples], max_tokens):
            self._run(rows)
        self.neurons = self._neurons.result() if self._neurons else {}
        self.lens = self._lens(lens) if lens else None

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """Mean of each of per_token, [example] float32; NaN where nothing is supervised."""
        return {
            name: np.array([values.mean() if len(values) else np.nan for values in examples], dtype=np.float32)
            for name, examples in self.per_token.items()
        }

    # ---- one batch ----

    def _run(self, rows: Sequence[int]) -> None:
        chosen = [self.examples[row] for row in rows]
        batch = {name: t.to(self.gpt2.device) for name, t in collate(chosen, PAD_ID).items()}
        spans = [region_spans(example) for example in chosen]
        masks = span_masks(spans, batch["input_ids"].shape[1]).to(self.gpt2.device)
        observer = self._observer(rows) if self.attention else None
        pooled: list[Tensor] = []  # of each hidden layer [batch, pooling, d_model]
        weights = pooling_weights(chosen, masks)

        def on_hidden(layer: int, x: Tensor) -> None:
            with self.watch("hidden"):
                if self.pooled is not None:
                    pooled.append(weights @ x.float())
                for k, row in enumerate(rows):
                    if row in self._lens_states:
                        self._lens_states[row].append(x[k, slice(*spans[k][0])].float().clone())
            if observer is not None and layer < self.gpt2.config.n_layer:
                with self.watch("attention"):
                    observer.see_residual(layer, x)

        def on_neurons(layer: int, a: Tensor) -> None:
            with self.watch("neurons"):
                self._neurons.update(layer, a, spans, batch["input_ids"], [self.halves[row] for row in rows])

        with hooks(self.gpt2, on_hidden, on_neurons if self._neurons else None), self.watch("forward"):
            final = observed_states(
                self.gpt2,
                batch["input_ids"],
                observer and timed(observer, self.watch, "attention"),
                observer.first_q if observer and self.targets_only else 0,
            )
            self._keep_numbers(rows, final, batch["labels"])
        if self.pooled is not None:
            self.pooled[rows] = torch.stack(pooled, dim=2).cpu().numpy()
        with self.watch("attention") if observer else nullcontext():
            for name, values in observer.result().items() if observer else ():
                self._keep(name, values.float().cpu().numpy(), rows)

    def _observer(self, rows: Sequence[int]) -> AttentionObserver:
        held = [k for k, row in enumerate(rows) if row in self.kl]
        logprob_0 = None
        if held and self.logprob_0 is not None:
            logprob_0 = np.full((len(rows), *self.logprob_0.shape[1:]), np.nan, np.float32)
            logprob_0[held] = self.logprob_0[[self.kl[rows[k]] for k in held]]
            logprob_0 = torch.from_numpy(logprob_0).to(self.gpt2.device)
        absent = set(AGAINST_BASE) if not held else {"attn_kl0"} if logprob_0 is None else set()
        return AttentionObserver(
            self.gpt2,
            [self.examples[row] for row in rows],
            wanted=self.attention - absent,
            gold=[self.gold[row] for row in rows] if self.gold else (),
            kl_rows=[ProbeSet.kl_rows(self.examples[row]) if row in self.kl else () for row in rows],
            logprob_0=logprob_0,
            grams=self.grams,
            targets_only=self.targets_only,
        )

    def _keep(self, name: str, values: np.ndarray, rows: Sequence[int]) -> None:
        """Put one batch's values [batch, ...] where their examples stand."""
        if name not in AGAINST_BASE:
            into = self.arrays.setdefault(name, np.full((len(self.examples), *values.shape[1:]), np.nan, np.float32))
            into[rows] = values
            return
        held = [k for k, row in enumerate(rows) if row in self.kl]
        values = values[held]
        if name == "attn_logprob":  # as many keys as the longest example has; beyond its own a row sees none
            short = max(0, self.kl_keys - values.shape[-1])
            values = np.pad(values, [(0, 0)] * 4 + [(0, short)], constant_values=-np.inf)[..., : self.kl_keys]
            values = np.where(np.isnan(values).any(axis=-1, keepdims=True), np.float32(np.nan), values)  # rows it lacks
        into = self.arrays.setdefault(name, np.full((len(self.kl), *values.shape[1:]), np.nan, np.float32))
        into[[self.kl[rows[k]] for k in held]] = values

    def _keep_numbers(self, rows: Sequence[int], final: Tensor, labels: Tensor) -> None:
        """final: [batch, seq, d_model] after ln_f; labels: [batch, seq]."""
        row, position, tokens = queries(labels)
        counts = torch.bincount(row, minlength=len(rows)).tolist()
        for name, examples in self.per_token.items():
            values = AT_TARGETS[name](self.gpt2, final[row, position], tokens)
            for index, of_row in zip(rows, values.cpu().split(counts), strict=True):
                examples[index] = of_row.numpy()

    def _lens(self, lens: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        states = [torch.stack(self._lens_states[index]) for index in lens]  # [hidden_layer, queries, d_model] each
        owner = [torch.full((one.shape[1],), k) for k, one in enumerate(states)]
        targets = [queries(collate([self.examples[index]], PAD_ID)["labels"])[2] for index in lens]
        device = self.gpt2.device
        return torch.cat(states, dim=1), torch.cat(targets).to(device), torch.cat(owner).to(device)


def timed(function: Callable, watch: Stopwatch, name: str) -> Callable:
    """Return `function` with its time counted under `name`."""

    def run(*args):
        with watch(name):
            function(*args)

    return run
