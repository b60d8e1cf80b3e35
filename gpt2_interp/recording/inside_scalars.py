"""The inside of the model in TensorBoard: one chart for each group of measures, one line for each measure in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import HEADLINE, MEASURE, STORED

# What a group's chart shows where none of its measures is claimed.
UNCLAIMED = ("weight_change_relative", "ov_change", "qk_change", "probe_grad_cosine", "grad_norm_total", "cka_debiased")
TAGS = {
    measure.name: f"inside/{measure.group}/{measure.name}"
    for measure in STORED
    if measure.tier in ("light", "heavy")
    and measure.group not in ("band", "control")
    and (measure.claimed or measure.name in UNCLAIMED)
}
BY_KIND = "probe_loss_by_kind"  # a line for each kind of token, in a chart of its own


class InsideScalars(TrainerCallback):
    """Writes one number of each shown measure for every snapshot that the store gained: the mean over all that the
    measure has a value for (probes, layers, heads), at the region and pooling that are claimed. Of the loss on the
    probes also one for each kind of token.

    Stands behind the `SnapshotRecorder` of the same store in Trainer(callbacks=[...]).
    """

    def __init__(self, store: SnapshotStore, log_folder: str | Path):
        self.store, self.log_folder = store, str(log_folder)
        self.written = -1  # the latest step

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            if state.global_step:
                self.written = state.global_step  # a resumed run: the event files have what came before
            self._write_new()

    def on_log(self, args, state, control, **kwargs):
        self._after_a_snapshot(state)

    def on_save(self, args, state, control, **kwargs):
        self._after_a_snapshot(state)

    def on_train_end(self, args, state, control, **kwargs):
        self._after_a_snapshot(state)

    def _after_a_snapshot(self, state) -> None:
        if state.is_world_process_zero and state.global_step > self.written and state.global_step in self.store.steps():
            self._write_new()

    def _write_new(self) -> None:
        new = [step for step in self.store.steps() if step > self.written]
        if not new:
            return
        axes = self.store.run_info()["axes"]
        with SummaryWriter(self.log_folder) as writer:
            if self.written < 0:
                writer.add_custom_scalars(_layout())
            for step in new:
                arrays = self.store.load(step, [*TAGS, BY_KIND])
                of_kinds = kind_scalars(arrays.pop(BY_KIND), axes["token_kind"]) if BY_KIND in arrays else {}
                means = {TAGS[name]: mean_at_headline(name, array, axes) for name, array in arrays.items()}
                for tag, value in (means | of_kinds).items():
                    if np.isfinite(value):
                        writer.add_scalar(tag, value, step)
        self.written = new[-1]


def mean_at_headline(name: str, array: np.ndarray, axes: Mapping[str, Any]) -> float:
    """Mean of what is defined, at the region and pooling that HEADLINE names; NaN where nothing is."""
    names = MEASURE[name].axes
    for axis in reversed(names):
        if axis in HEADLINE:
            array = np.take(array, list(axes[axis]).index(HEADLINE[axis]), axis=names.index(axis))
    defined = np.isfinite(array)
    return float(array[defined].mean(dtype=np.float64)) if defined.any() else float("nan")


def kind_scalars(array: np.ndarray, kinds: Sequence[str]) -> dict[str, float]:
    """Mean of [example, kind] over the examples that have a token of the kind, by tag; NaN where none has."""
    defined = np.isfinite(array)
    with np.errstate(invalid="ignore"):
        means = np.where(defined, array, 0).sum(axis=0, dtype=np.float64) / defined.sum(axis=0)
    tags = (f"inside/loss_by_kind/{re.sub(r'[^a-zA-Z0-9_-]+', '_', kind)}" for kind in kinds)
    return dict(zip(tags, means.tolist(), strict=True))


def _layout() -> dict[str, dict[str, list]]:
    """Custom scalars: under "inside the model" a chart for each group."""
    groups = dict.fromkeys([*(tag.split("/")[1] for tag in TAGS.values()), "loss_by_kind"])
    return {"inside the model": {group: ["Multiline", [f"inside/{group}/.*"]] for group in groups}}
