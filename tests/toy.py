"""A base model small enough to be trained inside a test, with a tokenizer of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.model.tokenizers import train_tokenizer
from gpt2_interp.synthetic.running_text import pretraining_texts

# Fewer of everything that a snapshot measures beside the run's own probes.
FEWER = {
    "gpt2_interp.probes.choose.TRAINING": 8,
    "gpt2_interp.probes.choose.CONTROL": 8,
    "gpt2_interp.probes.choose.TWINS": 8,
    "gpt2_interp.probes.contrasts.SEQUENCES": 8,
    "gpt2_interp.recording.plan.FEWEST_PERTURBATIONS": 2,
    "gpt2_interp.recording.plan.MOST_PERTURBATIONS": 2,
}
N_LAYER, N_HEAD, N_EMBD, N_POSITIONS = 2, 2, 32, 384


def make_toy_base(folder: Path) -> Path:
    """Write a random GPT-2 of 2 layers and 2 heads with 600 tokens to `folder`."""
    tokenizer = train_tokenizer(pretraining_texts(200), 600)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=N_LAYER, n_head=N_HEAD, n_embd=N_EMBD, n_positions=N_POSITIONS, vocab_size=len(tokenizer),
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure_fewer(patch: pytest.MonkeyPatch) -> None:
    """Snapshots by the same code in a third of the time, for tests to which the numbers in them are all one."""
    for name, value in FEWER.items():
        patch.setattr(name, value)
