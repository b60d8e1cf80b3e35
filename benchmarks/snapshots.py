#!/usr/bin/env python
"""The cost of snapshots: beside training at the cnn_dailymail preset's cadence, and beside the usual way to take them.

    python benchmarks/snapshots.py                 GPT-2 124M on real CNN/DailyMail rows; about 20 minutes on 2 cores
    python benchmarks/snapshots.py --only usual    the comparison alone

cost    seconds of a snapshot of 256 probes by group, bytes, and peak memory beside that of training alone. Ablation,
        graft and band are timed on a few probes and scaled by the tokens that they read; training is extrapolated from
        timed optimizer steps. The output names both.
usual   the same numbers of 3 texts with patterns and 30 rows, once the usual way (one text at a time in float32 with
        output_attentions, JSON) and once ours, taking turns.

Each turn is a process of its own. The weights are random, which does not change what is computed.
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
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"
from common import DATA, machine, refuse_without

PRESET_ROWS, PRESET_EPOCHS, PRESET_BATCH, PRESET_SNAPSHOTS = 287_113, 3, 16, 25  # configs/cnn_dailymail.yaml
PROBES, CONTROL = 256, 64
FEW_TIMED = 4  # probes on which the expensive groups are timed
TEXTS, ROWS = 3, 30  # of the usual way
BARS = {"share": 0.03, "bytes": 25e6, "memory": 1e9, "usual": 2.0}


# --- what both turns need ----------------------------------------------------------------------------------------


def gpt2_and_tokenizer(data: Path):
    import torch
    import transformers
    from transformers import GPT2Config, GPT2LMHeadModel

    from gpt2_interp.model.fast_layers import use_fast_layers
    from gpt2_interp.model.tokenizers import load_tokenizer

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(attn_pdrop=0.0))
    use_fast_layers(model)
    return model, load_tokenizer(str(data / "gpt2_tokenizer"))


def real_examples(data: Path, tokenizer, split: str, count: int):
    from gpt2_interp.data.examples import ExampleBuilder

    with open(data / "cnn_dailymail" / f"{split}.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file][:count]
    rows = [{"id": str(i), "source": r["article"], "target": r["highlights"]} for i, r in enumerate(records)]
    return ExampleBuilder(tokenizer, "summarization", 448, 64, 1024).build(rows)[0]


def general_examples(data: Path, tokenizer, count: int):
    """Plain text, as the control wants it."""
    from gpt2_interp.data.examples import ExampleBuilder

    with open(data / "webtext" / "train.jsonl", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in list(file)[: 4 * count]]
    rows = [{"id": str(i), "source": "", "target": text} for i, text in enumerate(texts)]
    return ExampleBuilder(tokenizer, "creative_writing", 448, 64, 1024).build(rows)[0]


def real_probes(data: Path, model, tokenizer):
    from gpt2_interp.probes.choose import affordable_entries, choose_probes

    config = model.config
    return choose_probes(
        real_examples(data, tokenizer, "validation", 500),
        PROBES,
        pattern_entries=affordable_entries(config.n_layer, config.n_head),
        training=real_examples(data, tokenizer, "train", 392),
        control=general_examples(data, tokenizer, CONTROL),
        n_positions=config.n_positions,
        bos_id=tokenizer.bos_token_id,
    )


# --- cost --------------------------------------------------------------------------------------------------------


def train_steps(data: Path, model, tokenizer, steps: int, folder: str) -> tuple[list[float], object]:
    """Return (seconds of each timed optimizer step of the preset's batch, the Trainer)."""
    from transformers import TrainerCallback, TrainingArguments

    from gpt2_interp.model.precision import choose_precision, set_precision
    from gpt2_interp.training.trainer import SupervisedTrainer

    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.start = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            seconds.append(time.perf_counter() - self.start)

    arguments = TrainingArguments(
        folder, max_steps=1 + steps, per_device_train_batch_size=2, gradient_accumulation_steps=PRESET_BATCH // 2,
        save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no", remove_unused_columns=False,
        train_sampling_strategy="sequential", dataloader_pin_memory=False,
    )  # fmt: skip
    set_precision(arguments, choose_precision("auto", model.config, arguments.device))
    examples = real_examples(data, tokenizer, "train", PRESET_BATCH * (1 + steps))
    trainer = SupervisedTrainer(
        model=model, args=arguments, train_examples=examples, eval_examples=examples[:1], processing_class=tokenizer,
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return seconds[1:], trainer


def training_alone(data: Path, steps: int) -> dict:
    from gpt2_interp.training.memory import peak_bytes

    model, tokenizer = gpt2_and_tokenizer(data)
    with tempfile.TemporaryDirectory() as folder:
        seconds, trainer = train_steps(data, model, tokenizer, steps, folder)
    return {"step_seconds": seconds, "peak_bytes": peak_bytes(trainer.args.device)}


def snapshot_cost(data: Path, steps: int) -> dict:
    """Train a little, then take a light snapshot, the spectra, and the expensive groups on a few probes."""
    from gpt2_interp.model.anatomy import model_sizes
    from gpt2_interp.model.base_weights import BaseWeights
    from gpt2_interp.recording.plan import EXPENSIVE, array_bytes, expensive_tokens, wanted_names
    from gpt2_interp.recording.recorder import axis_labels
    from gpt2_interp.snapshots.table import GROUPS
    from gpt2_interp.training.memory import peak_bytes

    model, tokenizer = gpt2_and_tokenizer(data)
    base, probes = BaseWeights(model), real_probes(data, model, tokenizer)
    reference_names = {"hidden_pooled_0", "control_hidden_pooled_0", "attn_logprob_0"}
    light = wanted_names(GROUPS, {"light"})
    reference, _ = timed_capture(model, probes, reference_names | {"hidden_pooled"}, base, None)
    previous = reference.pop("hidden_pooled")
    with tempfile.TemporaryDirectory() as folder:
        seconds, trainer = train_steps(data, model, tokenizer, steps, folder)
        started = time.perf_counter()
        arrays, by_group = timed_capture(model, probes, light, base, reference, previous)
        light_seconds = time.perf_counter() - started
        arrays, of_spectra = timed_capture(model, probes, wanted_names(["spectra"], {"heavy"}), base, reference)
        few = few_of(probes, reference)
        sizes, costs = model_sizes(model), {}
        for group in EXPENSIVE:
            names = wanted_names([group], {"ends", "final"})
            started = time.perf_counter()
            timed_capture(model, few[0], names, base, few[1])
            scale = expensive_tokens(group, probes, sizes) / expensive_tokens(group, few[0], sizes)
            costs[group] = (time.perf_counter() - started) * scale
    return {
        "step_seconds": seconds,
        "peak_bytes": peak_bytes(trainer.args.device),
        "light_seconds": light_seconds,
        "by_group": by_group,
        "spectra_seconds": of_spectra["spectra"],
        "expensive_seconds": {**costs, "ablation": costs["ablation"] / 2},  # which counts two
        "bytes": {
            "light": array_bytes(light, axis_labels(model, probes)),
            "last": array_bytes(wanted_names(GROUPS, {"light", "heavy", "ends", "final"}), axis_labels(model, probes)),
        },
    }


def timed_capture(model, probes, names, base, reference, previous=None):
    from gpt2_interp.inside.observation import Stopwatch
    from gpt2_interp.recording.capture import capture

    watch = Stopwatch(next(model.parameters()).device)
    arrays = capture(model, probes, names, base=base, reference=reference, previous=previous, watch=watch)
    return arrays, watch.seconds


def few_of(probes, reference):
    """A probe set of FEW_TIMED examples, spread over the lengths, with what of the reference belongs to them."""
    import numpy as np

    from gpt2_interp.probes.probe_set import evenly

    chosen = evenly(range(len(probes.examples)), FEW_TIMED)
    few = replace(
        probes,
        examples=tuple(probes.examples[i] for i in chosen),
        others=tuple(probes.others[i] for i in chosen),
        sequences=probes.sequences[:FEW_TIMED],
    )
    shape = reference["attn_logprob_0"].shape[1:]
    return few, {
        "hidden_pooled_0": reference["hidden_pooled_0"][chosen],
        "attn_logprob_0": np.zeros((len(few.kl), *shape), np.float32),
    }


# --- the usual way -----------------------------------------------------------------------------------------------

SAME_CONTENT = (
    "attn_entropy", "attn_gini", "attn_distance_ns", "attn_sink", "attn_pattern", "hidden_pooled", "probe_loss",
    "neuron_mean", "neuron_sd", "neuron_max", "neuron_max_token", "neuron_active", "weight_change",
)  # fmt: skip


def equal_content(data: Path, repeats: int) -> dict:
    """Seconds of a snapshot of TEXTS + ROWS texts the usual way and ours, in turns."""
    import numpy as np
    from transformers import GPT2LMHeadModel

    from gpt2_interp.model.base_weights import BaseWeights
    from gpt2_interp.probes.choose import choose_probes
    from gpt2_interp.recording.recorder import axis_labels
    from gpt2_interp.run_paths import RunPaths
    from gpt2_interp.snapshots.store import SnapshotStore

    model, tokenizer = gpt2_and_tokenizer(data)
    examples = real_examples(data, tokenizer, "validation", 500)
    probes = choose_probes(examples, TEXTS + ROWS, pattern_count=TEXTS)
    base = BaseWeights(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stock = GPT2LMHeadModel(model.config)  # without our layers
    stock.load_state_dict(model.state_dict())
    seconds: dict[str, list[float]] = {"usual": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        store = SnapshotStore(RunPaths("benchmark", Path(folder)))
        store.create({"axes": axis_labels(model, probes)})
        for repeat in range(repeats + 1):  # the first one warms up
            started = time.perf_counter()
            found = usual_snapshot(stock, probes, before)
            (Path(folder) / "usual.json").write_text(json.dumps(found))
            middle = time.perf_counter()
            arrays, _ = timed_capture(model, probes, SAME_CONTENT, base, {})
            store.write(repeat, arrays)
            seconds["usual"].append(middle - started)
            seconds["ours"].append(time.perf_counter() - middle)
        theirs = np.array([text["entropy"] for text in found["texts"]])  # [example, layer, head]
        np.testing.assert_allclose(theirs, arrays["attn_entropy"][:, 0], atol=1e-3)  # the same numbers
    return {name: values[1:] for name, values in seconds.items()}


def usual_snapshot(model, probes, before) -> dict:
    """Measure as a notebook would: one text at a time, whole attention maps, lists for JSON."""
    import torch

    implementation = model.config._attn_implementation
    model.eval()
    model.set_attn_implementation("eager")
    neurons: list[torch.Tensor] = []
    handles = [
        block.mlp.c_proj.register_forward_pre_hook(lambda module, args: neurons.append(args[0][0]))
        for block in model.transformer.h
    ]
    texts = []
    with torch.no_grad():
        for example in probes.examples:
            neurons.clear()
            texts.append(usual_text(model, example, neurons))
        patterns = [
            [a[0].tolist() for a in model(torch.tensor([e.input_ids]), output_attentions=True).attentions]
            for e in probes.pattern_examples
        ]
        change = {name: (p - before[name]).norm().item() for name, p in model.named_parameters()}
    for handle in handles:
        handle.remove()
    model.set_attn_implementation(implementation)
    return {"texts": texts, "patterns": patterns, "weight_change": change}


def usual_text(model, example, neurons) -> dict:
    import torch

    ids = torch.tensor([example.input_ids])
    out = model(ids, labels=torch.tensor([example.labels]), output_attentions=True, output_hidden_states=True)
    n, n_source, n_prompt = len(example.input_ids), len(example.source_ids), len(example.prompt_ids)
    queries = slice(n_prompt - 1, n - 1)
    a = torch.stack(out.attentions)[:, 0, :, queries]  # [layer, head, query, key]
    position, key = torch.arange(n_prompt - 1, n - 1), torch.arange(n)
    rest = a[..., 1:] / a[..., 1:].sum(-1, keepdim=True)
    distance = (rest * (position[:, None] - key[None, 1:])).sum(-1) / ((position - 1) / 2)
    m = position + 1
    gini = (1 - 2 * (a.sort(-1).values * (n - key - 0.5)).sum(-1) / m) * m / (m - 1)
    hidden = torch.stack(out.hidden_states)[:, 0]  # [hidden_layer, seq, d_model]
    activity = torch.stack(neurons)[:, queries]  # [layer, query, d_mlp]
    return {
        "loss": out.loss.item(),
        "entropy": (-(a * a.clamp_min(1e-30).log2()).sum(-1)).mean(-1).tolist(),
        "gini": gini.mean(-1).tolist(),
        "distance": distance.mean(-1).tolist(),
        "sink": a[..., 0].mean(-1).tolist(),
        "hidden": [
            hidden[:, part].mean(1).tolist() for part in (slice(1, n_source), queries, slice(n_prompt - 1, n_prompt))
        ],
        "neuron_mean": activity.mean(1).tolist(),
        "neuron_sd": activity.std(1).tolist(),
        "neuron_max": activity.amax(1).tolist(),
        "neuron_max_token": ids[0, queries][activity.argmax(1)].tolist(),
        "neuron_active": (activity > 0).float().mean(1).tolist(),
    }


# --- all turns ---------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with cnn_dailymail/, webtext/, ...")
    parser.add_argument("--steps", type=int, default=3, help="timed optimizer steps")
    parser.add_argument("--repeats", type=int, default=3, help="turns of the comparison with the usual way")
    parser.add_argument("--only", choices=["cost", "usual"], help="one of the two parts")
    parser.add_argument("--out", type=Path, help="keep all figures in this JSON file")
    parser.add_argument("--turn", choices=["training", "cost", "usual"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    refuse_without(given.data, "cnn_dailymail/train.jsonl", "gpt2_tokenizer/merges.txt", "webtext/train.jsonl")
    if given.turn:
        turns = {"training": training_alone, "cost": snapshot_cost}
        found = (
            equal_content(given.data, given.repeats)
            if given.turn == "usual"
            else turns[given.turn](given.data, given.steps)
        )
        print(json.dumps(found))
        return
    figures = {"machine": machine()}
    if given.only != "usual":
        figures |= {"training": in_a_process(given, "training"), "cost": in_a_process(given, "cost")}
        show_cost(figures["training"], figures["cost"])
    if given.only != "cost":
        figures["usual"] = in_a_process(given, "usual")
        show_usual(figures["usual"])
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def in_a_process(given, turn: str) -> dict:
    command = [sys.executable, __file__, "--data", str(given.data), "--steps", str(given.steps), "--repeats",
               str(given.repeats), "--turn", turn]  # fmt: skip
    allocator = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "4294967296"}  # as run_experiment.sh
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**allocator, **os.environ}, check=False)
    if result.returncode:
        sys.exit(f"error: {turn} failed")
    return json.loads(result.stdout.splitlines()[-1])


def show_cost(training: dict, cost: dict) -> None:
    step = statistics.median(training["step_seconds"] + cost["step_seconds"])
    steps = PRESET_ROWS * PRESET_EPOCHS / PRESET_BATCH
    n, costs = PRESET_SNAPSHOTS + 1, cost["expensive_seconds"]
    parts = {
        f"{n} light snapshots": n * cost["light_seconds"],
        "5 times the spectra": 5 * cost["spectra_seconds"],
        "2 exact ablations": 2 * costs["ablation"],
        "graft": costs["graft"],
        "band": costs["band"],
    }
    total, whole = sum(parts.values()), steps * step
    print(f"\na light snapshot of {PROBES} probes: {cost['light_seconds']:.0f} s, of it")
    for name, seconds in sorted(cost["by_group"].items(), key=lambda item: -item[1]):
        print(f"  {name:16} {seconds:7.1f} s")
    print(
        f"\ntraining: {step:.1f} s a step, timed; the preset's {steps:,.0f} steps are {whole / 3600:.0f} h, "
        f"extrapolated"
    )
    for name, seconds in parts.items():
        print(f"  {name:20} {seconds:8.0f} s  {seconds / whole:.2%} of training")
    print(f"  (ablation, graft, band: timed on {FEW_TIMED} probes, scaled by the tokens they read)")
    print(f"snapshots in all: {total / whole:.2%} of training (bar: {BARS['share']:.0%})")
    for which, size in cost["bytes"].items():
        print(f"bytes, {which}: {size / 1e6:.1f} MB (bar: {BARS['bytes'] / 1e6:.0f})")
    extra = cost["peak_bytes"] - training["peak_bytes"]
    print(
        f"extra memory: {extra / 1e9:+.2f} GB beside {training['peak_bytes'] / 1e9:.2f} "
        f"(bar: {BARS['memory'] / 1e9:.0f})"
    )


def show_usual(seconds: dict[str, list[float]]) -> None:
    ratios = [a / b for a, b in zip(seconds["usual"], seconds["ours"], strict=True)]
    usual, ours = (statistics.median(seconds[name]) for name in ("usual", "ours"))
    print(
        f"\n{TEXTS} texts with patterns + {ROWS} rows: the usual way {usual:.1f} s, ours {ours:.1f} s: "
        f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f}-{max(ratios):.2f}; bar: {BARS['usual']:.0f})"
    )


if __name__ == "__main__":
    main()
