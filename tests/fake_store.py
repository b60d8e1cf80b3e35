"""A small run written through SnapshotStore, with planted effects, for the tests of everything that draws.

Planted: head (1, 2) loses entropy steadily and no other head changes; MLP neuron 7 of layer 0 becomes active; the
matrix h.1.mlp.c_fc moves most; hidden states drift more in deeper layers; the loss falls.

`python tests/fake_store.py ROOT` writes two runs of the quickstart's size to look at.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots import SnapshotStore, write_json

CHANGED_HEAD = (1, 2)
CHANGED_NEURON = (0, 7)
CHANGED_MATRIX = "h.1.mlp.c_fc"
STEPS = (0, 50, 100, 200, 1000)  # as text, "1000" would come before "200"
TOKENS = [
    "The",
    "mayor",
    "of",
    "Oslo",
    "opened",
    "a",
    "bridge",
    "<b>",
    "worth",
    "$",
    "3",
    "million",
    "ĠTL",
    ";DR",
    ":",
    "ĠOslo",
    "Ġgot",
    "Ġa",
    "Ġbridge",
]
KINDS = ("attn.c_attn.q", "attn.c_attn.k", "attn.c_attn.v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
GRAD_KINDS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
HOSTILE = "</script><script>alert('x')</script>"  # what a model might write; a report must show it, not run it


def write_fake_run(
    root: Path,
    run_name: str = "fake",
    steps: tuple[int, ...] = STEPS,
    n_layer: int = 3,
    n_head: int = 4,
    d_model: int = 16,
    d_mlp: int = 24,
    n_example: int = 24,
    n_cluster: int = 12,
    tuning: str = "full",
    task: str = "summarization",
    scores: bool = True,
    without_source: bool = False,
) -> SnapshotStore:
    """Write the run and return its store."""
    paths = RunPaths(run_name, root)
    store = SnapshotStore(paths)
    axes = _axes(n_layer, n_head, d_model, d_mlp, n_example)
    store.create(_run_info(axes, tuning, task, n_layer, n_head, d_model))
    store.write_probe_set(_probe_set(n_example, n_cluster))
    random = np.random.default_rng(7)
    base = _base(axes, random, n_cluster)
    for step in steps:
        store.write(step, _arrays(axes, base, step / max(*steps, 1), np.random.default_rng(step), without_source))
    for step in range(10, max(steps) + 1, 10):
        loss = 1.2 + 3 * np.exp(-step / 300) + 0.1 * random.normal()
        store.append_log(
            {"step": step, "epoch": step / 500, "loss": loss, "learning_rate": 1e-3, "grad_norm": 0.4 + loss / 3}
        )
        if step in steps:
            store.append_log({"step": step, "eval_loss": loss + 0.2, "eval_perplexity": float(np.exp(loss + 0.2))})
    if scores:
        _write_outputs(paths, task)
    return store


def _axes(n_layer: int, n_head: int, d_model: int, d_mlp: int, n_example: int) -> dict:
    grads = [f"h.{i}.{kind}" for i in range(n_layer) for kind in GRAD_KINDS]
    return {
        "example": n_example,
        "region": ["Q", "A"],
        "pooling": ["source_mean", "target_mean", "prompt_last"],
        "layer": n_layer,
        "hidden_layer": ["embedding", *(f"block {i}" for i in range(1, n_layer)), f"block {n_layer} (before ln_f)"],
        "head": n_head,
        "pattern_example": ["p0", "p1"],
        "query_pos": len(TOKENS) + 2,
        "key_pos": len(TOKENS) + 2,
        "d_model": d_model,
        "d_mlp": d_mlp,
        "matrix": ["wte", "wpe", *(f"h.{i}.{kind}" for i in range(n_layer) for kind in KINDS)],
        "grad_matrix": ["wte", "wpe", *grads, "biases and layer norms"],
    }


def _run_info(axes: dict, tuning: str, task: str, n_layer: int, n_head: int, d_model: int) -> dict:
    return {
        "created": "2025-01-01T12:00:00",
        "task": task,
        "tuning": tuning,
        "versions": {"torch": "2.13.0"},
        "git_commit": "abc123",
        "arguments": {
            "learning_rate": 1e-3 if tuning == "full" else 3e-3,
            "max_grad_norm": 1.0,
            "seed": 42,
            "run_name": HOSTILE,
        },
        "data": {
            "train": {"source": "synthetic_news", "rows": 4000},
            "validation": {"source": "synthetic_news", "rows": 200},
        },
        "model": {
            "n_layer": n_layer,
            "n_head": n_head,
            "n_embd": d_model,
            "n_positions": 256,
            "vocab_size": 2048,
            "parameters": 1500000,
            "trainable_parameters": 1500000 if tuning == "full" else 30000,
        },
        "device": "cpu",
        "axes": axes,
    }


def _probe_set(n_example: int, n_cluster: int) -> dict:
    examples = [
        {"id": f"probe-{i}", "cluster": f"event {i % n_cluster}", "n_source": 40, "n_template": 3, "n_target": 12}
        for i in range(n_example)
    ]
    n = len(TOKENS)
    patterns = [
        {"id": "p0", "tokens": TOKENS, "token_ids": list(range(n)), "n_source": n - 7, "n_template": 3, "n_target": 4},
        {
            "id": "p1",
            "tokens": [*TOKENS, ".", "!"],
            "token_ids": list(range(n + 2)),
            "n_source": n - 5,
            "n_template": 3,
            "n_target": 4,
        },
    ]
    return {"example": examples, "pattern": patterns, "notes": ["All probes are synthetic."]}


def _base(axes: dict, random: np.random.Generator, n_cluster: int) -> dict[str, np.ndarray]:
    """What does not change from step to step."""
    n, layers, heads, d_mlp = axes["example"], axes["layer"], axes["head"], axes["d_mlp"]
    centres = random.normal(size=(n_cluster, axes["d_model"]))
    cluster = np.arange(n) % n_cluster
    return {
        "entropy": 3
        + random.normal(size=(1, 1, layers, heads)) * 0.5
        + random.normal(size=(n, 2, layers, heads)) * 0.1,
        "hidden": centres[cluster] + random.normal(size=(n, axes["d_model"])),
        "direction": centres[cluster],
        "neuron": random.normal(size=(2, layers, d_mlp)) * 0.2,
        "neuron_sd": 0.5 + random.random(size=(2, layers, d_mlp)),
        "probe_loss": 4 + random.normal(size=n) * 0.3,
    }


def _arrays(
    axes: dict, base: dict, t: float, random: np.random.Generator, without_source: bool
) -> dict[str, np.ndarray]:
    """One snapshot; t runs from 0 to 1."""
    entropy = base["entropy"].copy()
    entropy[:, :, CHANGED_HEAD[0], CHANGED_HEAD[1]] -= 2 * t
    depth = np.arange(len(axes["hidden_layer"]))[:, None] / len(axes["hidden_layer"])  # [hidden_layer, 1]
    hidden = (
        base["hidden"][:, None] * (1 + depth) + t * depth * 1.5 * base["direction"][:, None]
    )  # [example, hidden_layer, d]
    pooled = np.stack([hidden, hidden * 1.1, hidden * 0.9], axis=1)
    if without_source:
        pooled[:, 0] = np.nan
    neuron = base["neuron"].copy()
    neuron[:, CHANGED_NEURON[0], CHANGED_NEURON[1]] += 3 * t
    names = axes["matrix"]
    change = np.array([t * (0.3 if name == CHANGED_MATRIX else 0.02 + 0.05 * ("mlp" in name)) for name in names])
    squares = random.random(len(axes["grad_matrix"]))
    shares = np.sqrt(squares / squares.sum()) if t else np.full(len(squares), np.nan)
    return {
        "attn_entropy": entropy,
        "attn_gini": 1 - entropy / 6,
        "attn_distance_ns": entropy / 4,
        "attn_sink": 0.6 - entropy / 10,
        "attn_pattern": _patterns(axes, t),
        "hidden_pooled": pooled,
        "probe_loss": base["probe_loss"] * (1 - 0.5 * t),
        "grad_norm_total": np.array(1.0 if t else np.nan),
        "grad_share": shares,
        "weight_change": change * 10,
        "weight_change_relative": change,
        "weight_change_rms": change / 100,
        "neuron_mean": neuron,
        "neuron_sd": base["neuron_sd"],
        "neuron_max": neuron + 2,
        "neuron_max_token": np.zeros(neuron.shape),
        "neuron_active": np.full(neuron.shape, 0.3),
    }


def _patterns(axes: dict, t: float) -> np.ndarray:
    """[pattern_example, layer, head, query, key]; the planted head moves from uniform to its own position."""
    size, n_head = axes["query_pos"], axes["head"]
    result = np.full((2, axes["layer"], n_head, size, size), np.nan, dtype=np.float32)
    for p, length in enumerate((len(TOKENS), len(TOKENS) + 2)):
        lower = np.tril(np.ones((length, length)))
        uniform = lower / lower.sum(axis=1, keepdims=True)
        for layer in range(axes["layer"]):
            for head in range(n_head):
                near = lower * np.exp(
                    -np.abs(np.subtract.outer(np.arange(length), np.arange(length))) / (1 + head + layer)
                )
                near /= near.sum(axis=1, keepdims=True)
                moved = (1 - t) * uniform + t * np.eye(length)
                result[p, layer, head, :length, :length] = moved if (layer, head) == CHANGED_HEAD else near
    return result


def _write_outputs(paths: RunPaths, task: str) -> None:
    folder = paths.model_outputs
    folder.mkdir(parents=True, exist_ok=True)
    scores = {}
    for who, level in (("base", 12.0), ("tuned", 40.0), ("lead3", 25.0)):
        names = ("rouge1", "rouge2", "rougeL", "rougeLsum") if task == "summarization" else ()
        entry = {"n": 100}
        for i, name in enumerate(names):
            entry |= {name: level - i, f"{name}_low": level - i - 2, f"{name}_high": level - i + 2}
        if names:
            entry |= {"fact_recall": level + 9, "fact_recall_low": level + 4, "fact_recall_high": level + 13}
        if who != "lead3":
            entry |= {"loss": 60 / level, "perplexity": float(np.exp(60 / level))}
            if task == "creative_writing":
                entry |= {"perplexity_shuffled_prompt": float(np.exp(60 / level)) * 1.3}
        if not (who == "lead3" and task == "creative_writing"):
            scores[who] = entry
    write_json(folder / "metrics.json", {**scores, "notes": ["Scored on 100 rows."], "unknown": 3})
    prediction = {
        "id": "t0",
        "source": "Long text. " * 40,
        "reference": "A bridge.",
        "base": "the the",
        "tuned": HOSTILE,
        "lead3": "Long.",
        "facts": [{"slot": "who", "value": "Ada Bo", "base": False, "tuned": True, "lead3": False}],
    }
    sample = {"step": 50, "id": "s0", "prompt": "A prompt", "reference": "A story", "generated": f"Once {HOSTILE}"}
    (folder / "predictions.jsonl").write_text(json.dumps(prediction) + "\n", encoding="utf-8")
    (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n", encoding="utf-8")


if __name__ == "__main__":
    size = {"n_layer": 6, "n_head": 4, "d_model": 128, "d_mlp": 512, "n_example": 256}
    at = (0, 50, 100, 200, 350, 500, 700)
    write_fake_run(Path(sys.argv[1]), "quickstart", at, **size)
    write_fake_run(Path(sys.argv[1]), "quickstart_lora", at, tuning="lora", **size)
