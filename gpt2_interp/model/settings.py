"""Flags that choose the model."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2_interp.flags import flag, flags

IMPLEMENTATIONS = ("huggingface", "scratch")


@dataclass
class ModelArguments:
    _argument_group_name = "model"

    model_name_or_path: str | None = flag(
        None, "Base model: a name on the Hub (gpt2, gpt2-medium, ...) or a local folder in Hugging Face layout."
    )
    config_name: str | None = flag(
        None,
        "Start from random weights of this shape instead: gpt2, gpt2-medium, gpt2-large or gpt2-xl (known offline), "
        "a folder, or a config.json.",
    )
    tokenizer_name: str | None = flag(
        None, "Tokenizer, if it is not the model's: a name, or a folder (vocab.json and merges.txt are enough)."
    )
    config_overrides: str | None = flag(
        None, "With --config_name: change its shape, e.g. n_embd=160,n_layer=6,n_head=5,n_positions=512."
    )
    new_tokenizer_size: int | None = flag(
        None, "With --config_name: learn a new byte-level BPE of this many tokens from the training text."
    )
    implementation: str = flag(
        IMPLEMENTATIONS[0],
        "The same GPT-2, as Hugging Face's code, or from scratch in gpt2_interp/model/gpt2_from_scratch.py.",
        choices=list(IMPLEMENTATIONS),
    )
    copying_start: bool = flag(
        False,
        "With --config_name: two heads begin with the pattern of copying (a previous-token head, an induction head), "
        "which a small model does not find by itself within an hour.",
    )
    save_dtype: str = flag(
        "float32",
        "Precision of the weights in best_model/ and final_model/.",
        choices=["float32", "float16", "bfloat16"],
    )
    tuning: str = flag("full", "Train every weight, or low-rank adapters beside frozen ones.", choices=["full", "lora"])
    lora_r: int = flag(8, "LoRA: rank of the adapters.")
    lora_alpha: float = flag(16, "LoRA: the adapters' output is scaled by alpha / r.")
    lora_dropout: float = flag(0.1, "LoRA: dropout before the adapters.")
    lora_target_modules: list[str] = flags(
        ["attn.c_attn", "attn.c_proj"],
        "LoRA: the matrices that get an adapter (attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj).",
    )
    attn_pdrop: float = flag(
        0.0, "Dropout on attention weights. GPT-2's own 0.1 costs a third of a step on a CPU; so it is off by default."
    )
    resid_pdrop: float = flag(0.1, "Dropout on the output of each attention and MLP block.")
    embd_pdrop: float = flag(0.1, "Dropout on the embeddings.")
