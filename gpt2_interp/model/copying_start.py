"""Random weights in which two heads already have the pattern of copying, so that a small model learns it in an hour.

An induction head needs a partner in an earlier layer, and neither is of use before the other is there (Olsson et al.
2022): a model as small as the embedded base did not find the pair in 12 million tokens, nor in drills made of nothing
but repetition (docs/decisions.md). Starting attention from structure that trained models have anyway is known to help:
Trockman & Kolter 2023, "Mimetic initialization of self-attention layers".
"""

from __future__ import annotations

import math

import torch
from transformers import GPT2LMHeadModel

PREVIOUS, INDUCTION = (0, 0), (1, 0)  # (layer, head)
EMBEDDING_SD = 0.1  # standard deviation of token and position embeddings, above the noise of the first layers
SHARPNESS = 2.2  # gain of the two heads' queries and keys
MEMORY = 0.15  # how loudly the first head writes the previous token
COPY = 2.0  # how loudly the second writes the token it found


@torch.no_grad()
def start_copying(model: GPT2LMHeadModel) -> None:
    """Change a new model's weights in place: sinusoidal positions, a previous-token head, an induction head.

    Head (0, 0) attends to the position before: its query turns each sinusoid back by one step. What it reads it writes
    through Q2 Q1', with Q1 and Q2 random and orthonormal. Head (1, 0) asks for its own token through Q1 and looks for
    it through Q2: it finds where that token came before, and writes the token that stands there through Q3 Q3'.
    All of it is trained like the rest.
    """
    config, blocks = model.config, model.transformer.h
    assert config.n_layer > 1 and config.n_embd // config.n_head % 2 == 0
    n_embd, width = config.n_embd, config.n_embd // config.n_head
    angles = math.pi * (2 / config.n_positions) ** torch.linspace(0, 1, n_embd // 2)  # radians per position
    position = torch.arange(config.n_positions)[:, None] * angles  # [n_positions, n_embd / 2]
    waves = torch.cat([position.sin(), position.cos()], dim=1)
    model.transformer.wpe.weight.copy_(waves * math.sqrt(2) * EMBEDDING_SD)
    model.transformer.wte.weight.mul_(EMBEDDING_SD / config.initializer_range)

    fastest = torch.arange(width // 2)
    sine, cosine = fastest, fastest + n_embd // 2
    turn = angles[fastest]
    query = torch.zeros(n_embd, width)
    key = torch.zeros(n_embd, width)
    query[sine, fastest], query[cosine, fastest] = turn.cos(), -turn.sin()  # sin(t - turn)
    query[cosine, fastest + width // 2], query[sine, fastest + width // 2] = turn.cos(), turn.sin()  # cos(t - turn)
    key[sine, fastest] = key[cosine, fastest + width // 2] = 1.0
    q1, q2, q3 = (torch.linalg.qr(torch.randn(n_embd, width)).Q for _ in range(3))
    _set_head(blocks, PREVIOUS, SHARPNESS * query, SHARPNESS * key, q1, MEMORY * q2.T)
    _set_head(blocks, INDUCTION, SHARPNESS * q1, SHARPNESS * q2, q3, COPY * q3.T)


def _set_head(blocks, where: tuple[int, int], query, key, value, output) -> None:
    """query, key, value: [n_embd, width]; output: [width, n_embd]."""
    layer, head = where
    attention = blocks[layer].attn
    width, n_embd = output.shape
    columns = slice(head * width, (head + 1) * width)
    for i, matrix in enumerate((query, key, value)):
        attention.c_attn.weight.view(n_embd, 3, n_embd)[:, i, columns] = matrix
    attention.c_proj.weight[columns] = output
