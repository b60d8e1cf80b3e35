"""Model + probes -> the arrays of one snapshot, in batched passes that leave the model as it was.

Everything is reduced to numbers while the forward pass runs. Attention is computed here, with the model's own queries
and keys but a block of queries at a time, so that never a whole map [batch, head, query, key] is in memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import AttentionInterface, GPT2LMHeadModel
from transformers.activations import NewGELUActivation

from gpt2_interp.examples import IGNORED, Example, collate
from gpt2_interp.measures.attention import QUERY_BLOCK, query_measures, region_mean
from gpt2_interp.measures.neurons import NeuronStatistics
from gpt2_interp.measures.weights import find_gpt2
from gpt2_interp.probes import ProbeSet
from gpt2_interp.snapshots import POOLINGS, REGIONS

FIRST_A = 8  # region A begins here: earlier queries have too few keys to compare heads by
PAD_ID = 0  # any token will do: padding is masked everywhere
LOGIT_BUDGET = 2**24  # logits held at once (64 MiB in float32)


def capture(
    model: nn.Module,
    probe_set: ProbeSet,
    *,
    autocast_dtype: torch.dtype | None = None,
    max_batch_tokens: int = 2048,
) -> dict[str, np.ndarray]:
    """Measure `model` on the probes: every array of the store's table that needs a forward pass, by name.

    model: a GPT2LMHeadModel, also wrapped by PEFT, DDP or torch.compile. autocast_dtype: precision of the forward
    passes, float32 when None; the measures themselves are always float32. Weights, gradients, training mode,
    attention implementation and random state are left as they were.
    """
    gpt2 = find_gpt2(model)
    with measuring(gpt2), torch.no_grad(), torch.autocast(gpt2.device.type, enabled=False):
        arrays = _capture_probes(gpt2, probe_set.examples, autocast_dtype, max_batch_tokens)
        arrays["attn_pattern"] = _capture_patterns(gpt2, probe_set.pattern_examples, autocast_dtype)
    return arrays


# --- the model, borrowed and given back --------------------------------------------------------------------------


@contextmanager
def measuring(gpt2: GPT2LMHeadModel) -> Iterator[None]:
    """Eval mode, `observed_attention`, fused GELU and free use of randomness; all restored afterwards."""
    training = [(module, module.training) for module in gpt2.modules()]
    implementation = gpt2.config._attn_implementation
    # Hugging Face's gelu_new in one kernel instead of eight: the same function, on a CPU a third of the whole time.
    activations = [
        (block.mlp, block.mlp.act) for block in gpt2.transformer.h if isinstance(block.mlp.act, NewGELUActivation)
    ]
    with random_state_kept(gpt2.device):
        try:
            gpt2.eval()
            gpt2.set_attn_implementation(OBSERVED)
            for mlp, _ in activations:
                mlp.act = nn.GELU(approximate="tanh")
            yield
        finally:
            for mlp, activation in activations:
                mlp.act = activation
            gpt2.set_attn_implementation(implementation)
            for module, was_training in training:
                module.training = was_training


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Restore the random state of Python, NumPy, torch and the model's accelerator."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


# --- what happens during a forward pass --------------------------------------------------------------------------


def observed_attention(module, query, key, value, attention_mask, scaling=None, on_attention=None, **kwargs):
    """GPT-2's attention as Hugging Face's attention interface wants it, showing each block to `on_attention`.

    query, key, value: [batch, head, seq, d_head]. Calls on_attention(layer, first, a) with a: [batch, head, query,
    key], float32 after softmax, of the queries first, first + 1, ... and all keys that they see. Sequences are padded
    on the right, so a causal mask hides the padding from every token that counts. Returns ([batch, seq, head, d_head],
    None).
    """
    assert attention_mask is None, "Hugging Face makes no mask for an attention function that it does not know"
    n = query.shape[2]
    query, key, value = (query * scaling).contiguous(), key.contiguous(), value.contiguous()
    output = torch.empty_like(query)
    for first in range(0, n, QUERY_BLOCK):
        stop = min(first + QUERY_BLOCK, n)
        scores = (query[:, :, first:stop] @ key[:, :, :stop].transpose(-1, -2)).float()  # [batch, head, query, key]
        later = torch.ones(stop - first, stop - first, dtype=torch.bool, device=scores.device).triu(1)
        scores[..., first:].masked_fill_(later, -torch.inf)
        a = scores.softmax(dim=-1)
        output[:, :, first:stop] = a.to(value.dtype) @ value[:, :, :stop]
        if on_attention is not None:
            with torch.autocast(a.device.type, enabled=False):
                on_attention(module.layer_idx, first, a)
    return output.transpose(1, 2), None


OBSERVED = "gpt2_interp_observed"
AttentionInterface.register(OBSERVED, observed_attention)


@contextmanager
def _hooks(gpt2: GPT2LMHeadModel, on_hidden, on_neurons) -> Iterator[None]:
    """Call on_hidden(l, x) for l = 0..n_layer and on_neurons(l, a) during forward passes.

    x: [batch, seq, d_model], l = 0 the embedding, l = n_layer before ln_f; a: [batch, seq, d_mlp], the input of
    mlp.c_proj.
    """

    def before(function, layer):
        def hook(module, args):
            with torch.autocast(args[0].device.type, enabled=False):
                function(layer, args[0])

        return hook

    with ExitStack() as stack:
        blocks = gpt2.transformer.h
        for layer, block in enumerate(blocks):
            stack.callback(block.register_forward_pre_hook(before(on_hidden, layer)).remove)
            stack.callback(block.mlp.c_proj.register_forward_pre_hook(before(on_neurons, layer)).remove)
        stack.callback(gpt2.transformer.ln_f.register_forward_pre_hook(before(on_hidden, len(blocks))).remove)
        yield


def _final_hidden(gpt2: GPT2LMHeadModel, batch: dict[str, Tensor], on_attention) -> Tensor:
    """The transformer's output after ln_f, [batch, seq, d_model]."""
    return gpt2.transformer(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False, on_attention=on_attention
    ).last_hidden_state


# --- the measured probes -----------------------------------------------------------------------------------------


def _capture_probes(
    gpt2: GPT2LMHeadModel, examples: Sequence[Example], autocast_dtype: torch.dtype | None, max_batch_tokens: int
) -> dict[str, np.ndarray]:
    config, n = gpt2.config, len(examples)
    d_mlp = config.n_inner or 4 * config.n_embd
    neurons = NeuronStatistics(len(REGIONS), config.n_layer, d_mlp)
    hidden = np.full((n, len(POOLINGS), config.n_layer + 1, config.n_embd), np.nan, dtype=np.float32)
    loss = np.full(n, np.nan, dtype=np.float32)
    attention: dict[str, np.ndarray] = {}

    for rows in batches([len(e.input_ids) for e in examples], max_batch_tokens):
        chosen = [examples[row] for row in rows]
        batch = {name: t.to(gpt2.device) for name, t in collate(chosen, PAD_ID).items()}
        spans = [region_spans(example) for example in chosen]
        masks = span_masks(spans, batch["input_ids"].shape[1]).to(gpt2.device)  # [batch, region, seq]
        pooling = pooling_weights(chosen, masks)  # [batch, pooling, seq]
        pooled: list[Tensor] = []  # per hidden layer [batch, pooling, d_model]
        blocks: list[list[dict[str, Tensor]]] = [[] for _ in range(config.n_layer)]  # each measure [batch, head, query]
        with (
            _hooks(
                gpt2,
                on_hidden=lambda layer, x, into=pooled, weights=pooling: into.append(weights @ x.float()),
                on_neurons=lambda layer, a, ids=batch["input_ids"], spans=spans: neurons.update(layer, a, spans, ids),
            ),
            _autocast(gpt2, autocast_dtype),
        ):
            final = _final_hidden(
                gpt2, batch, lambda layer, first, a, into=blocks: into[layer].append(query_measures(a, first))
            )
            loss[rows] = mean_target_loss(gpt2, final, batch["labels"]).cpu().numpy()
        hidden[rows] = torch.stack(pooled, dim=2).cpu().numpy()
        for name in blocks[0][0]:
            per_layer = [torch.cat([block[name] for block in layer], -1) for layer in blocks]  # [batch, head, query]
            values = torch.stack([region_mean(v, masks) for v in per_layer], 2)  # [batch, region, layer, head]
            attention.setdefault(name, np.empty((n, *values.shape[1:]), np.float32))[rows] = values.cpu().numpy()

    return {**attention, "hidden_pooled": hidden, "probe_loss": loss, **neurons.result()}


def _autocast(gpt2: GPT2LMHeadModel, dtype: torch.dtype | None):
    """Precision of the forward pass alone."""
    return torch.autocast(gpt2.device.type, dtype=dtype, enabled=dtype is not None)


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length whose padded size is at most `max_tokens` (one row at least)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def region_spans(example: Example) -> list[tuple[int, int]]:
    """(start, stop) of regions Q and A. Q: positions that predict a target token; A: positions from FIRST_A on."""
    n, n_prompt = len(example.input_ids), len(example.prompt_ids)
    start = max(n_prompt - 1, 0)  # position t predicts token t + 1; nothing predicts token 0
    return [(start, max(n - 1, start)) if example.target_ids else (0, 0), (min(FIRST_A, n), n)]


def span_masks(spans: Sequence[Sequence[tuple[int, int]]], length: int) -> Tensor:
    """[batch, region, seq] bool from (start, stop) of each example's regions."""
    start, stop = torch.tensor(spans).unbind(-1)  # each [batch, region]
    position = torch.arange(length)
    return (position >= start[..., None]) & (position < stop[..., None])


def pooling_weights(examples: Sequence[Example], regions: Tensor) -> Tensor:
    """[batch, pooling, seq]: weights that average hidden states; a row of NaN where an example lacks the pooling.

    source_mean: source tokens without position 0; target_mean: region Q; prompt_last: one position.
    """
    position = torch.arange(regions.shape[-1], device=regions.device)
    n_source = torch.tensor([len(e.source_ids) for e in examples], device=regions.device)[:, None]
    n_prompt = torch.tensor([len(e.prompt_ids) for e in examples], device=regions.device)[:, None]
    source = (position >= 1) & (position < n_source)
    masks = torch.stack([source, regions[:, REGIONS.index("Q")], position == n_prompt - 1], dim=1).float()
    return masks / masks.sum(dim=-1, keepdim=True)


def mean_target_loss(gpt2: GPT2LMHeadModel, final: Tensor, labels: Tensor) -> Tensor:
    """Mean -log p of each example's supervised tokens, nats: [batch]; NaN where there is none.

    final: [batch, seq, d_model] after ln_f; labels: [batch, seq]. Logits exist only at positions that need them.
    """
    targets = labels[:, 1:]
    example, position = (targets != IGNORED).nonzero(as_tuple=True)  # each [queries]
    states, wanted = final[example, position], targets[example, position]
    rows = max(1, LOGIT_BUDGET // gpt2.config.vocab_size)
    losses = [
        F.cross_entropy(gpt2.lm_head(x).float(), y, reduction="none")
        for x, y in zip(states.split(rows), wanted.split(rows), strict=True)
    ]
    total = torch.zeros(len(labels), device=labels.device).index_add_(0, example, torch.cat(losses))
    return total / (targets != IGNORED).sum(dim=1)


# --- full patterns -----------------------------------------------------------------------------------------------


def _capture_patterns(
    gpt2: GPT2LMHeadModel, examples: Sequence[Example], autocast_dtype: torch.dtype | None
) -> np.ndarray:
    """[pattern_example, layer, head, query_pos, key_pos] float16; NaN where a shorter example has no such position."""
    length = max((len(e.input_ids) for e in examples), default=0)
    shape = (len(examples), gpt2.config.n_layer, gpt2.config.n_head, length, length)
    patterns = np.full(shape, np.nan, dtype=np.float16)
    for index, example in enumerate(examples):  # one by one: they are few, and none is padded
        n = len(example.input_ids)
        patterns[index, :, :, :n, :n] = 0  # later keys, which their block of queries does not show
        batch = {name: t.to(gpt2.device) for name, t in collate([example], PAD_ID).items()}

        def keep(layer: int, first: int, a: Tensor, into=patterns[index]) -> None:
            into[layer, :, first : first + a.shape[2], : a.shape[3]] = a[0].cpu().numpy()

        with _autocast(gpt2, autocast_dtype):
            _final_hidden(gpt2, batch, keep)
    return patterns
