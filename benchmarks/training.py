#!/usr/bin/env python
"""Speed and memory of training here, compared with the usual recipe and with a good one. Prints ratios.

    python benchmarks/training.py                 GPT-2 124M on real CNN/DailyMail rows; 10 to 20 minutes on 2 cores
    python benchmarks/training.py --repeats 1 --recipes usual ours
    python benchmarks/training.py --out benchmarks/results/my_machine.json

Recipes take turns, each turn in a process of its own: an optimizer step to warm up, one or more that are timed. Rows
are the same, 16 examples a step. Medians over turns. The weights are random, which does not change what is computed.

usual     Hugging Face's Trainer, rows padded to 512, float32, dropout 0.1 everywhere, loss on every position, batch 2
good      the same with bf16 autocast, padding to the longest of the batch, no attention dropout
ours      packed, loss on targets, no attention dropout, precision measured, batch for the memory at hand
...       with changes that their names tell; "dropout" is attention dropout 0.1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"
from common import DATA, machine, refuse_without, wait

LENGTH, SOURCE, TARGET = 512, 448, 64
EFFECTIVE = 16
RECIPES = {
    "usual": {"recipe": "usual", "attn_pdrop": 0.1},
    "usual, no dropout": {"recipe": "usual", "attn_pdrop": 0.0},
    "good": {"recipe": "good", "attn_pdrop": 0.0},
    "ours": {"recipe": "ours", "attn_pdrop": 0.0},
    "ours, batch 2": {"recipe": "ours", "attn_pdrop": 0.0, "batch": 2},
    "ours, fp32": {"recipe": "ours", "attn_pdrop": 0.0, "precision": "fp32"},
    "ours, dropout": {"recipe": "ours", "attn_pdrop": 0.1},
    "ours, LoRA": {"recipe": "ours", "attn_pdrop": 0.0, "tuning": "lora"},
}
BAR_FP32 = 1.6  # against the usual recipe, where nothing lower than fp32 is faster
# (what is measured, against what, the project's bar or None)
RATIOS = (
    ("ours", "usual", 3.0),
    ("ours, batch 2", "usual", 3.0),
    ("ours, fp32", "usual", BAR_FP32),
    ("ours, dropout", "usual", None),
    ("ours", "usual, no dropout", None),
    ("ours", "good", 1.3),
    ("ours, batch 2", "good", 1.3),
)


# --- one turn, in a process of its own ---------------------------------------------------------------------------


def turn(settings: dict, data: Path, steps: int, count_flops: bool) -> dict:
    """Train `steps` optimizer steps after one that warms up: {"seconds" of each, "examples", "peak_bytes", ...}."""
    import torch
    import transformers
    from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback, TrainingArguments

    from gpt2_interp.model.precision import choose_precision, set_precision
    from gpt2_interp.model.tokenizers import load_tokenizer
    from gpt2_interp.training.memory import peak_bytes

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = GPT2Config(attn_pdrop=settings["attn_pdrop"])
    model = GPT2LMHeadModel(config)
    tokenizer = load_tokenizer(str(data / "gpt2_tokenizer"))
    examples = real_examples(data, tokenizer, EFFECTIVE)  # the same in each step
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            wait(args.device)
            self.start = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            wait(args.device)
            seconds.append(time.perf_counter() - self.start)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=1 + steps, per_device_train_batch_size=2, gradient_accumulation_steps=EFFECTIVE // 2,
            save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no", remove_unused_columns=False,
            train_sampling_strategy="sequential", dataloader_pin_memory=False,
        )  # fmt: skip
        wanted = {"usual": "fp32", "good": "bf16"}.get(settings["recipe"], settings.get("precision", "auto"))
        precision = choose_precision(wanted, config, arguments.device)
        set_precision(arguments, precision)
        make = ours if settings["recipe"] == "ours" else theirs
        trainer = make(settings, model, arguments, examples, tokenizer, Clock())
        trainer.train()
        peak = peak_bytes(arguments.device)
        flops = step_flops(trainer) if count_flops else None
    return {
        "seconds": seconds[1:],
        "examples": EFFECTIVE,
        "tokens": sum(len(example.input_ids) for example in examples),
        "batch": arguments.per_device_train_batch_size,
        "precision": precision.name,
        "peak_bytes": peak,
        "flops": flops,
        "matmul_rate": matmul_rate(arguments.device, precision.dtype),
    }


def real_examples(data: Path, tokenizer, count: int):
    from gpt2_interp.data.examples import ExampleBuilder

    with open(data / "cnn_dailymail" / "train.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file][:count]
    rows = [{"id": str(i), "source": r["article"], "target": r["highlights"]} for i, r in enumerate(records)]
    assert len(rows) == count, f"{count} rows wanted, {len(rows)} there: fewer --steps"
    return ExampleBuilder(tokenizer, "summarization", SOURCE, TARGET, 1024).build(rows)[0]


def ours(settings, model, arguments, examples, tokenizer, clock):
    from gpt2_interp.cli.training_flags import ExperimentArguments
    from gpt2_interp.model.fast_layers import use_fast_layers
    from gpt2_interp.model.load import add_lora
    from gpt2_interp.model.settings import ModelArguments
    from gpt2_interp.training.memory import settle_batch
    from gpt2_interp.training.trainer import SupervisedTrainer

    use_fast_layers(model)
    if settings.get("tuning") == "lora":
        model = add_lora(model, ModelArguments(), 0)
    if "batch" not in settings:  # else 2, as `turn` has it
        arguments.per_device_train_batch_size = arguments.gradient_accumulation_steps = None
    settle_batch(ExperimentArguments(effective_batch_size=EFFECTIVE), arguments, model, examples)
    return SupervisedTrainer(
        model=model, args=arguments, train_examples=examples, eval_examples=examples[:1], processing_class=tokenizer,
        callbacks=[clock],
    )  # fmt: skip


def theirs(settings, model, arguments, examples, tokenizer, clock):
    """Hugging Face's own Trainer, loss and collation; good: padded to the longest of the batch only."""
    import torch
    from transformers import Trainer

    longest = None if settings["recipe"] == "good" else LENGTH

    def collate(rows: list[list[int]]) -> dict[str, torch.Tensor]:
        width = longest or max(map(len, rows))
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    rows = [list(example.input_ids)[:LENGTH] for example in examples]
    return Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[clock])


def step_flops(trainer) -> int:
    """Floating point operations of the matrix products of one optimizer step, as executed. Counting takes memory."""
    from torch.utils.flop_counter import FlopCounterMode

    batches = list(trainer.get_train_dataloader())
    tokens = trainer._get_num_items_in_batch(batches, trainer.args.device)
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            trainer.training_step(trainer.model_wrapped, batch, tokens)
    return counter.get_total_flops()


def matmul_rate(device, dtype) -> float:
    """Best rate (operations/s) of matrix products of the sizes of an MLP block, in this precision."""
    import torch

    x = torch.randn(2048, 768, device=device, dtype=dtype)
    w = torch.randn(768, 3072, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        wait(x.device)
        start, products = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < 0.3:  # long enough to heat up as training does
            for _ in range(4):
                x @ w
            wait(x.device)
            products += 4
        best = max(best, products * 2 * 2048 * 768 * 3072 / seconds)
    return best


# --- generation, in one process ----------------------------------------------------------------------------------


def generation(data: Path, repeats: int) -> dict:
    """Seconds to generate 64 tokens for each of 16 real prompts of 448 tokens, together and one by one."""
    import torch
    import transformers
    from transformers import GPT2Config, GPT2LMHeadModel

    from gpt2_interp.generation.generate import generate
    from gpt2_interp.generation.settings import DecodingSettings
    from gpt2_interp.model.fast_layers import use_fast_layers
    from gpt2_interp.model.precision import Precision
    from gpt2_interp.model.tokenizers import load_tokenizer

    transformers.logging.set_verbosity_error()
    tokenizer = load_tokenizer(str(data / "gpt2_tokenizer"))
    prompts = [example.prompt_ids for example in real_examples(data, tokenizer, 64)]
    prompts = [prompt for prompt in prompts if len(prompt) >= SOURCE][:16]
    assert len(prompts) == 16
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = GPT2LMHeadModel(GPT2Config()).to(device)
    use_fast_layers(model)
    model.generation_config.suppress_tokens = [tokenizer.eos_token_id]  # all of them 64 tokens long
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name in ("bf16", "fp32"):
            for batch_size in (16, 1):
                start = time.perf_counter()
                generate(
                    model, tokenizer, prompts, DecodingSettings(max_new_tokens=TARGET).resolve(), batch_size=batch_size,
                    context=lambda name=name: Precision(name, "").autocast(device),
                )  # fmt: skip
                seconds.setdefault(f"{name}, batch {batch_size}", []).append(time.perf_counter() - start)
    return seconds


# --- all turns ---------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with cnn_dailymail/, gpt2_tokenizer/")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each recipe")
    parser.add_argument("--steps", type=int, default=1, help="timed optimizer steps of a turn")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--no_generation", action="store_true", help="training only")
    parser.add_argument("--out", type=Path, help="keep all figures in this JSON file")
    parser.add_argument("--count_flops", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--turn", choices=[*RECIPES, "generation"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    refuse_without(given.data, "cnn_dailymail/train.jsonl", "gpt2_tokenizer/merges.txt")
    if given.turn:
        is_generation = given.turn == "generation"
        print(json.dumps(generation(given.data, given.repeats) if is_generation
                         else turn(RECIPES[given.turn], given.data, given.steps, given.count_flops)))  # fmt: skip
        return
    turns: dict[str, list[dict]] = {name: [] for name in given.recipes}
    for repeat in range(given.repeats):
        for name in given.recipes:
            turns[name].append(in_a_process(given, name, *(["--count_flops"] if repeat == 0 else [])))
            latest = turns[name][-1]
            print(f"{repeat + 1}/{given.repeats} {name:18} {rate(latest):6.3f} examples/s", file=sys.stderr, flush=True)
    figures = {"machine": machine(), "training": {name: summary(results) for name, results in turns.items()}}
    show_training(figures["training"])
    if not given.no_generation:
        figures["generation"] = in_a_process(given, "generation")
        show_generation(figures["generation"])
    if given.out:
        given.out.write_text(json.dumps({**figures, "turns": turns}, indent=1) + "\n", encoding="utf-8")


def in_a_process(given, name: str, *flags: str) -> dict:
    command = [sys.executable, __file__, "--data", str(given.data), "--steps", str(given.steps), "--turn", name,
               "--repeats", str(given.repeats), *flags]  # fmt: skip
    # The same allocator for all, as run_experiment.sh sets it.
    allocator = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
    result = subprocess.run(command, capture_output=True, text=True, env={**allocator, **os.environ}, check=False)
    if result.returncode:
        sys.exit(f"error: {name} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def rate(result: dict) -> float:
    return result["examples"] * len(result["seconds"]) / sum(result["seconds"])


def summary(results: list[dict]) -> dict:
    """Medians over turns."""
    rates = [rate(result) for result in results]
    speed = statistics.median(rates)
    best_matmul = max(result["matmul_rate"] for result in results)
    first = results[0]
    return {
        "examples_per_second": speed,
        "range": [min(rates), max(rates)],
        "tokens_per_second": speed * first["tokens"] / first["examples"],
        "batch": first["batch"],
        "precision": first["precision"],
        "peak_gb": statistics.median(result["peak_bytes"] for result in results) / 1e9,
        "utilisation": speed / first["examples"] * first["flops"] / best_matmul,
        "matmul_gflops": best_matmul / 1e9,
    }


def show_training(summaries: dict[str, dict]) -> None:
    print(f"\n{'recipe':20}{'batch':>9}  {'examples/s (range)':26}{'tokens/s':>8}{'peak GB':>9}  matmul use")
    for name, s in summaries.items():
        speed = f"{s['examples_per_second']:.3f} ({s['range'][0]:.3f}-{s['range'][1]:.3f})"
        print(
            f"{name:20}{s['batch']:>4} {s['precision']}  {speed:26}{s['tokens_per_second']:>8.0f}{s['peak_gb']:>9.2f}"
            f"  {s['utilisation']:.0%} of {s['matmul_gflops']:.0f} GFLOP/s"
        )
    print()
    for name, against, bar in RATIOS:
        if name in summaries and against in summaries:
            a, b = summaries[name], summaries[against]
            if bar and a["precision"] == "fp32":
                bar = BAR_FP32 if against == "usual" else None
            print(
                f"{name} / {against}: {a['examples_per_second'] / b['examples_per_second']:.2f} times the examples/s"
                f"{f' (bar: {bar})' if bar else ''}, {a['peak_gb'] / b['peak_gb']:.2f} of the memory"
            )


def show_generation(seconds: dict[str, list[float]]) -> None:
    for name, bar in (("bf16", 2.5), ("fp32", 1.4)):
        together, single = (statistics.median(seconds[f"{name}, batch {size}"]) for size in (16, 1))
        print(
            f"generation, {name}: batch 16 takes {together:.1f} s, one by one {single:.1f} s: "
            f"{single / together:.2f} times as fast (bar: {bar})"
        )


if __name__ == "__main__":
    main()
