"""Batched generation from prompts of token ids."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm


@torch.no_grad()  # under inference_mode autocast would cast every weight again for every token
def generate(
    model,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    num_beams: int = 1,
    top_p: float | None = None,
    seed: int = 0,
    batch_size: int = 16,
    description: str = "generating",
    context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> list[str]:
    """Continuations (new tokens only, special tokens removed) of all prompts, in their order.

    Greedy or beam search; with `top_p`, nucleus sampling from `seed`, which leaves the global random state as it was.

    Prompts are sorted by length and left-padded, so that every row's next token stands in the last column; padding is
    masked. Every prompt must leave room for `max_new_tokens` in the context. `context`: the autocast of training, if
    any.
    """
    limit = model.config.n_positions
    assert all(prompts) and max(map(len, prompts)) + max_new_tokens <= limit, "cut prompts before generating"
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts: list[str] = [""] * len(prompts)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=top_p is not None), _eval_mode(model), context():
        # one autocast around all steps: weights are cast once, not for every token
        if top_p is not None:
            torch.manual_seed(seed)
        for start in tqdm(range(0, len(order), batch_size), desc=description, leave=False):
            rows = order[start : start + batch_size]
            width = max(len(prompts[i]) for i in rows)
            input_ids = torch.full((len(rows), width), tokenizer.pad_token_id)
            attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
            for row, i in enumerate(rows):
                input_ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
                attention_mask[row, width - len(prompts[i]) :] = 1
            output = model.generate(
                input_ids=input_ids.to(device),
                attention_mask=attention_mask.to(device),
                max_new_tokens=max_new_tokens,
                num_beams=num_beams,
                do_sample=top_p is not None,
                **({} if top_p is None else {"top_p": top_p, "top_k": 0}),
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )  # [rows, width + new]
            for i, text in zip(rows, tokenizer.batch_decode(output[:, width:], skip_special_tokens=True), strict=True):
                texts[i] = text.strip()
    return texts


@contextlib.contextmanager
def _eval_mode(model):
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
