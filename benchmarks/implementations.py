#!/usr/bin/env python
"""GPT-2 from scratch beside Hugging Face's, and batches of prompts against one by one.

    OMP_NUM_THREADS=2 python benchmarks/implementations.py        GPT-2 124M, random weights, float32; about 8 minutes
    python benchmarks/implementations.py --only generation --repeats 9 --device cuda
    python benchmarks/implementations.py --out benchmarks/results/my_machine.json

training    forward and backward pass of 2 x 256 tokens, with this project's dropout (0.1, not on attention) or none.
generation  64 tokens behind a prompt of 16, greedy, with the cache; the end of text is ignored.
batch       24 tokens behind each of 16 prompts of 4 to 12 tokens: all at once, and one by one.

Both models have the same weights; in the first two parts Hugging Face's has its own layers. They take turns in one
process, who begins alternates, and what is compared are neighbours: so a busy machine disturbs both. Medians and ranges
of these ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"
from common import machine, wait

PARTS = ("training", "generation", "batch")
BARS = {"training": 1.0, "generation": 1.0, "batch": 4.0}
DROPOUT = {"this project's dropout": 0.1, "no dropout": 0.0}
QUICK = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 32,
    "vocab_size": 500,
}  # for a look at what is printed


def make_models(device: str, quick: bool, dropout: float) -> dict:
    """Return {"scratch", "huggingface"} with the same random weights."""
    import torch
    from transformers import GPT2Config

    from gpt2_interp.model.load import MODEL_CLASSES

    shape = QUICK if quick else {}
    config = GPT2Config(attn_pdrop=0.0, resid_pdrop=dropout, embd_pdrop=dropout, **shape)
    torch.manual_seed(0)
    models = {name: MODEL_CLASSES[name](config).to(device) for name in ("scratch", "huggingface")}
    models["scratch"].load_state_dict(models["huggingface"].state_dict())
    for model in models.values():
        model.generation_config.eos_token_id = None  # so that all texts are equally long
        model.generation_config.pad_token_id = 0
    return models


def take_turns(first: Callable, second: Callable, repeats: int, device: str) -> dict:
    """Seconds of each turn of two functions; a turn before the first one warms up."""
    import torch

    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            wait(torch.device(device))
            start = time.perf_counter()
            (first, second)[which]()
            wait(torch.device(device))
            if turn:
                seconds[which].append(time.perf_counter() - start)
    return {"first": seconds[0], "second": seconds[1]}


def training(given) -> dict[str, dict]:
    import torch

    found = {}
    for name, dropout in DROPOUT.items():
        models = make_models(given.device, given.quick, dropout)
        shape = (2, 32) if given.quick else (2, 256)
        ids = torch.randint(models["scratch"].config.vocab_size, shape, device=given.device)

        def step(model, ids=ids):
            model.train()
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            model.zero_grad(set_to_none=True)

        turns = [lambda model=models[name]: step(model) for name in ("scratch", "huggingface")]
        found[f"forward + backward, {name}"] = take_turns(*turns, given.repeats, given.device)
    return found


def generation(given) -> dict[str, dict]:
    import torch

    models, new = make_models(given.device, given.quick, 0.0), 8 if given.quick else 64
    prompt = torch.randint(models["scratch"].config.vocab_size, (1, 16), device=given.device)
    texts = {}

    def write(name: str) -> None:
        texts[name] = models[name].eval().generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False
        )  # fmt: skip

    turns = [lambda name=name: write(name) for name in ("scratch", "huggingface")]
    seconds = take_turns(*turns, given.repeats, given.device)
    assert texts["scratch"].shape == (1, 16 + new) and torch.equal(*texts.values()), "not the same tokens"
    return {f"cached generation of {new} tokens": seconds}


class NoText:
    """A stand-in for a tokenizer: ids alone are of interest."""

    pad_token_id, eos_token_id = 0, -1  # an end of text that never comes

    def decode(self, ids, **kwargs) -> str:
        return ""


def batch(given) -> dict[str, dict]:
    import torch

    from gpt2_interp.generation.generate import generate
    from gpt2_interp.generation.settings import DecodingSettings
    from gpt2_interp.model.fast_layers import use_fast_layers

    models, new = make_models(given.device, given.quick, 0.0), 8 if given.quick else 24
    lengths = [4 + i % 9 for i in range(16)]
    prompts = [torch.randint(models["scratch"].config.vocab_size, (n,)).tolist() for n in lengths]
    found, decoding = {}, DecodingSettings(max_new_tokens=new).resolve()
    for name, model in models.items():
        use_fast_layers(model)  # as every model here that generates

        def write(size: int, model=model):
            results = generate(model, NoText(), prompts, decoding, batch_size=size)
            assert all(len(result.ids) == new for (result,) in results)

        turns = [lambda size=size: write(size) for size in (16, 1)]
        found[f"16 prompts, {name}"] = take_turns(*turns, given.repeats, given.device)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each (5)")
    parser.add_argument("--only", choices=PARTS, help="one of the three parts")
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.add_argument("--quick", action="store_true", help="a toy model: seconds, and numbers that say nothing")
    parser.add_argument("--out", type=Path, help="keep all figures in this JSON file")
    given = parser.parse_args()
    if given.repeats < 1:
        sys.exit("error: --repeats must be at least 1.")

    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    given.device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("error: --device cuda: there is no GPU that torch can use; give --device cpu.")
    figures: dict[str, dict] = {"machine": machine() | {"device": given.device}}
    print(f"{torch.get_num_threads()} threads, on {given.device}" + (", toy model" if given.quick else ""), flush=True)
    for part in PARTS if given.only is None else (given.only,):
        figures[part] = {"training": training, "generation": generation, "batch": batch}[part](given)
        for name, seconds in figures[part].items():
            print(line(part, name, seconds), flush=True)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def line(part: str, name: str, seconds: dict[str, list[float]]) -> str:
    """ "forward + backward, no dropout: scratch is 1.21 times as fast as Hugging Face's (1.15-1.30; bar: 1.0) ..." """
    ratios = [second / first for first, second in zip(seconds["first"], seconds["second"], strict=True)]
    first, second = (statistics.median(seconds[which]) for which in ("first", "second"))
    who, other = ("at once", "one by one") if part == "batch" else ("scratch", "Hugging Face's")
    return (
        f"{name}: {who} is {statistics.median(ratios):.2f} times as fast as {other} "
        f"({min(ratios):.2f}-{max(ratios):.2f}; bar: {BARS[part]:.1f}); {first:.3f} s against {second:.3f} s"
    )


if __name__ == "__main__":
    main()
