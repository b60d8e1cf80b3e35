"""Looking inside a GPT-2 while it reads: the model is borrowed and given back, and an observer gets what it computes.

Attention is computed here, with the model's own queries and keys but a block of queries at a time, so that never a
whole map [batch, head, query, key] is in memory.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, GPT2LMHeadModel
from transformers.activations import NewGELUActivation

from gpt2_interp.measures.attention import QUERY_BLOCK

PAD_ID = 0  # any token will do: padding is on the right, where a causal mask hides it from every token that counts


# --- the model, borrowed and given back --------------------------------------------------------------------------


@contextmanager
def measuring(gpt2: GPT2LMHeadModel) -> Iterator[None]:
    """Eval mode, float32, `observed_attention`, fused GELU and free use of randomness; all restored afterwards."""
    training = [(module, module.training) for module in gpt2.modules()]
    implementation = gpt2.config._attn_implementation
    # Hugging Face's gelu_new in one kernel instead of eight: the same function, on a CPU a third of the whole time.
    activations = [
        (block.mlp, block.mlp.act) for block in gpt2.transformer.h if isinstance(block.mlp.act, NewGELUActivation)
    ]
    with random_state_kept(gpt2.device), torch.autocast(gpt2.device.type, enabled=False):
        try:
            gpt2.eval()
            gpt2.set_attn_implementation(OBSERVED_ATTENTION)
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


def observed_attention(
    module, query, key, value, attention_mask, scaling=None, observer=None, observed_from=0, **kwargs
):
    """GPT-2's attention as Hugging Face's attention interface wants it, showing each block of queries to `observer`.

    query, key, value: [batch, head, seq, d_head], sequences padded on the right. Calls observer(layer, first, scores,
    a, value, output) for the queries first, first + 1, ... with scores (-inf where a key is invisible) and a, both
    [batch, head, query, key] in float32 over all keys that any of these queries sees, and output = a value [batch,
    head, query, d_head]. The queries before `observed_from` are not shown; they have torch's fused attention, as all
    have without an observer. Returns ([batch, seq, head, d_head], None).
    """
    assert attention_mask is None, "Hugging Face makes no mask for an attention function that it does not know"
    if observer is None:
        output = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return output.transpose(1, 2), None
    n = query.shape[2]
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    if observed_from:
        unseen = (x[:, :, :observed_from] for x in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(*unseen, is_causal=True, scale=scaling)
        output[:, :, :observed_from] = attended
    query, key, value = (query * scaling).contiguous(), key.contiguous(), value.contiguous()
    for first in range(observed_from, n, QUERY_BLOCK):
        stop = min(first + QUERY_BLOCK, n)
        scores = (query[:, :, first:stop] @ key[:, :, :stop].transpose(-1, -2)).float()  # [batch, head, query, key]
        later = torch.ones(stop - first, stop - first, dtype=torch.bool, device=scores.device).triu(1)
        scores[..., first:].masked_fill_(later, -torch.inf)
        a = scores.softmax(dim=-1)
        output[:, :, first:stop] = a.to(value.dtype) @ value[:, :, :stop]
        with torch.autocast(a.device.type, enabled=False):
            observer(module.layer_idx, first, scores, a, value, output[:, :, first:stop])
    return output.transpose(1, 2), None


OBSERVED_ATTENTION = "gpt2_interp_observed"
AttentionInterface.register(OBSERVED_ATTENTION, observed_attention)


@contextmanager
def hooks(
    gpt2: GPT2LMHeadModel,
    on_hidden: Callable[[int, Tensor], None] | None = None,
    on_neurons: Callable[[int, Tensor], None] | None = None,
) -> Iterator[None]:
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
            if on_hidden is not None:
                stack.callback(block.register_forward_pre_hook(before(on_hidden, layer)).remove)
            if on_neurons is not None:
                stack.callback(block.mlp.c_proj.register_forward_pre_hook(before(on_neurons, layer)).remove)
        if on_hidden is not None:
            stack.callback(gpt2.transformer.ln_f.register_forward_pre_hook(before(on_hidden, len(blocks))).remove)
        yield


def observed_states(gpt2: GPT2LMHeadModel, input_ids: Tensor, observer=None, observed_from: int = 0) -> Tensor:
    """The transformer's output after ln_f, [batch, seq, d_model], for right-padded input_ids [batch, seq].

    `observer` sees the queries from `observed_from` on: see `observed_attention`.
    """
    ran = gpt2.transformer(input_ids=input_ids, use_cache=False, observer=observer, observed_from=observed_from)
    return ran.last_hidden_state


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


# --- what it costs -----------------------------------------------------------------------------------------------


class Stopwatch:
    """Seconds by name; what is timed inside something else counts there only."""

    def __init__(self, device: torch.device):
        self.seconds: dict[str, float] = {}
        self._device = device
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def _switch(self) -> None:
        """Give the time since the last switch to what was running."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] = self.seconds.get(self._running[-1], 0.0) + now - self._since
        self._since = now
