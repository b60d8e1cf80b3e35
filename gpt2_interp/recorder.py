"""A TrainerCallback that measures the inside of a GPT-2 at step 0 and at every checkpoint.

store = SnapshotStore(RunPaths("my_run"))
recorder = SnapshotRecorder(store, choose_probes(held_out_examples), run_info={}, tokenizer=tokenizer)
Trainer(..., callbacks=[recorder]).train()
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import GPT2LMHeadModel, TrainerCallback

from gpt2_interp.capture import capture
from gpt2_interp.errors import InputError
from gpt2_interp.measures.gradients import GradientShares, grad_matrix_names
from gpt2_interp.measures.weights import find_gpt2, matrix_names, reference_weights, weight_change
from gpt2_interp.models import describe
from gpt2_interp.pace import checkpoints_after
from gpt2_interp.probes import ProbeSet
from gpt2_interp.snapshots import POOLINGS, REGIONS, STORED, SnapshotStore


class SnapshotRecorder(TrainerCallback):
    """Takes the snapshots of one run and keeps its training log. Never changes what is trained.

    run_info: provenance for run.json (arguments, versions, data counts). autocast_dtype: precision of the measuring
    forward passes, float32 when None. Only the first process of a distributed run measures.
    """

    def __init__(
        self,
        store: SnapshotStore,
        probe_set: ProbeSet,
        run_info: Mapping[str, Any],
        tokenizer=None,
        autocast_dtype: torch.dtype | None = None,
    ):
        self.store = store
        self.probe_set = probe_set
        self.run_info = dict(run_info)
        self.tokenizer = tokenizer
        self.autocast_dtype = autocast_dtype
        self.reference = None
        self.gradients: GradientShares | None = None
        self.grad_squares = None  # of the latest optimizer step, still on the device
        self.logged_grad_norm = (-1, math.nan)  # (step, norm before clipping)
        self.last_step = -1  # of the latest snapshot
        self.recording = False
        self.early_logs: list[dict[str, Any]] = []

    def set_reference(self, model: nn.Module) -> None:
        """Copy the untouched base's weights, with which later weights are compared."""
        self.reference = reference_weights(model)

    # ---- events, in the order in which the Trainer fires them ----

    def on_init_end(self, args, state, control, model=None, **kwargs):
        if state.is_world_process_zero and self.reference is None and model is not None:
            self.set_reference(model)  # now: Trainer.train would first load the checkpoint to resume from

    def on_train_begin(self, args, state, control, model=None, processing_class=None, **kwargs):
        if args.fsdp or args.deepspeed:
            raise ValueError("SnapshotRecorder needs the whole model in one process; turn FSDP and DeepSpeed off")
        if not state.is_world_process_zero:
            return
        self.tokenizer = self.tokenizer or processing_class
        self.gradients = GradientShares(model)
        run = self._run_json(find_gpt2(model))
        if state.global_step == 0:
            self._begin(run, model)
        else:
            self._resume(run, state.global_step)
        self.recording = True
        self._announce(args, state, run["axes"])

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.recording:  # after clipping, which scales every gradient alike: shares don't change
            self.grad_squares = self.gradients.squares()

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save:  # a snapshot wants its step's gradient norm, which only the log tells
            control.should_log = True
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        record = {"step": state.global_step, **{k: v for k, v in logs.items() if isinstance(v, (int, float))}}
        if "grad_norm" in record:
            self.logged_grad_norm = (state.global_step, record["grad_norm"])
        if self.recording:
            self.store.append_log(record)
        elif self.last_step < 0:
            self.early_logs.append(record)  # an evaluation of the base before training

    def on_save(self, args, state, control, model=None, **kwargs):
        # The Trainer logs, evaluates, saves, and then calls this: the step's gradient norm is known if it was logged.
        if self.recording and state.global_step != self.last_step:
            self.snapshot(model, state.global_step)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        if not self.recording:
            return
        self.recording = False
        if state.global_step == self.last_step:
            return
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            tqdm.write(f"snapshots: none of step {state.global_step}: it was not saved; the best model is loaded now")
        else:
            self.snapshot(model, state.global_step)

    # ---- beginning ----

    def _run_json(self, gpt2: GPT2LMHeadModel) -> dict[str, Any]:
        return {**self.run_info, "axes": axis_labels(gpt2, self.probe_set), "model": describe(gpt2)}

    def _begin(self, run: dict[str, Any], model: nn.Module) -> None:
        """Training starts from the base: describe the run and take the snapshot of step 0."""
        if self.reference is None:  # added with add_callback, after on_init_end
            self.set_reference(model)
        old = self.store.steps()
        if any(old):
            tqdm.write(f"snapshots: training starts anew, so the {len(old)} of an earlier start are dropped")
        self.store.truncate(-1)
        self.store.create(run)
        self.store.write_probe_set(self.probe_set.describe(self.tokenizer))
        for record in self.early_logs:
            self.store.append_log(record)
        self.snapshot(model, 0)

    def _resume(self, run: dict[str, Any], step: int) -> None:
        """Training continues at `step`: what was measured after it is measured again. Raises InputError."""
        if self.reference is None:
            raise ValueError(
                "the base model's weights are gone: give SnapshotRecorder to Trainer(callbacks=[...]), or call "
                "set_reference(model) before Trainer.train(resume_from_checkpoint=...)"
            )
        if not self.store.run_file.is_file():
            self.store.create(run)
            self.store.write_probe_set(self.probe_set.describe(self.tokenizer))
        elif self.store.run_info()["axes"] != run["axes"] or [e["id"] for e in self.store.probe_set()["example"]] != [
            e.id for e in self.probe_set.examples
        ]:
            raise InputError(
                f"run {self.store.paths.run_name!r} was measured with another model or other probes: "
                f"resume it with the settings it began with, or give another --run_name."
            )
        self.store.truncate(step)
        steps = self.store.steps()
        self.last_step = max(steps, default=-1)
        if 0 not in steps:
            tqdm.write("snapshots: none of step 0 exists, so this run can't be compared with its base model")

    def _announce(self, args, state, axes: dict[str, Any]) -> None:
        bytes_each = sum(
            np.dtype(m.dtype).itemsize * math.prod(a if isinstance(a := axes[axis], int) else len(a) for axis in m.axes)
            for m in STORED
        )
        steps = self.store.steps()
        seconds = f" and {self.store.manifest(steps[-1])['seconds']:.1f} s" if steps else ""
        n, to_come = len(self.probe_set.examples), checkpoints_after(state.global_step, args, state)
        tqdm.write(
            f"snapshots: {to_come} to come after step {state.global_step}, on {n} probes, each "
            f"about {bytes_each / 1e6:.1f} MB{seconds}, in {self.store.paths.metrics}"
        )

    # ---- one snapshot ----

    def snapshot(self, model: nn.Module, step: int) -> None:
        """Measure `model` and store it as `step`."""
        start = time.perf_counter()
        arrays = capture(model, self.probe_set, autocast_dtype=self.autocast_dtype)
        arrays.update(weight_change(model, self.reference))
        share, _ = self.gradients.shares(self.grad_squares)
        arrays["grad_share"] = share.numpy()
        logged_step, norm = self.logged_grad_norm
        arrays["grad_norm_total"] = np.float32(norm if logged_step == step else math.nan)
        self.store.write(
            step,
            arrays,
            seconds=round(time.perf_counter() - start, 3),
            probes=len(self.probe_set.examples),
            precision=str(self.autocast_dtype or torch.float32).removeprefix("torch."),
        )
        self.last_step = step


def axis_labels(gpt2: GPT2LMHeadModel, probe_set: ProbeSet) -> dict[str, Any]:
    """Size or labels of every axis that a stored array has, for run.json."""
    config = gpt2.config
    length = max((len(e.input_ids) for e in probe_set.pattern_examples), default=0)
    hidden_layers = ["embedding", *(f"block {i}" for i in range(1, config.n_layer + 1))]
    hidden_layers[-1] += " (before ln_f)"
    return {
        "example": len(probe_set.examples),
        "region": list(REGIONS),
        "pooling": list(POOLINGS),
        "layer": config.n_layer,
        "hidden_layer": hidden_layers,
        "head": config.n_head,
        "pattern_example": [e.id for e in probe_set.pattern_examples],
        "query_pos": length,
        "key_pos": length,
        "d_model": config.n_embd,
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "matrix": matrix_names(gpt2),
        "grad_matrix": grad_matrix_names(gpt2),
    }
