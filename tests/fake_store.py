"""A small run written through SnapshotStore, with planted effects, for the tests of everything that draws.

Planted: head (1, 2) loses entropy steadily, looks more at the source and writes more; head (0, 1) gives up the first
token, on general text as much; no other head changes by more than noise. MLP neuron 7 of layer 0 becomes active (and
fires at `HOSTILE`); the matrix h.1.mlp.c_fc moves most, in 2 directions, and has 3 intruders; hidden states drift more
in deeper layers, on general text a quarter as far; the loss falls; twins go from 1/4 to 3/4 right; block h.1.attn
carries most of what was learned.

`python -m tests.fake_store ROOT` writes two runs of the quickstart's size to look at.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_interp.analysis.claims import write_claims
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.files import write_json
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.patterns import fold_patterns
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import (
    FEWEST_PERTURBATIONS,
    HALVES,
    MEASURE,
    N_INTRUDER,
    N_SINGULAR,
    POOLINGS,
    REFERENCE,
    REFERENCES,
    REGIONS,
    RESTORED,
    SPREAD,
    STORED,
    Measure,
)

CHANGED_HEAD = (1, 2)
STYLE_HEAD = (0, 1)  # changes on general text as well
CHANGED_NEURON = (0, 7)
CHANGED_MATRIX = "h.1.mlp.c_fc"
CARRYING_BLOCK = "h.1.attn"
STEPS = (0, 50, 100, 200, 1000)  # as text, "1000" would come before "200"
TIERS = ("light", "heavy", "ends", "final")
TOKENS = ["The", "mayor", "of", "Oslo", "opened", "a", "bridge", "<b>", "worth", "$", "3", "million"]
TOKENS += ["ĠTL", ";DR", ":", "ĠOslo", "Ġgot", "Ġa", "Ġbridge"]
KINDS = ("attn.c_attn.q", "attn.c_attn.k", "attn.c_attn.v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
TOKEN_KINDS = ["all", "value_first", "value_rest", "copied", "template"]
KIND_FACTORS = [1.0, 2.5, 1.5, 1.0, 2 / 3]  # what belongs to a kind is this many times what belongs to all tokens
KIND_TOKENS = [range(12), [0], [1], range(2, 6), range(6, 12)]  # places in the target
GRAD_KINDS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
HOSTILE = "</script><script>alert('x')</script>"  # what a model might write; a report must show it, not run it
NOISE = 0.01
N_SAMPLES = 16

# Change of the planted head by the last step; what is not named keeps still.
HEAD_EFFECTS = {
    "attn_entropy": -2.0,
    "attn_entropy_norm": -0.3,
    "attn_entropy_norm_ns": -0.3,
    "attn_gini": 0.33,
    "attn_distance_ns": -0.5,
    "attn_source": 0.3,
    "attn_source_ns": 0.35,
    "attn_gold_lift": 3.0,
    "attn_gold_sentence_lift": 2.0,
    "attn_source_normw": 0.3,
    "head_write": 0.2,
    "attn_kl0": 1.5,
    "induction": 0.25,
    "ablation_exact": 0.4,
    "ablation_approx": 0.3,
}
STYLE_EFFECTS = {"attn_sink": -0.2, "control_attn_sink": -0.2}
EFFECTS = {
    "probe_loss": -2.0,
    "training_probe_loss": -2.3,
    "control_probe_loss": 0.3,
    "context_gain": 0.8,
    "context_gain_copied": 1.4,
    "context_gain_new": 0.2,
    "twin_effect": 3.0,
    "lens_logprob": 2.0,
    "lens_base_logprob": 1.0,
    "lens_kl": -1.0,
}
LEVELS = {
    "attn_entropy": 3.0,
    "attn_sink": 0.6,
    "probe_loss": 4.0,
    "training_probe_loss": 4.0,
    "control_probe_loss": 3.5,
    "lens_logprob": -6.0,
    "lens_base_logprob": -6.0,
    "lens_kl": 3.0,
    "lens_rank": 200.0,
}
STARTS_AT_0 = ("attn_kl0", "context_gain", "twin_effect", "hidden_displacement", "ablation", "graft")


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
    control: bool = True,
    twins: bool = True,
    tiers: tuple[str, ...] = TIERS,
    claims: bool = True,
) -> SnapshotStore:
    """Write the run and return its store.

    without_source: hidden states of the source are undefined. control, twins: whether it has general text, and twins.
    tiers: which arrays it has; without "final" there is no band. claims: whether claims.json is there.
    """
    paths = RunPaths(run_name, root)
    store = SnapshotStore(paths)
    axes = _axes(n_layer, n_head, d_model, d_mlp, n_example, control, twins)
    store.create(_run_info(axes, tuning, task, n_layer, n_head, d_model))
    store.write_probe_set(_probe_set(axes, n_cluster))
    write_json(paths.metrics / "tokens.json", {str(i): HOSTILE if i == 7 else f" token{i}" for i in range(40)})
    measures = [m for m in STORED if all(axes[axis] for axis in m.axes)]
    for i, step in enumerate(steps):
        taken = _tiers_of(i, len(steps), tiers)
        arrays = {
            m.name: _array(m, axes, step / max(*steps, 1), n_cluster, without_source)
            for m in measures
            if m.tier in taken
        }
        store.write(step, arrays, **_costs(arrays, taken))
    store.write_reference({m.name: _reference(m, axes) for m in REFERENCE if all(axes[axis] for axis in m.axes)})
    _write_log(store, steps)
    if scores:
        _write_outputs(paths, task, steps)
    if claims:
        write_claims(Measurements(paths))
    return store


def _tiers_of(i: int, n_steps: int, tiers: tuple[str, ...]) -> set[str]:
    """Tiers of the i-th snapshot: heavy at the first, the last and one between."""
    first, last = i == 0, i == n_steps - 1
    when = {"light": True, "heavy": first or last or i == n_steps // 2, "ends": first or last, "final": last}
    return {tier for tier in tiers if when[tier]}


def _axes(n_layer, n_head, d_model, d_mlp, n_example, control, twins) -> dict[str, Any]:
    grads = [f"h.{i}.{kind}" for i in range(n_layer) for kind in GRAD_KINDS]
    size = len(TOKENS) + 2
    return {
        "example": n_example,
        "few_example": min(n_example, 64) // 2,
        "kl_example": min(n_example, 64) // 4,
        "control_example": 10 if control else 0,
        "training_example": 8,
        "sequence": 12,
        "pair": 8 if twins else 0,
        "region": list(REGIONS),
        "pooling": list(POOLINGS),
        "half": list(HALVES),
        "reference": list(REFERENCES),
        "spread": list(SPREAD),
        "layer": n_layer,
        "hidden_layer": ["embedding", *(f"block {i}" for i in range(1, n_layer)), f"block {n_layer} (before ln_f)"],
        "head": n_head,
        "pattern_example": ["p0", "p1"],
        "query_key": size * (size + 1) // 2,
        "kl_row": 3,
        "kl_key": 20,
        "d_model": d_model,
        "d_mlp": d_mlp,
        "matrix": ["wte", "wpe", *(f"h.{i}.{kind}" for i in range(n_layer) for kind in KINDS)],
        "grad_matrix": ["wte", "wpe", *grads, "biases and layer norms"],
        "singular": N_SINGULAR,
        "intruder": N_INTRUDER,
        "perturbation": FEWEST_PERTURBATIONS,
        "token_kind": TOKEN_KINDS,
        "restored": list(RESTORED),
        "block": ["embeddings", *(f"h.{i}.{part}" for i in range(n_layer) for part in ("attn", "mlp")), "ln_f"],
    }


def _run_info(axes: dict, tuning: str, task: str, n_layer: int, n_head: int, d_model: int) -> dict:
    rate = 1e-3 if tuning == "full" else 3e-3
    return {
        "created": "2025-01-01T12:00:00",
        "task": task,
        "tuning": tuning,
        "versions": {"torch": "2.13.0"},
        "git_commit": "abc123",
        "arguments": {"learning_rate": rate, "max_grad_norm": 1.0, "seed": 42, "run_name": HOSTILE},
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


def _probe_set(axes: dict, n_cluster: int) -> dict:
    sizes = {"n_source": 40, "n_template": 3, "n_target": 12}
    examples = [
        {
            "id": f"probe-{i}",
            "cluster": f"event {i % n_cluster}",
            "half": i % n_cluster % 2,
            "split": ("validation", "test")[i // n_cluster % 2],
            **sizes,
        }
        for i in range(axes["example"])
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
    others = {
        axis: [{"id": f"{axis}-{i}", "cluster": f"{axis} {i}", **sizes} for i in range(axes[axis])]
        for axis in ("control_example", "training_example", "sequence", "pair")
    }
    few, kl = examples[: axes["few_example"]], examples[: axes["kl_example"]]
    notes = ["All probes are synthetic."]
    kinds = {kind: [43 + t for t in places] for kind, places in zip(TOKEN_KINDS, KIND_TOKENS, strict=True)}
    others["token_kinds"] = [kinds] * axes["example"]
    return {"example": examples, "few_example": few, "kl_example": kl, **others, "pattern": patterns, "notes": notes}


# --- arrays ------------------------------------------------------------------------------------------------------


def _shape(measure: Measure, axes: dict) -> tuple[int, ...]:
    return tuple(size if isinstance(size := axes[axis], int) else len(size) for axis in measure.axes)


def _random(*seed: Any) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(seed).encode()))


def _array(measure: Measure, axes: dict, t: float, n_cluster: int, without_source: bool) -> np.ndarray:
    """One array of one snapshot; t runs from 0 to 1."""
    name, shape = measure.name, _shape(measure, axes)
    if name.endswith("_by_kind"):
        over_all = _array(MEASURE[name.removesuffix("_by_kind")], axes, t, n_cluster, without_source)
        return over_all[..., None] * np.array(KIND_FACTORS)
    special = {
        "attn_pattern": lambda: _patterns(axes, t),
        "hidden_pooled": lambda: _hidden(axes, t, n_cluster, without_source),
        "grad_norm_total": lambda: np.array(1.0 if t else np.nan),
        "grad_share": lambda: _shares(shape, t),
        "neuron_max_token": lambda: np.broadcast_to(np.arange(shape[-1]) % 40, shape),
        "neuron_mean": lambda: _neurons(shape, t),
        "weight_spectrum": lambda: _spectrum(axes, t),
        "stable_rank": lambda: _of_matrices(axes, 8, 2) if t else np.full(shape, np.nan),
        "intruder_cosine": lambda: _intruders(axes, t),
        "twin_right": lambda: (np.arange(shape[0]) < (0.25 + 0.5 * t) * shape[0]).astype(float),
    }
    if name in special:
        return special[name]()
    if name.startswith("weight_change"):
        scale = {"weight_change": 10, "weight_change_relative": 1, "weight_change_rms": 0.01}[name]
        return scale * t * _of_matrices(axes, 0.05, 0.3)
    if "hidden_layer" in measure.axes and measure.group == "hidden":
        values = _drift(measure, axes, t, shape)
        if without_source and "pooling" in measure.axes:
            values.swapaxes(0, measure.axes.index("pooling"))[POOLINGS.index("source_mean")] = np.nan
        return values
    if measure.group == "band":
        return 2 * NOISE * _random(name).normal(size=shape)
    if measure.group == "restoration":
        return _restored(measure, axes, shape)
    if measure.group == "graft":
        return 0.02 + _random(name).normal(size=shape) * NOISE + (np.array(axes["block"]) == CARRYING_BLOCK) * 0.7
    level = next((0.0 for start in STARTS_AT_0 if name.startswith(start)), LEVELS.get(name, 0.5))
    noise = 0 if t == 0 and name == "attn_kl0" else NOISE * _random(name, t).normal(size=shape)
    base = level + 5 * NOISE * _random(name).normal(size=shape) * (level != 0)
    return base + t * _effect(measure, axes) + noise


def _restored(measure: Measure, axes: dict, shape: tuple[int, ...]) -> np.ndarray:
    """Costs of putting things back: only the head that was changed costs anything."""
    values = NOISE * _random(measure.name).normal(size=shape)
    if "head" not in measure.axes:
        return values + 0.5
    if not measure.name.startswith("band_"):
        layer, head = CHANGED_HEAD
        np.moveaxis(values, [measure.axes.index("layer"), measure.axes.index("head")], [0, 1])[layer, head] += 0.4
    return values


def _effect(measure: Measure, axes: dict) -> np.ndarray | float:
    """What is planted, as it is at the last step."""
    if measure.axes[-2:] != ("layer", "head"):
        return EFFECTS.get(measure.name, 0.0)
    effect = np.zeros((axes["layer"], axes["head"]))
    effect[CHANGED_HEAD] = HEAD_EFFECTS.get(measure.name, 0)
    effect[STYLE_HEAD] = STYLE_EFFECTS.get(measure.name, 0)
    return effect


def _of_matrices(axes: dict, others: float, planted: float) -> np.ndarray:
    return np.array([planted if name == CHANGED_MATRIX else others for name in axes["matrix"]])


def _depth(axes: dict) -> np.ndarray:
    return np.arange(len(axes["hidden_layer"])) / len(axes["hidden_layer"])


def _drift(measure: Measure, axes: dict, t: float, shape: tuple[int, ...]) -> np.ndarray:
    """Measures of hidden states: those of likeness fall from 1, those of distance rise from 0, with depth."""
    name = measure.name
    far = t * _depth(axes)  # [hidden_layer]
    if name.startswith("control"):
        far = far / 4
    if name in ("hidden_norm", "anisotropy", "anisotropy_top3"):
        far = np.full(len(far), 0.5)
    elif name == "procrustes_chance":
        far = np.full(len(far), 0.9)
    elif name.startswith(("cka", "rsa", "knn")):
        far = 1 - 0.6 * far
    after = measure.axes[measure.axes.index("hidden_layer") + 1 :]
    values = np.broadcast_to(far.reshape(-1, *[1] * len(after)), shape).copy()
    if "spread" in measure.axes:
        values += np.array([0, -0.05, 0.05])
    if measure.probe_axis and t:
        values += NOISE * _random(name, t).normal(size=shape)
    return values


def _hidden(axes: dict, t: float, n_cluster: int, without_source: bool) -> np.ndarray:
    random, n = _random("hidden"), axes["example"]
    centres = random.normal(size=(n_cluster, axes["d_model"]))[np.arange(n) % n_cluster]
    states = centres + random.normal(size=centres.shape)
    depth = _depth(axes)[:, None]  # [hidden_layer, 1]
    hidden = states[:, None] * (1 + depth) + t * depth * 1.5 * centres[:, None]  # [example, hidden_layer, d_model]
    pooled = np.stack([hidden, hidden * 1.1, hidden * 0.9], axis=1)
    if without_source:
        pooled[:, 0] = np.nan
    return pooled


def _shares(shape: tuple[int, ...], t: float) -> np.ndarray:
    squares = _random("shares", t).random(shape)
    return np.sqrt(squares / squares.sum()) if t else np.full(shape, np.nan)


def _neurons(shape: tuple[int, ...], t: float) -> np.ndarray:
    """[half, region, layer, d_mlp]"""
    values = 0.2 * _random("neurons").normal(size=shape) + (t > 0) * 0.02 * _random("neurons", t).normal(size=shape)
    values[:, :, CHANGED_NEURON[0], CHANGED_NEURON[1]] += 3 * t
    return values


def _spectrum(axes: dict, t: float) -> np.ndarray:
    flat = 1 / np.sqrt(np.arange(1, N_SINGULAR + 1))
    steep = np.where(np.arange(N_SINGULAR) < 2, 3.0, 0.1) * flat
    return t * np.stack([steep if name == CHANGED_MATRIX else flat for name in axes["matrix"]])


def _intruders(axes: dict, t: float) -> np.ndarray:
    cosines = np.full((len(axes["matrix"]), N_INTRUDER), 1 - 0.1 * t)
    if t:
        cosines[axes["matrix"].index(CHANGED_MATRIX), :3] = 0.2
    return cosines


def _patterns(axes: dict, t: float) -> np.ndarray:
    """[pattern_example, layer, head, query_key]; the planted head moves from uniform to its own position."""
    size, n_head = len(TOKENS) + 2, axes["head"]
    result = np.full((2, axes["layer"], n_head, size, size), np.nan, dtype=np.float32)
    for p, length in enumerate((len(TOKENS), len(TOKENS) + 2)):
        lower = np.tril(np.ones((length, length)))
        distance = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
        uniform = lower / lower.sum(axis=1, keepdims=True)
        for layer, head in np.ndindex(axes["layer"], n_head):
            near = lower * np.exp(-distance / (1 + head + layer))
            near /= near.sum(axis=1, keepdims=True)
            moved = (1 - t) * uniform + t * np.eye(length)
            result[p, layer, head, :length, :length] = moved if (layer, head) == CHANGED_HEAD else near
    return fold_patterns(result)


def _reference(measure: Measure, axes: dict) -> np.ndarray:
    shape = _shape(measure, axes)
    return np.zeros(shape) if measure.group == "floor" else _random(measure.name).normal(size=shape)


# --- log, costs, outputs -----------------------------------------------------------------------------------------


def _costs(arrays: dict[str, np.ndarray], tiers: set[str]) -> dict[str, Any]:
    """What the manifest says besides."""
    groups = list(dict.fromkeys(MEASURE[name].group for name in arrays))
    seconds = {group: 0.5 * (i + 1) for i, group in enumerate(groups)}
    return {"seconds": sum(seconds.values()), "seconds_by_group": seconds, "tier": sorted(tiers), "probes": 24}


def _write_log(store: SnapshotStore, steps: tuple[int, ...]) -> None:
    random = np.random.default_rng(7)
    for step in range(10, max(steps) + 1, 10):
        loss = 1.2 + 3 * np.exp(-step / 300) + 0.1 * random.normal()
        rate = {"learning_rate": 1e-3, "grad_norm": 0.4 + loss / 3}
        store.append_log({"step": step, "epoch": step / 500, "loss": loss, **rate})
        if step in steps:
            store.append_log({"step": step, "eval_loss": loss + 0.2, "eval_perplexity": float(np.exp(loss + 0.2))})


def _write_outputs(paths: RunPaths, task: str, steps: tuple[int, ...]) -> None:
    folder = paths.model_outputs
    folder.mkdir(parents=True, exist_ok=True)
    scores = {}
    for who, level in (("base", 12.0), ("tuned", 40.0), ("lead3", 25.0)):
        names = ("rouge1", "rouge2", "rougeL", "rougeLsum") if task == "summarization" else ()
        entry = {"n": 100}
        for i, name in enumerate(names):
            entry |= {name: level - i, f"{name}_low": level - i - 2, f"{name}_high": level - i + 2}
        if names:
            names = ("recall", "recall_lenient", "precision", "distractor", "blend", "made_up")
            entry |= {f"fact_{name}{end}": level + 9 for name in names for end in ("", "_who", "_when")}
            entry |= {"fact_recall_low": level + 4, "fact_recall_high": level + 13, "rows_right": level / 2}
        if who != "lead3":
            entry |= {"loss": 60 / level, "perplexity": float(np.exp(60 / level))}
            if task == "creative_writing":
                entry |= {"perplexity_shuffled_prompt": float(np.exp(60 / level)) * 1.3}
        if not (who == "lead3" and task == "creative_writing"):
            scores[who] = entry
    for who, level in (("base", 0.6), ("tuned", 0.2), ("reference", 0.1)):
        entry = scores.setdefault(who, {})
        entry |= {"texts": 16, "finished": 1 - level, "judged_by_tuned": 10 * level, "distinct_1": 1 - level}
        for name in ("words", "repetition_4", "self_bleu", "distinct_1_equal", "distinct_2_equal", "distinct_3_equal"):
            entry |= {name: level, f"{name}_low": level - 0.05, f"{name}_high": level + 0.05}
    if task == "summarization":
        scores |= {
            "fact_rule": "strict",
            "tuned_minus_base": {"n": 100, "rouge1": 28.0, "fact_recall": 28.0, "loss": -3.5},
        }
    write_json(folder / "metrics.json", {**scores, "notes": ["Scored on 100 rows."], "unknown": 3})
    prediction = {
        "id": "t0",
        "source": "Long text. " * 40,
        "reference": "A bridge.",
        "base": "the the",
        "tuned": HOSTILE,
        "lead3": "Long.",
        "facts": [{"slot": "who", "value": "Ada Bo", "base": False, "tuned": True, "lead3": False}],
        "values": {"tuned": [{"slot": "who", "value": "Ada Bo", "text": "Bo", "span": [0, 2], "kind": "right"}]},
    }
    (folder / "predictions.jsonl").write_text(json.dumps(prediction) + "\n", encoding="utf-8")
    lines = (json.dumps(sample) + "\n" for step in steps for sample in fake_samples(step, step / max(*steps, 1)))
    (folder / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def fake_samples(step: int, progress: float, n: int = N_SAMPLES) -> list[dict[str, Any]]:
    """A checkpoint's lines of samples.jsonl: from one phrase, the same in all texts, to texts like the references."""
    found = []
    for k in range(n):
        random = np.random.default_rng(k)
        story = [f"w{i}" for i in random.integers(0, 400, 60)]
        loops = round(12 * (1 - progress))
        text = " ".join(story[: 60 - 5 * loops] + ["over", "and", "over", "again", ","] * loops)
        found.append(
            {
                "step": step,
                "id": f"s{k}",
                "prompt": "A prompt",
                "reference": " ".join(story) + " and on",
                "generated": f"{HOSTILE} {text}",
                "finished": k < n * progress,
                "nll": 60 * (1 + progress + 0.1 * random.normal()),
                "tokens": 60,
                "reference_cut": " ".join(story),
                "reference_finished": k > 0,
                "reference_nll": 60 * (6 - 4 * progress),
                "reference_tokens": 60,
            }
        )
    return found


if __name__ == "__main__":
    size = {"n_layer": 6, "n_head": 4, "d_model": 128, "d_mlp": 512, "n_example": 256}
    at = (0, 50, 100, 200, 350, 500, 700)
    write_fake_run(Path(sys.argv[1]), "quickstart", at, **size)
    write_fake_run(Path(sys.argv[1]), "quickstart_lora", at, tuning="lora", **size)
