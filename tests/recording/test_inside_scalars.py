"""The inside of the model in TensorBoard, against the snapshots that it is drawn from."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerControl, TrainerState, TrainingArguments

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.recording.inside_scalars import TAGS, InsideScalars, kind_scalars, mean_at_headline
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import MEASURE
from tests.fake_store import write_fake_run


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_every_snapshot_is_one_point_of_every_line(tmp_path):
    write_fake_run(tmp_path)
    paths = RunPaths("fake", tmp_path)
    writer = InsideScalars(SnapshotStore(paths), tmp_path / "logs")
    args = TrainingArguments(str(tmp_path / "out"), report_to="none")
    writer.on_train_begin(args, TrainerState(), TrainerControl())
    writer.on_train_end(args, TrainerState(global_step=10**6), TrainerControl())  # no snapshot: nothing new
    found = scalars(tmp_path / "logs")
    m = Measurements(paths)
    shown = [name for name in TAGS if m.has(name)]
    assert len(shown) > 10
    for name in shown:
        steps, values = m.headline(name)
        means = [np.nanmean(value) if np.isfinite(value).any() else np.nan for value in values]
        wanted = {step: mean for step, mean in zip(steps, means, strict=True) if np.isfinite(mean)}
        assert found.get(TAGS[name], {}) == pytest.approx(wanted, rel=1e-5), name
    steps, values = m.stack("probe_loss_by_kind")
    for kind, of_kind in zip(m.labels("token_kind"), np.moveaxis(values, -1, 0), strict=True):
        wanted = dict(zip(steps, of_kind.mean(axis=1), strict=True))
        assert found[f"inside/loss_by_kind/{kind}"] == pytest.approx(wanted, rel=1e-5)


def test_the_loss_of_a_kind_is_of_the_probes_that_have_it():
    array = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan]])
    found = kind_scalars(array, ["all", "position 256+", "value_first who"])
    assert list(found) == [f"inside/loss_by_kind/{name}" for name in ("all", "position_256_", "value_first_who")]
    np.testing.assert_array_equal(list(found.values()), [2, 4, np.nan])


def test_one_chart_for_each_group(tmp_path):
    groups = {MEASURE[name].group for name in TAGS}
    assert {"attention", "hidden", "loss", "weights", "lens"} <= groups
    assert all(tag == f"inside/{MEASURE[name].group}/{name}" for name, tag in TAGS.items())


def test_nothing_defined_is_no_number():
    assert np.isnan(mean_at_headline("probe_loss", np.full(3, np.nan), {}))
