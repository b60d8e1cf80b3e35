"""A TrainerCallback that measures the inside of a GPT-2 while anyone's Hugging Face Trainer trains it.

store = SnapshotStore(RunPaths("my_run"))
recorder = SnapshotRecorder(store, choose_probes(held_out_examples))
Trainer(..., callbacks=[recorder]).train()

`examples/record_any_trainer.py` is a whole program around these lines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import GPT2LMHeadModel, TrainerCallback

from gpt2_interp.errors import InputError
from gpt2_interp.inside.grafts import block_names
from gpt2_interp.inside.observation import Stopwatch
from gpt2_interp.measures.gradients import GradientShares, grad_matrix_names
from gpt2_interp.model.anatomy import find_gpt2, matrix_names, model_sizes, why_unmeasurable, why_weights_unknown
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import KL_ROWS, ProbeSet, same_probes
from gpt2_interp.recording.capture import capture, precision_floor
from gpt2_interp.recording.costs import cost_lines, rare_seconds
from gpt2_interp.recording.plan import (
    OF_WEIGHTS,
    chosen_groups,
    perturbations,
    restores_every_head,
    tiers,
    wanted_names,
)
from gpt2_interp.recording.restored import OF_HEADS
from gpt2_interp.snapshots.schedule import ALL, Schedule
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import (
    CLAIMED,
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
    axis_size,
)


class SnapshotRecorder(TrainerCallback):
    """Takes the snapshots of one run and keeps its training log. Never changes what is trained.

    run_info: provenance for run.json (arguments, versions, data counts). schedule: "checkpoints", "log" (steps 1, 2, 4,
    8, ...) or a number of steps; step 0 and the last step always have one. measures: groups of the measure table, or
    "all" of those that the run can afford. Of a distributed run only the first process measures.

    strict: an error inside a snapshot ends the training. Otherwise the first one is printed, the snapshot is missing,
    and training goes on. What the disk refuses (OSError, InputError) always ends it.
    """

    def __init__(
        self,
        store: SnapshotStore,
        probe_set: ProbeSet,
        run_info: Mapping[str, Any] | None = None,
        tokenizer=None,
        schedule: str = "checkpoints",
        measures: Sequence[str] = (ALL,),
        strict: bool = False,
    ):
        self.store = store
        self.probe_set = probe_set
        self.run_info = dict(run_info or {})
        self.tokenizer = tokenizer
        self.schedule = Schedule.parse(schedule)
        self.measures = tuple(measures)
        self.strict = strict
        self.failed: set[int] = set()  # steps at which an error was survived
        self.groups: list[str] = []
        self.base: BaseWeights | None = None
        self.gradients: GradientShares | None = None
        self.grad_squares = None  # of the latest optimizer step, still on the device
        self.logged_grad_norm = (-1, math.nan)  # (step, norm before clipping)
        self.last_step = -1  # of the latest snapshot
        self.recording = False
        self.early_logs: list[dict[str, Any]] = []

    def set_reference(self, model: nn.Module) -> None:
        """Copy the untouched base's weights, with which later weights are compared."""
        self.base = BaseWeights(model)

    # ---- events, in the order in which the Trainer fires them ----

    def on_init_end(self, args, state, control, model=None, **kwargs):
        if state.is_world_process_zero and self.base is None and model is not None:
            self.set_reference(model)  # now: Trainer.train would first load the checkpoint to resume from

    def on_train_begin(self, args, state, control, model=None, processing_class=None, **kwargs):
        if args.fsdp or args.deepspeed:
            raise ValueError("SnapshotRecorder needs the whole model in one process; turn FSDP and DeepSpeed off")
        if not state.is_world_process_zero:
            return
        if why := why_unmeasurable(model):
            tqdm.write(f"snapshots: none is taken of this run, because {why}; training goes on")
            return
        if state.global_step and self.base is None:
            raise ValueError(
                "the base model's weights are gone: give SnapshotRecorder to Trainer(callbacks=[...]), or call "
                "set_reference(model) before Trainer.train(resume_from_checkpoint=...)"
            )
        self.tokenizer = self.tokenizer or processing_class
        with self._spared(state.global_step):
            self.gradients = GradientShares(model)
            run = self._run_json(find_gpt2(model), args, state)
            self.recording = True
            if state.global_step == 0:
                self._begin(run, model, args, state)
            else:
                self._resume(run, model, args, state.global_step)
            self._announce(model, args, state)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.recording:  # after clipping, which scales every gradient alike: shares don't change
            with self._spared(state.global_step):
                self.grad_squares = self.gradients.squares()

    def on_step_end(self, args, state, control, **kwargs):
        # A snapshot wants its step's gradient norm, which only the log tells.
        if control.should_save or self.schedule.due(state.global_step, state.max_steps):
            control.should_log = True
        return control

    def on_log(self, args, state, control, logs=None, model=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        record = {"step": state.global_step, **{k: v for k, v in logs.items() if isinstance(v, (int, float))}}
        if "grad_norm" in record:
            self.logged_grad_norm = (state.global_step, record["grad_norm"])
        if self.recording:
            self.store.append_log(record)
        elif self.last_step < 0:
            self.early_logs.append(record)  # an evaluation of the base before training
        if "grad_norm" in record and self.schedule.due(state.global_step, state.max_steps):
            self._snapshot_once(model, state, control)

    def on_save(self, args, state, control, model=None, **kwargs):
        # The Trainer logs, evaluates, saves, and then calls this: the step's gradient norm is known if it was logged.
        if self.schedule.at_checkpoints:
            self._snapshot_once(model, state, control)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        if not self.recording:
            return
        self.recording = False
        if self.failed:
            tqdm.write(f"snapshots: {len(self.failed)} failed, of steps {', '.join(map(str, sorted(self.failed)))}")
        if state.global_step in self.failed:
            return
        known = state.global_step == self.last_step
        if known and "final" in self.store.manifest(self.last_step)["tier"]:
            return
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            if not known:
                tqdm.write(f"snapshots: none of step {state.global_step}: not saved, and the best model is loaded now")
            return
        if known:  # training stopped here before its time: nobody knew then that this was the last step
            self.store.remove(self.last_step)
            self.last_step = max(self.store.steps(), default=-1)
        with self._spared(state.global_step):
            self.snapshot(model, state.global_step, state.max_steps, is_last=True)

    def _snapshot_once(self, model, state, control) -> None:
        if self.recording and state.global_step not in {self.last_step, *self.failed}:
            is_last = state.global_step >= state.max_steps or control.should_training_stop
            with self._spared(state.global_step):
                self.snapshot(model, state.global_step, state.max_steps, is_last)

    @contextmanager
    def _spared(self, step: int) -> Iterator[None]:
        """Spare the training an error of measuring: print the first and note the step. Not where `strict` or where the
        disk is the reason."""
        try:
            yield
        except (OSError, InputError):
            raise
        except Exception as error:
            if self.strict:
                raise
            if not self.failed:
                what = f"{type(error).__name__}: {' '.join(str(error).split())}"
                tqdm.write(f"snapshots: that of step {step} failed and is left out ({what}); training goes on")
            self.failed.add(step)

    # ---- beginning ----

    def _run_json(self, gpt2: GPT2LMHeadModel, args, state) -> dict[str, Any]:
        sizes = model_sizes(gpt2)
        examples_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        training_tokens = state.max_steps * examples_a_step * self.probe_set.mean_length
        self.groups, left_out = chosen_groups(self.measures, self.probe_set, sizes, training_tokens)
        if why := why_weights_unknown(gpt2):
            left_out |= {group: why for group in OF_WEIGHTS if group in self.groups}
            self.groups = [group for group in self.groups if group not in OF_WEIGHTS]
        return {
            **self.run_info,
            "axes": axis_labels(gpt2, self.probe_set, perturbations(self.probe_set, sizes, training_tokens)),
            "model": sizes,
            "measures": {
                "groups": self.groups,
                "left_out": left_out,
                "schedule": str(self.schedule),
                "every_head_restored": restores_every_head(self.measures, self.probe_set, sizes, training_tokens),
            },
        }

    def _begin(self, run: dict[str, Any], model: nn.Module, args, state) -> None:
        """Begin with the base: describe the run and take the snapshot of step 0."""
        if self.base is None:  # added with add_callback, after on_init_end
            self.set_reference(model)
        old = self.store.steps()
        if any(old):
            tqdm.write(f"snapshots: training starts anew, so the {len(old)} of an earlier start are dropped")
        self.store.truncate(-1)
        self.store.create(run)
        self._write_probes()
        for record in self.early_logs:
            self.store.append_log(record)
        self.snapshot(model, 0, state.max_steps, is_last=state.max_steps == 0)
        self._store_floor(model, args)

    def _write_probes(self) -> None:
        self.store.write_probe_set(self.probe_set.describe(self.tokenizer))
        self.store.write_tokens(self.probe_set.tokens(self.tokenizer))

    def _store_floor(self, model: nn.Module, args) -> None:
        """Store what the precision of training does to the claimed measures of the base: nothing where that is
        float32."""
        dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
        reference, axes = self.store.load_reference(), self.store.run_info()["axes"]
        names = [measure.name for measure in CLAIMED if measure.group in self.groups]
        if dtype is None:
            shapes = {name: [axis_size(axes[axis]) for axis in MEASURE[name].unit_axes] for name in names}
            floors = {f"floor_{name}": np.zeros(shape, np.float32) for name, shape in shapes.items()}
        else:
            floors = precision_floor(model, self.probe_set, names, self.base, reference, dtype)
        self.store.write_reference(reference | floors)

    def _resume(self, run: dict[str, Any], model: nn.Module, args, step: int) -> None:
        """Continue at `step`: what was measured after it is measured again. Raises InputError."""
        described = self.probe_set.describe(self.tokenizer)
        if not self.store.run_file.is_file():
            self.store.create(run)
            self._write_probes()
        elif not self._same_axes(run["axes"]) or not same_probes(self.store.probe_set(), described):
            raise InputError(
                f"run {self.store.paths.run_name!r} was measured with another model or other probes: "
                f"resume it with the settings it began with, or give another --run_name."
            )
        stored = self.store.run_info()
        if stored["axes"].keys() != run["axes"].keys():
            self.store.create({**stored, "axes": run["axes"]})  # an earlier version had fewer axes
        if self.store.probe_set() != described:
            self._write_probes()  # or stored fewer fields
        self.groups = self.store.run_info()["measures"]["groups"]  # decided once: the store stays comparable
        self.store.truncate(step)
        steps = self.store.steps()
        self.last_step = max(steps, default=-1)
        if 0 not in steps:
            tqdm.write("snapshots: none of step 0 exists, so this run can't be compared with its base model")
        names = self._reference_names()
        if not names <= set(self.store.load_reference(names)):  # e.g. the run began without a recorder
            with self.base.replaced(model):  # with all measures, as at step 0: other kernels would round otherwise
                found = capture(model, self.probe_set, wanted_names(self.groups, {"light"}) | names, base=self.base)
                self.store.write_reference({name: found[name] for name in names})
                self._store_floor(model, args)

    def _same_axes(self, axes: Mapping[str, Any]) -> bool:
        """Return whether run.json has these axes, or an earlier version's part of them."""
        return all(axes.get(axis) == labels for axis, labels in self.store.run_info()["axes"].items())

    def _reference_names(self) -> set[str]:
        """Return the names of what later snapshots are compared with, of step 0, as far as these probes have it."""
        names = {measure.name for measure in REFERENCE if measure.group in self.groups}
        absent = {"control_hidden_pooled_0"} if not self.probe_set.control else set()
        absent |= {"other_hidden_pooled_0"} if not any(self.probe_set.others) else set()
        return names - absent

    def _announce(self, model: nn.Module, args, state) -> None:
        """Announce what the snapshots to come will cost, from those that were taken and one pass of what is rare."""
        to_come = self.schedule.to_come(state.global_step, args, state)
        tqdm.write(
            f"snapshots: {to_come} to come after step {state.global_step}, {self.schedule}, on "
            f"{len(self.probe_set.examples)} probes, in {self.store.paths.metrics}"
        )
        run, steps = self.store.run_info(), self.store.steps()
        if steps and to_come:
            draws = run["axes"]["perturbation"]
            rare = rare_seconds(model, self.probe_set, self.groups, self.base, self.store.load_reference(), draws)
            manifests = [self.store.manifest(step) for step in (steps[0], steps[-1])]
            seconds = manifests[0]["seconds_by_group"] | manifests[1]["seconds_by_group"]
            for line in cost_lines(run, manifests[1], seconds, rare):
                tqdm.write(f"  {line}")
        left_out = run["measures"]["left_out"]
        for why in dict.fromkeys(left_out.values()):
            tqdm.write(f"  left out: {', '.join(group for group in left_out if left_out[group] == why)}, because {why}")

    # ---- one snapshot ----

    def snapshot(self, model: nn.Module, step: int, max_steps: int, is_last: bool) -> None:
        """Measure `model` and store it as `step`."""
        start = time.perf_counter()
        watch = Stopwatch(find_gpt2(model).device)
        of_tiers = tiers(step, self.last_step, max_steps, is_last)
        wanted = wanted_names(self.groups, of_tiers)
        if self.probe_set.patterns_at_ends and "ends" not in of_tiers:
            wanted.discard("attn_pattern")
        reference = None
        if step == 0:
            wanted |= self._reference_names()
        else:
            reference = self.store.load_reference(self._reference_names())
        arrays = capture(
            model,
            self.probe_set,
            wanted,
            base=self.base,
            reference=reference,
            previous=self._previous_states(),
            perturbations=self.store.run_info()["axes"]["perturbation"],
            start=self._start(wanted),
            every_head=self.store.run_info()["measures"].get("every_head_restored", False),
            watch=watch,
        )
        if step == 0:
            names = self._reference_names()
            self.store.write_reference({name: arrays.pop(name) for name in names if name in arrays})
        if "gradients" in self.groups:
            share, _ = self.gradients.shares(self.grad_squares)
            arrays["grad_share"] = share.numpy()
            logged_step, norm = self.logged_grad_norm
            arrays["grad_norm_total"] = np.float32(norm if logged_step == step else math.nan)
        self.store.write(
            step,
            arrays,
            seconds=round(time.perf_counter() - start, 3),
            seconds_by_group={name: round(value, 3) for name, value in watch.seconds.items()},
            tier=sorted(of_tiers),
            probes=len(self.probe_set.examples),
        )
        self.last_step = step

    def _start(self, wanted: Collection[str]) -> dict[str, np.ndarray]:
        """Return the measures of step 0 that tell which heads have changed; {} where nothing is restored."""
        if self.last_step < 0 or not any(MEASURE[name].group == "restoration" for name in wanted):
            return {}
        try:
            return self.store.load(0, OF_HEADS)
        except InputError as damaged:
            tqdm.write(f"snapshots: which heads have changed is not known, for restoration: {damaged}")
            return {}

    def _previous_states(self) -> np.ndarray | None:
        """hidden_pooled of the snapshot before."""
        if self.last_step < 0 or "hidden" not in self.groups:
            return None
        try:
            return self.store.load(self.last_step, ["hidden_pooled"]).get("hidden_pooled")
        except InputError as damaged:
            tqdm.write(f"snapshots: nothing is compared with step {self.last_step}: {damaged}")
            return None


def axis_labels(
    gpt2: GPT2LMHeadModel, probe_set: ProbeSet, perturbations: int = FEWEST_PERTURBATIONS
) -> dict[str, Any]:
    """Size or labels of every axis that a stored array has, for run.json."""
    config = gpt2.config
    length = max((len(e.input_ids) for e in probe_set.pattern_examples), default=0)
    hidden_layers = ["embedding", *(f"block {i}" for i in range(1, config.n_layer + 1))]
    hidden_layers[-1] += " (before ln_f)"
    kl = [probe_set.examples[i] for i in probe_set.kl]
    return {
        "example": len(probe_set.examples),
        "few_example": len(probe_set.few),
        "kl_example": len(kl),
        "kl_row": KL_ROWS,
        "kl_key": max(len(e.input_ids) for e in kl),
        "training_example": len(probe_set.training),
        "control_example": len(probe_set.control),
        "sequence": len(probe_set.sequences),
        "pair": len(probe_set.twins),
        "half": list(HALVES),
        "region": list(REGIONS),
        "pooling": list(POOLINGS),
        "reference": list(REFERENCES),
        "spread": list(SPREAD),
        "layer": config.n_layer,
        "hidden_layer": hidden_layers,
        "head": config.n_head,
        "pattern_example": [e.id for e in probe_set.pattern_examples],
        "query_key": length * (length + 1) // 2,
        "d_model": config.n_embd,
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "matrix": matrix_names(gpt2),
        "grad_matrix": grad_matrix_names(gpt2),
        "singular": N_SINGULAR,
        "intruder": N_INTRUDER,
        "block": block_names(gpt2),
        "token_kind": list(probe_set.token_kinds),
        "restored": list(RESTORED),
        "perturbation": perturbations,
    }
