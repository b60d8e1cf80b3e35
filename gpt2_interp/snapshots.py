"""The snapshot store: what was measured on the fixed probes at one optimizer step.

`MEASURES` declares every array once; the writer validates against it, and `docs/metrics.md`, report captions and
axis labels are made from it. A snapshot is up to three safetensors files and a manifest
`interpretability_metrics/<run>/step_00000500.json` with their sha256, written last: a step without it did not happen.
Imports no torch, so that figures can be drawn without it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import RunPaths, measured_runs

SCHEMA_VERSION = 1

REGIONS = ("Q", "A")  # Q: positions that predict a target token; A: all positions >= 8
POOLINGS = ("source_mean", "target_mean", "prompt_last")


@dataclass(frozen=True)
class Measure:
    """One row of the measure table.

    axes name the array's dimensions, in order; their sizes and labels stand in run.json under "axes".
    folder is one of "attention", "latent", "metrics" (stored there) or "derived" (computed from stored arrays).
    """

    name: str
    folder: str
    axes: tuple[str, ...]
    dtype: str
    unit: str
    meaning: str
    formula: str
    source: str = ""
    caution: str = ""


MEASURES: tuple[Measure, ...] = (
    # --- attention ---------------------------------------------------------------------------------------------
    Measure(
        "attn_entropy",
        "attention",
        ("example", "region", "layer", "head"),
        "float32",
        "bits",
        "How widely a head spreads its attention: 0 is one token, log2(visible keys) is all alike.",
        "H_i = -sum_j a_ij log2 a_ij; mean over the queries i of the region",
        caution="Grows with the number of visible keys; compare the same probes only.",
    ),
    Measure(
        "attn_gini",
        "attention",
        ("example", "region", "layer", "head"),
        "float32",
        "0..1",
        "Sparsity of a head's attention: 0 is uniform, 1 is a single token.",
        "sorted ascending c_1..c_m: G = [1 - 2 sum_k c_k (m-k+0.5)/m] m/(m-1); mean over queries",
        source="Hurley & Rickard 2009; m/(m-1) removes the dependence on m",
        caution="Nearly the same information as entropy (Spearman -.998 on real GPT-2 heads).",
    ),
    Measure(
        "attn_distance_ns",
        "attention",
        ("example", "region", "layer", "head"),
        "float32",
        "0..2",
        "How far back a head looks, the first token left out: 1 is what uniform attention would give.",
        "sum_j a'_ij (i-j)/((i-1)/2) over keys j = 1..i, a' renormalised without key 0; mean over queries",
        caution="Without leaving out the first token it would mostly repeat attn_sink.",
    ),
    Measure(
        "attn_sink",
        "attention",
        ("example", "region", "layer", "head"),
        "float32",
        "0..1",
        "Share of attention that rests on the very first token.",
        "a_i0, i >= 1; mean over queries",
        source="Xiao et al. 2023",
    ),
    Measure(
        "attn_pattern",
        "attention",
        ("pattern_example", "layer", "head", "query_pos", "key_pos"),
        "float16",
        "0..1",
        "The full attention pattern of a few short probes, after softmax; rows are queries. Padding is NaN.",
        "a_ij = softmax_j(q_i k_j / sqrt(d_head)), j <= i",
    ),
    # --- hidden states -----------------------------------------------------------------------------------------
    Measure(
        "hidden_pooled",
        "latent",
        ("example", "pooling", "hidden_layer", "d_model"),
        "float32",
        "activation",
        "The residual stream after each block, averaged over the source, over the target queries, or read at the last "
        "prompt position.",
        "X_l, l = 0..n_layer; l = 0 is the embedding, l = n_layer is taken before ln_f",
    ),
    # --- learning ----------------------------------------------------------------------------------------------
    Measure(
        "probe_loss",
        "metrics",
        ("example",),
        "float32",
        "nats/token",
        "Negative log-likelihood of the probe's target, the loss that training lowers.",
        "mean over supervised tokens of -log p(token | prefix)",
    ),
    Measure(
        "grad_norm_total",
        "metrics",
        (),
        "float32",
        "norm",
        "Norm of the whole training gradient of this step, before clipping (after accumulation).",
        "||g||_2 as the Trainer logs it; undefined (NaN) at step 0",
        caution="Of one batch: compare trends, not single steps.",
    ),
    Measure(
        "grad_share",
        "metrics",
        ("grad_matrix",),
        "float32",
        "0..1",
        "Share of the training gradient's norm that falls on one weight matrix; the squares sum to 1.",
        "||g_m|| / ||g|| at on_pre_optimizer_step: the same before and after clipping; norm = share x grad_norm_total",
    ),
    # --- weights -----------------------------------------------------------------------------------------------
    Measure(
        "weight_change",
        "metrics",
        ("matrix",),
        "float32",
        "norm",
        "How far a weight matrix has moved from the base model.",
        "||W_t - W_0||_F; LoRA: scaling x B A",
    ),
    Measure(
        "weight_change_relative",
        "metrics",
        ("matrix",),
        "float32",
        "ratio",
        "The same, against the size of the base matrix.",
        "||W_t - W_0||_F / ||W_0||_F",
    ),
    Measure(
        "weight_change_rms",
        "metrics",
        ("matrix",),
        "float32",
        "per weight",
        "The same, per weight: comparable between matrices of different size.",
        "||W_t - W_0||_F / sqrt(numel)",
    ),
    # --- neurons -----------------------------------------------------------------------------------------------
    Measure(
        "neuron_mean",
        "metrics",
        ("region", "layer", "d_mlp"),
        "float32",
        "activation",
        "Mean activation of an MLP neuron over the region's tokens, each probe with equal weight.",
        "a = input of mlp.c_proj; mean over tokens in a probe, then over probes",
    ),
    Measure(
        "neuron_sd",
        "metrics",
        ("region", "layer", "d_mlp"),
        "float32",
        "activation",
        "Its standard deviation over tokens, each probe with equal weight.",
        "sqrt(mean(a^2) - mean(a)^2)",
    ),
    Measure(
        "neuron_max",
        "metrics",
        ("region", "layer", "d_mlp"),
        "float32",
        "activation",
        "Its largest activation on any token of the region.",
        "max a",
    ),
    Measure(
        "neuron_max_token",
        "metrics",
        ("region", "layer", "d_mlp"),
        "int32",
        "token id",
        "The token at which that largest activation occurred; -1 where a region has no tokens.",
        "argmax a",
    ),
    Measure(
        "neuron_active",
        "metrics",
        ("region", "layer", "d_mlp"),
        "float32",
        "0..1",
        "Share of tokens at which the neuron is active.",
        "share of a > 0 (= pre-activation > 0)",
    ),
    # --- derived from the stored arrays when drawn ---------------------------------------------------------------
    Measure(
        "displacement",
        "derived",
        ("hidden_layer",),
        "float32",
        "ratio",
        "How far the hidden states have moved from the base model's, against their spread over probes.",
        "||X_t - X_0||_F / ||Xc_0||_F, Xc centred over probes",
        source="same basis at every step, so it needs no alignment",
    ),
    Measure(
        "cka_debiased",
        "derived",
        ("hidden_layer",),
        "float32",
        "<= 1",
        "Whether the probes still lie to each other as they did in the base model: 1 alike, 0 unrelated.",
        "K = XX', L = YY', zero diagonals; HSIC1 = [tr(KL) + 1'K1 1'L1/((n-1)(n-2)) - 2/(n-2) 1'KL1]/(n(n-3)); "
        "CKA = HSIC1(K,L)/sqrt(HSIC1(K,K) HSIC1(L,L))",
        source="Song et al. 2012; Nguyen et al. 2021; Murphy et al. 2024",
        caution="Can be negative; needs at least 4 probes.",
    ),
)
MEASURE: dict[str, Measure] = {measure.name: measure for measure in MEASURES}
STORED = tuple(measure for measure in MEASURES if measure.folder != "derived")


# --- files that are whole or absent ----------------------------------------------------------------------------


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON (no NaN, which JSON does not have) atomically."""
    write_atomically(path, (json.dumps(finite(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity replaced by None, and numpy scalars by Python's."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# --- the store -------------------------------------------------------------------------------------------------


class SnapshotStore:
    """Snapshots, probe set and training log of one run.

    run.json holds the run's settings and "axes": {axis name: size or list of labels}, which every array must fit.
    """

    def __init__(self, paths: RunPaths):
        self.paths = paths
        self._folders = {"attention": paths.attention, "latent": paths.latent, "metrics": paths.metrics}
        self._intact: dict[Path, bool] = {}

    # ---- the run ----

    @property
    def run_file(self) -> Path:
        return self.paths.metrics / "run.json"

    @property
    def probe_file(self) -> Path:
        return self.paths.metrics / "probe_set.json"

    @property
    def log_file(self) -> Path:
        return self.paths.metrics / "training_log.jsonl"

    def create(self, run_info: Mapping[str, Any]) -> None:
        """Write run.json. `run_info` needs "axes"; everything else is provenance."""
        assert "axes" in run_info
        write_json(self.run_file, {"schema_version": SCHEMA_VERSION, "run_name": self.paths.run_name, **run_info})

    def run_info(self) -> dict[str, Any]:
        """run.json. Raises InputError when the run was never measured or its schema is not known."""
        if not self.run_file.is_file():
            known = ", ".join(measured_runs(self.paths.root)) or "none yet"
            raise InputError(
                f"run {self.paths.run_name!r} has no measurements under {self.paths.metrics.parent}/: train it first "
                f"with gpt2_summarization.py, or give --run_name one of these: {known}."
            )
        try:
            info = json.loads(self.run_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{self.run_file} is not readable JSON ({error}); run the training again.") from None
        if info.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                f"{self.run_file} has schema version {info.get('schema_version')}, this program reads "
                f"{SCHEMA_VERSION}: "
                f"use the version of this project that wrote it."
            )
        return info

    def labels(self, axis: str) -> list[str]:
        """Labels of one axis; numbers where run.json gives only its size."""
        value = self.run_info()["axes"][axis]
        return [str(i) for i in range(value)] if isinstance(value, int) else [str(label) for label in value]

    # ---- snapshots ----

    def manifest_file(self, step: int) -> Path:
        return self.paths.metrics / f"step_{step:08d}.json"

    def array_file(self, folder: str, step: int) -> Path:
        return self._folders[folder] / f"step_{step:08d}.safetensors"

    def steps(self) -> list[int]:
        """Optimizer steps with a complete snapshot, ascending as numbers."""
        if not self.paths.metrics.is_dir():
            return []
        names = (re.fullmatch(r"step_(\d+)\.json", path.name) for path in self.paths.metrics.iterdir())
        return sorted(int(match[1]) for match in names if match)

    def write(self, step: int, arrays: Mapping[str, np.ndarray], **info: Any) -> None:
        """Store one snapshot; arrays are checked against `MEASURES` and run.json, then cast to their dtype.

        `info` goes into the manifest (seconds, probes, ...). Raises ValueError if an array does not fit the table.
        """
        axes = self.run_info()["axes"]
        by_folder: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            measure = MEASURE[name]
            assert measure.folder in self._folders, f"{name} is derived, not stored"
            by_folder.setdefault(measure.folder, {})[name] = _checked(measure, np.asarray(array), axes)
        files = {}
        for folder, group in by_folder.items():
            data = safetensors_save(group)
            path = self.array_file(folder, step)
            write_atomically(path, data)
            files[folder] = {
                "file": path.name,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "arrays": sorted(group),
            }
        manifest = {"step": step, "schema_version": SCHEMA_VERSION, "written": time.time(), "files": files, **info}
        write_json(self.manifest_file(step), manifest)

    def manifest(self, step: int) -> dict[str, Any]:
        return json.loads(self.manifest_file(step).read_text(encoding="utf-8"))

    def load(self, step: int, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays of one snapshot, all or the named ones; files whose sha256 is wrong raise InputError by name."""
        wanted = None if names is None else set(names)
        arrays: dict[str, np.ndarray] = {}
        for folder, entry in self.manifest(step)["files"].items():
            if wanted is not None and not wanted & set(entry["arrays"]):
                continue
            path = self._folders[folder] / entry["file"]
            try:
                data = path.read_bytes()
                if self._intact.get(path) is None:
                    self._intact[path] = hashlib.sha256(data).hexdigest() == entry["sha256"]
                if not self._intact[path]:
                    raise InputError(f"{path} is damaged (its sha256 is not the manifest's).")
                group = safetensors_load(data)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path} can't be read ({error}).") from None
            arrays.update({k: v for k, v in group.items() if wanted is None or k in wanted})
        return arrays

    def stack(self, name: str) -> tuple[list[int], np.ndarray]:
        """(steps, array [step, *axes]) of one measure over all snapshots that have it, undamaged.

        A damaged file is named in a warning and its step left out. Raises InputError if nothing is left.
        """
        steps, arrays = [], []
        for step in self.steps():
            try:
                loaded = self.load(step, [name])
            except InputError as error:
                warnings.warn(f"step {step} is skipped: {error}", stacklevel=2)
                continue
            if name in loaded:
                steps.append(step)
                arrays.append(loaded[name])
        if not steps:
            raise InputError(
                f"run {self.paths.run_name!r} has no intact snapshot of {name}: wait for its first checkpoint, "
                f"or train again."
            )
        return steps, np.stack(arrays)

    def truncate(self, last_step: int) -> None:
        """Forget what came after `last_step`, where a resume goes on: snapshots, log lines, files without manifest."""
        for step in self.steps():
            if step > last_step:
                self.manifest_file(step).unlink()  # first: from now on the step did not happen
        kept = {f"step_{step:08d}" for step in self.steps()}
        for folder in self._folders.values():
            for path in folder.glob("step_*.safetensors"):
                if path.stem not in kept:
                    path.unlink()
        lines = [line for line in self.read_log() if line["step"] <= last_step]
        if self.log_file.exists():
            write_atomically(self.log_file, "".join(json.dumps(line) + "\n" for line in lines).encode())

    # ---- probes and log ----

    def write_probe_set(self, probe_set: Mapping[str, Any]) -> None:
        write_json(self.probe_file, probe_set)

    def probe_set(self) -> dict[str, Any]:
        return json.loads(self.probe_file.read_text(encoding="utf-8"))

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Append one line, {"step": ..., scalars}, to training_log.jsonl."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(record), allow_nan=False) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """All complete lines of the training log; a last line that is still being written is left out."""
        if not self.log_file.is_file():
            return []
        lines = self.log_file.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]


def _checked(measure: Measure, array: np.ndarray, axes: Mapping[str, Any]) -> np.ndarray:
    """`array` in the measure's dtype, contiguous. Raises ValueError if its shape is not that of the measure's axes."""
    sizes = tuple(value if isinstance(value := axes[axis], int) else len(value) for axis in measure.axes)
    if array.shape != sizes:
        raise ValueError(f"{measure.name} has shape {array.shape}; its axes {measure.axes} want {sizes}")
    return np.asarray(array, dtype=measure.dtype, order="C")  # ascontiguousarray would give a scalar an axis
