"""GPT-2 from scratch (Radford et al. 2019), to be read from top to bottom: how tokens become a guess at the next one.

    ids -> token embedding + position embedding -> n_layer x (attention, then MLP) -> LayerNorm -> logits

What runs through the middle is the *residual stream*, one vector of d_model numbers a token. No block replaces it: each
reads a normalized copy and adds what it found. Attention is the only place where tokens see each other.

Parameters have the names and shapes of Hugging Face's `GPT2LMHeadModel`, so `from_pretrained` and `save_pretrained`
move weights either way. It is a `PreTrainedModel` too, so that Trainer, PEFT, `generate` and the snapshots take it as
they take the other: `--implementation scratch`. Tests compare logits, gradients and generated tokens with Hugging
Face's, argument by argument; what is missing is refused (see `ScratchGPT2LMHeadModel`).

Axes: batch, seq (inside attention query_pos and key_pos), d_model = n_embd, head, d_head = d_model / n_head, d_mlp,
vocab.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import GenerationMixin, GPT2Config, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D  # y = x W + b with W: [in, out], the other way round than nn.Linear
from transformers.utils import can_return_tuple

# GELU(x) = x P(a standard normal number < x), in its tanh approximation (Hendrycks & Gimpel 2016): one torch kernel
# for what Hugging Face's "gelu_new" computes in eight.
ACTIVATIONS = {
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "gelu_pytorch_tanh": lambda: nn.GELU(approximate="tanh"),
    "gelu": nn.GELU,
    "relu": nn.ReLU,
}

# What GPT2Config offers and the published GPT-2 has not: cross attention, other scalings, attention both ways.
PUBLISHED = {
    "add_cross_attention": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "is_causal": True,
}


# --- attention: each token gathers from the tokens before it -----------------------------------------------------


def attention_step_by_step(module, query, key, value, visible, scaling, dropout=0.0, **_) -> tuple[Tensor, Tensor]:
    """softmax(Q K' / sqrt(d_head)) V (Vaswani et al. 2017, eq. 1), all heads side by side.

    query: [batch, head, query_pos, d_head]; key, value: [batch, head, key_pos, d_head]; visible: of visible_keys.
    Returns ([batch, query_pos, head, d_head], the attention pattern [batch, head, query_pos, key_pos]).
    """
    scores = query @ key.transpose(-1, -2) * scaling  # [batch, head, query_pos, key_pos]: how well they match
    if visible is None:
        visible = causal(query.shape[2], key.shape[2], key.shape[2] - query.shape[2], query.device)
    # what is not visible gets no weight at all
    scores = scores.masked_fill(~visible, -torch.inf) if visible.dtype == torch.bool else scores + visible
    pattern = scores.softmax(dim=-1)  # each row sums to 1
    pattern = F.dropout(pattern.to(value.dtype), dropout)
    return (pattern @ value).transpose(1, 2), pattern


def attention_fused(module, query, key, value, visible, scaling, dropout=0.0, **_) -> tuple[Tensor, None]:
    """Compute the same function as one kernel, which never holds the whole pattern, and so can't show it."""
    just_causal = visible is None and query.shape[2] > 1
    output = F.scaled_dot_product_attention(query, key, value, visible, dropout, just_causal, scale=scaling)
    return output.transpose(1, 2), None


def causal(n_query: int, n_key: int, n_earlier: int | Tensor, device: torch.device) -> Tensor:
    """Return [query_pos, key_pos] bool: the first query stands behind n_earlier tokens, and none sees a key after
    itself."""
    key = torch.arange(n_key, device=device)
    query = n_earlier + torch.arange(n_query, device=device)[:, None]  # [query_pos, 1]: where it stands among the keys
    return key <= query


def visible_keys(
    attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None, n_query: int, device: torch.device
) -> Tensor | None:
    """Return which keys each query sees: no later ones, no padding, no other document. None if that is causal or
    everything.

    attention_mask: [batch, earlier + query_pos], 0 on padding, or [batch, 1 or head, query_pos, key_pos], which stays
    as it is: bool, or numbers that are added to the scores. position_ids: [batch or 1, query_pos]; without a mask they
    tell documents apart. Returns [batch or 1, 1, query_pos, key_pos] bool, the mask of 4 axes, or None. Raises
    ValueError for a mask of another shape and for several documents with a cache.
    """
    if attention_mask is not None and attention_mask.ndim == 4:
        return attention_mask
    n_earlier = 0 if cache is None else cache.get_seq_length()
    n_key = n_query if cache is None else cache.get_mask_sizes(n_query, 0)[0]
    has_places = isinstance(n_earlier, Tensor) or n_key > n_earlier + n_query  # StaticCache: for tokens to come
    document = None
    if attention_mask is not None:
        n_given = attention_mask.shape[-1]
        if attention_mask.ndim != 2 or n_given > n_key or (n_given < n_key and not has_places):
            raise ValueError(f"attention_mask is {list(attention_mask.shape)}: give [batch, {n_key}], or 4 axes")
        attention_mask = F.pad(attention_mask, (0, n_key - n_given))
        if not has_places and not torch.compiler.is_compiling() and bool(attention_mask.all()):
            attention_mask = None  # there is no padding, and a kernel without mask is faster
    elif position_ids is not None:
        document = documents(position_ids)
        if document is not None and cache is not None:
            raise ValueError(
                "position_ids restart, so a row holds several documents, which no cache keeps apart: give "
                "use_cache=False, or an attention_mask if the row is one text"
            )
    if attention_mask is None and document is None and n_query in (1, n_key) and not has_places:
        return None

    visible = causal(n_query, n_key, n_earlier, device)[None, None]  # [1, 1, query_pos, key_pos]
    if attention_mask is not None:
        # Padding sees itself: a softmax over nothing would be NaN, and nobody looks at what padding finds.
        itself = visible & ~causal(n_query, n_key, n_earlier - 1, device)
        visible = visible & attention_mask[:, None, None, :].bool() | itself
    if document is not None:
        visible = visible & (document[:, None, :, None] == document[:, None, None, :])
    return visible


def documents(position_ids: Tensor) -> Tensor | None:
    """Return which document of a packed row each token belongs to, [batch, seq], counted from 0; None if each row is
    one.

    A new one begins where a position is not the one before plus 1, as `DataCollatorWithFlattening` packs them.
    """
    position_ids = torch.atleast_2d(position_ids)
    begins = F.pad(position_ids[:, 1:] != position_ids[:, :-1] + 1, (1, 0))  # the first token begins nothing new
    return begins.cumsum(-1) if torch.compiler.is_compiling() or bool(begins.any()) else None


class Attention(nn.Module):
    """n_head attentions side by side, each with d_head of the d_model numbers as its query, key and value."""

    def __init__(self, config: GPT2Config, layer_idx: int):
        super().__init__()
        self.config, self.layer_idx, self.n_head = config, layer_idx, config.n_head
        self.scaling = (config.n_embd // config.n_head) ** -0.5  # keeps the scores' variance the same for any d_head
        self.c_attn = Conv1D(3 * config.n_embd, config.n_embd)  # query, key and value in one product
        self.c_proj = Conv1D(config.n_embd, config.n_embd)  # mixes what the heads found
        self.c_proj.adds_to_stream = True  # for _init_weights
        self.attn_dropout = nn.Dropout(config.attn_pdrop)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self, x: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None, **kwargs
    ) -> tuple[Tensor, Tensor | None]:
        """x: [batch, seq, d_model]; attention_mask: of visible_keys. Returns ([batch, seq, d_model], the attention
        pattern if this implementation shows it)."""
        query, key, value = self.c_attn(x).chunk(3, dim=-1)  # each [batch, seq, d_model]
        query, key, value = self._heads(query), self._heads(key), self._heads(value)  # each [batch, head, seq, d_head]
        if past_key_values is not None:  # earlier tokens' keys and values never change: kept, not computed again
            key, value = past_key_values.update(key, value, self.layer_idx)  # [batch, head, key_pos, d_head]
        dropout = self.attn_dropout.p if self.training else 0.0
        found, pattern = self._attend()(  # [batch, seq, head, d_head]
            self, query, key, value, attention_mask, scaling=self.scaling, dropout=dropout, **kwargs
        )
        return self.resid_dropout(self.c_proj(found.flatten(2))), pattern

    def _heads(self, x: Tensor) -> Tensor:
        """[batch, seq, d_model] -> [batch, head, seq, d_head]."""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def _attend(self) -> Callable:
        name = self.config._attn_implementation  # eager, sdpa, or a function that was registered with Hugging Face
        if name == "sdpa":
            return attention_fused
        return ALL_ATTENTION_FUNCTIONS.get_interface(name, attention_step_by_step)


# --- MLP: each token thinks for itself ---------------------------------------------------------------------------


class MLP(nn.Module):
    """d_mlp neurons (4 d_model where the config says nothing else): each reads one direction and writes another."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        d_mlp = config.n_inner or 4 * config.n_embd
        self.c_fc = Conv1D(d_mlp, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, d_mlp)
        self.c_proj.adds_to_stream = True
        self.act = ACTIVATIONS[config.activation_function]()
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        neurons = self.act(self.c_fc(x))  # [batch, seq, d_mlp]
        return self.dropout(self.c_proj(neurons))  # [batch, seq, d_model]


# --- block: both, each on a normalized copy ----------------------------------------------------------------------


class Block(GradientCheckpointingLayer):  # that is nn.Module, and --activation_checkpointing
    """Pre-norm: LayerNorm stands before attention and MLP, and nothing stands on the residual stream itself.

    LayerNorm (Ba et al. 2016) takes a token's vector, subtracts its mean, divides by its standard deviation, then
    scales and shifts each dimension by learned numbers.
    """

    def __init__(self, config: GPT2Config, layer_idx: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, **kwargs) -> tuple[Tensor, Tensor | None]:
        """x: the residual stream [batch, seq, d_model]. Returns (it, added to; the attention pattern or None)."""
        found, pattern = self.attn(self.ln_1(x), attention_mask=attention_mask, **kwargs)
        x = x + found
        return x + self.mlp(self.ln_2(x)), pattern


# --- the whole of it -----------------------------------------------------------------------------------------------


class ScratchPreTrainedModel(PreTrainedModel):
    """The answers to what Hugging Face's library asks of a model family: how it is configured, initialized, and what it
    can do."""

    config_class = GPT2Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _keys_to_ignore_on_load_unexpected = [r"attn\.bias", r"attn\.masked_bias"]  # old checkpoints stored their masks

    def __init__(self, config: GPT2Config):
        for name, published in PUBLISHED.items():
            if getattr(config, name, published) != published:
                raise ValueError(f"{name}={getattr(config, name)} is not the published GPT-2, and is missing here")
        if config.activation_function not in ACTIVATIONS:
            raise ValueError(f"activation_function {config.activation_function!r}: one of {', '.join(ACTIVATIONS)}")
        super().__init__(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal numbers of SD 0.02; no bias; norms that change nothing. What is added to the residual stream is
        smaller by sqrt(2 n_layer), because 2 n_layer outputs add up there (Radford et al. 2019, section 2.3)."""
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding, Conv1D)):
            init.normal_(module.weight, mean=0.0, std=std)
            if hasattr(module, "adds_to_stream"):  # drawn again, as there: a seed gives both the same weights
                init.normal_(module.weight, mean=0.0, std=std / math.sqrt(2 * self.config.n_layer))
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class Transformer(ScratchPreTrainedModel):
    """Tokens to final hidden states."""

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # what a token is
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)  # where it stands, learned like everything else
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.wte

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        self.wte = embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,  # [batch, seq]
        past_key_values: Cache | None = None,  # keys and values of the tokens before input_ids
        attention_mask: Tensor | None = None,  # [batch, earlier + seq], 0 on padding; or 4 axes, see visible_keys
        token_type_ids: Tensor | None = None,  # [batch, seq]: tokens whose embeddings are added
        position_ids: Tensor | None = None,  # [batch, seq] or [1, seq]; where they restart, a new document begins
        inputs_embeds: Tensor | None = None,  # [batch, seq, d_model], in the place of input_ids
        *,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,  # for an attention function that takes more
    ) -> BaseModelOutputWithPast:
        """hidden_states, if asked for: n_layer + 1 of [batch, seq, d_model], the embedding first and the last one after
        ln_f, as Hugging Face's. attentions: n_layer patterns [batch, head, query_pos, key_pos]. Raises TypeError for an
        argument that is not here, and ValueError for arguments that do not go together, or if patterns are wanted of
        an implementation that has none."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if kwargs and self.config._attn_implementation in ("eager", "sdpa"):
            raise TypeError(f"the GPT-2 from scratch has no argument {', '.join(kwargs)}")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        tokens = self.wte(input_ids) if inputs_embeds is None else inputs_embeds  # [batch, seq, d_model]
        if tokens.ndim != 3:
            raise ValueError(f"input_ids has {tokens.ndim - 1} axes: give [batch, seq]")

        n_query, device = tokens.shape[1], tokens.device
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        visible = None
        has_4_axes = attention_mask is not None and attention_mask.ndim == 4
        if has_4_axes or self.config._attn_implementation in ALL_MASK_ATTENTION_FUNCTIONS:  # others need no mask
            visible = visible_keys(attention_mask, position_ids, past_key_values, n_query, device)
        if position_ids is None:
            n_earlier = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = n_earlier + torch.arange(n_query, device=device)[None]  # [1, seq]

        x = tokens + self.wpe(position_ids)  # the residual stream: [batch, seq, d_model]
        if token_type_ids is not None:
            x = x + self.wte(token_type_ids)
        x = self.drop(x)
        stream, patterns = [], []  # only what was asked for is kept
        for block in self.h:
            if output_hidden_states:
                stream.append(x)
            x, pattern = block(x, visible, past_key_values=past_key_values, **kwargs)
            if output_attentions:
                patterns.append(pattern)
        x = self.ln_f(x)

        if any(pattern is None for pattern in patterns):
            raise ValueError("only attention step by step shows patterns: model.set_attn_implementation('eager')")
        return BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=(*stream, x) if output_hidden_states else None,
            attentions=tuple(patterns) if output_attentions else None,
        )


class ScratchGPT2LMHeadModel(ScratchPreTrainedModel, GenerationMixin):
    """The transformer and its output: how alike is the final state to each token's embedding? The matrix that reads
    tokens in also reads them out (`tie_word_embeddings`, Press & Wolf 2017).

    Every argument of Hugging Face's `GPT2LMHeadModel` does the same here or is refused by name. Refused are:
    encoder_hidden_states and encoder_attention_mask, and any name that neither this forward nor the attention function
    has (TypeError); output_attentions of the fused kernel, which Hugging Face leaves out without a word, and restarting
    position_ids with a cache, where it attends across documents (ValueError); configs that ask for what the published
    GPT-2 has not (ValueError, see PUBLISHED).
    """

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,  # [batch, seq]
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        labels: Tensor | None = None,  # [batch, seq]: input_ids again, -100 where nothing is to be learned
        shift_labels: Tensor | None = None,  # [batch, seq]: labels[:, 1:] already in their predictors' places
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,  # how many of the last positions, 0 for all; or which positions
        num_items_in_batch: Tensor | int | None = None,  # what the loss is divided by: tokens of an accumulated batch
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """logits: [batch, seq, vocab]; loss: cross entropy of each next token, nats/token, if there are labels.
        Raises TypeError and ValueError as Transformer does."""
        output = self.transformer(
            input_ids,
            past_key_values,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])  # [batch, seq, vocab]
        loss = None if labels is None else next_token_loss(logits, labels, num_items_in_batch, shift_labels)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


ScratchGPT2LMHeadModel.__name__ = "GPT2LMHeadModel"  # what saved configs name, and by what other programs know it


def next_token_loss(
    logits: Tensor, labels: Tensor, num_items: Tensor | int | None = None, shift_labels: Tensor | None = None
) -> Tensor:
    """-log p(the next token), mean over the supervised ones: position t predicts the label of t + 1."""
    if shift_labels is None:
        shift_labels = F.pad(labels[:, 1:], (0, 1), value=-100)  # the last position predicts nothing, but to cut it
        # off would copy all logits, there and back again
    targets = shift_labels.flatten()  # [batch * seq]
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=-100, reduction="sum")
    return total / (targets != -100).sum() if num_items is None else total / num_items
