import json
import math
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.files import finite, write_atomically, write_json
from gpt2_interp.run_paths import RunPaths, measured_runs
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import CLAIMED, HALVES, MEASURE, MEASURES, POOLINGS, REGIONS, STORED

AXES = {
    **dict.fromkeys((axis for measure in MEASURES for axis in measure.axes), 2),
    "example": 3,
    "region": list(REGIONS),
    "pooling": list(POOLINGS),
    "half": list(HALVES),
    "layer": 2,
    "hidden_layer": ["embedding", "block 1", "block 2 (before ln_f)"],
    "d_model": 6,
    "d_mlp": 8,
    "matrix": ["wte", "wpe"],
    "control_example": 0,
}


def random_arrays(seed: int) -> dict[str, np.ndarray]:
    """One of every stored measure, in the sizes of AXES."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for measure in STORED:
        shape = [size if isinstance(size := AXES[axis], int) else len(size) for axis in measure.axes]
        arrays[measure.name] = (100 * rng.random(shape)).astype(measure.dtype)
    return arrays


@pytest.fixture
def store(tmp_path) -> SnapshotStore:
    store = SnapshotStore(RunPaths("a_run", tmp_path))
    store.create({"axes": AXES, "seed": 1})
    return store


def test_measure_table_is_whole():
    assert len(MEASURE) == len(MEASURES)
    for measure in MEASURES:
        assert (
            measure.meaning
            and measure.formula
            and measure.unit
            and measure.group
            and measure.folder in ("attention", "latent", "metrics", "reference")
            and measure.tier in ("light", "heavy", "ends", "final")
        )
    for measure in CLAIMED:
        assert {f"band_{measure.name}", f"floor_{measure.name}"} <= set(MEASURE)
        assert measure.probe_axis and MEASURE[f"band_{measure.name}"].axes == ("perturbation", *measure.unit_axes)
        assert not measure.control or MEASURE[f"control_{measure.name}"].unit_axes == measure.unit_axes


def test_round_trip_keeps_every_bit_and_nan(store):
    arrays = random_arrays(0)
    arrays["attn_gini"][0, 1] = np.nan
    store.write(500, arrays, seconds=1.5)
    loaded = SnapshotStore(store.paths).load(500)
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array, strict=True)
        assert loaded[name].dtype == MEASURE[name].dtype
    assert set(store.load(500, ["attn_sink"])) == {"attn_sink"}
    manifest = store.manifest(500)
    assert manifest["seconds"] == 1.5 and manifest["step"] == 500
    assert store.run_info()["seed"] == 1
    assert Measurements(store.paths).labels("layer") == ["0", "1"]
    assert Measurements(store.paths).labels("matrix")[1] == "wpe"
    assert measured_runs(store.paths.root) == ["a_run"]


def stated(path) -> dict:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["info"])


def test_a_file_says_what_is_in_it_and_equal_data_give_equal_bytes(store, tmp_path):
    arrays, first = random_arrays(0), {"floor_attn_sink": np.zeros((2, 2), np.float32)}
    other = SnapshotStore(RunPaths("a_run", tmp_path / "elsewhere"))
    other.create({"axes": AXES})
    for one, order in ((store, sorted(arrays)), (other, sorted(arrays, reverse=True))):
        one.write(500, {name: arrays[name] for name in order})
        one.write_reference(first)
    for folder in ("attention", "latent", "metrics"):
        file = store.array_file(folder, 500)
        assert file.read_bytes() == other.array_file(folder, 500).read_bytes()
        about = stated(file)
        assert (about["schema_version"], about["run"], about["step"]) == (2, "a_run", 500)
        of_folder = {name: MEASURE[name] for name in arrays if MEASURE[name].folder == folder}
        assert about["arrays"] == {n: {"axes": list(m.axes), "unit": m.unit} for n, m in of_folder.items()}
    assert stated(store.reference_file)["arrays"] == {"floor_attn_sink": {"axes": ["layer", "head"], "unit": "0..1"}}


def test_other_axes_than_this_programs_are_refused_and_none_at_all_are_read(store, monkeypatch):
    arrays = {"probe_loss": np.arange(3, dtype=np.float32), "attn_sink": random_arrays(0)["attn_sink"]}
    store.write(1, arrays)
    swapped = replace(MEASURE["attn_sink"], axes=("example", "region", "head", "layer"))
    monkeypatch.setitem(MEASURE, "attn_sink", swapped)
    with pytest.raises(InputError, match=r"step_00000001.safetensors.*attn_sink.*layer, head.*head, layer"):
        store.load(1, ["attn_sink"])
    np.testing.assert_array_equal(store.load(1, ["probe_loss"])["probe_loss"], arrays["probe_loss"])
    monkeypatch.setattr("gpt2_interp.snapshots.store.description", lambda *args: None)  # an earlier version
    store.write(2, arrays)
    np.testing.assert_array_equal(store.load(2, ["attn_sink"])["attn_sink"], arrays["attn_sink"])


def test_steps_sort_as_numbers_and_stack_follows(store):
    """An earlier project sorted file names: step 1000 came before 200."""
    for step in (1000, 200, 100_000_000, 0):
        store.write(step, {"probe_loss": np.full(3, step)})
    steps, losses = store.stack("probe_loss")
    assert steps == store.steps() == [0, 200, 1000, 100_000_000]
    assert losses.shape == (4, 3) and (losses[:, 0] == steps).all()


def test_a_step_without_manifest_did_not_happen(store, monkeypatch):
    store.write(1, random_arrays(1))
    written = []

    def fail_at_manifest(path, data):
        written.append(path.name)
        if path.suffix == ".json":
            raise OSError("disk full")
        write_atomically(path, data)

    monkeypatch.setattr("gpt2_interp.files.write_atomically", fail_at_manifest)
    monkeypatch.setattr("gpt2_interp.snapshots.store.write_atomically", fail_at_manifest)
    with pytest.raises(OSError, match="disk full"):
        store.write(2, random_arrays(2))
    assert written[-1] == "step_00000002.json" and len(written) == 4  # after its three files
    assert store.steps() == [1] and store.stack("attn_sink")[0] == [1]


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_a_damaged_file_is_named_and_skipped(store, damage):
    for step in (1, 2, 3):
        store.write(step, random_arrays(step))
    path = store.array_file("attention", 2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "bit" else data[:-10])
    fresh = SnapshotStore(store.paths)
    with pytest.raises(InputError, match="step_00000002.safetensors"):
        fresh.load(2, ["attn_sink"])
    with pytest.warns(UserWarning, match="step_00000002.safetensors"):
        assert fresh.stack("attn_sink")[0] == [1, 3]
    assert fresh.stack("hidden_pooled")[0] == [1, 2, 3]  # another file, undamaged


def test_truncate_cuts_everything_after_the_step(store):
    for step in (0, 5, 10, 15):
        store.write(step, random_arrays(step))
        store.append_log({"step": step, "loss": 1.0})
    orphan = store.array_file("latent", 7)
    orphan.write_bytes(b"left by a crash")
    store.truncate(5)
    assert store.steps() == [0, 5] and [line["step"] for line in store.read_log()] == [0, 5]
    files = [
        p for folder in (store.paths.metrics, store.paths.attention, store.paths.latent) for p in folder.glob("step_*")
    ]
    assert len(files) == 2 * 4 and orphan not in files
    store.truncate(-1)
    assert store.steps() == [] and store.read_log() == []


def test_the_reference_is_kept_once_and_checked(store):
    assert store.load_reference() == {}
    arrays = {"hidden_pooled_0": np.ones((3, 3, 3, 6), np.float32), "floor_attn_sink": np.zeros((2, 2), np.float32)}
    store.write_reference(arrays)
    fresh = SnapshotStore(store.paths)
    assert set(fresh.load_reference()) == set(arrays)
    assert set(fresh.load_reference(["floor_attn_sink", "floor_induction"])) == {"floor_attn_sink"}
    np.testing.assert_array_equal(fresh.load_reference()["hidden_pooled_0"], arrays["hidden_pooled_0"], strict=True)
    store.truncate(0)
    assert set(SnapshotStore(store.paths).load_reference()) == set(arrays)
    store.reference_file.write_bytes(store.reference_file.read_bytes()[:-1])
    with pytest.raises(InputError, match="reference.safetensors is damaged"):
        SnapshotStore(store.paths).load_reference()
    store.truncate(-1)
    assert SnapshotStore(store.paths).load_reference() == {} and not store.reference_file.exists()


def test_an_older_schema_says_why_it_is_not_read(store):
    info = json.loads(store.run_file.read_text())
    store.run_file.write_text(json.dumps({**info, "schema_version": 1}))
    with pytest.raises(InputError, match=r"schema version 1, this program reads 2: run it again"):
        SnapshotStore(store.paths).run_info()


def test_wrong_shapes_and_names_are_refused_before_anything_is_written(store):
    arrays = random_arrays(0)
    arrays["attn_sink"] = arrays["attn_sink"].transpose(0, 1, 3, 2)[:, :, :, :1]
    with pytest.raises(ValueError, match="attn_sink.*layer"):
        store.write(1, arrays)
    with pytest.raises(KeyError):
        store.write(1, {"attn_unheard_of": np.zeros(3)})
    assert store.steps() == [] and not store.paths.attention.exists()


def test_half_a_log_line_is_ignored(store):
    store.append_log({"step": 1, "loss": np.float32(0.5), "grad_norm": math.nan})
    store.append_log({"step": 2, "loss": 0.25})
    with open(store.log_file, "a") as file:
        file.write('{"step": 3, "lo')
    assert store.read_log() == [{"step": 1, "loss": 0.5, "grad_norm": None}, {"step": 2, "loss": 0.25}]


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "x.json", {"a": [math.inf, np.int64(3)], 1: {"b": np.float32(0.5)}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 3], "1": {"b": 0.5}}
    assert finite((math.nan, "é")) == [None, "é"]


def test_a_run_that_was_never_measured(tmp_path, store):
    with pytest.raises(InputError, match="a_run"):  # names the runs that exist
        SnapshotStore(RunPaths("other", tmp_path)).run_info()
    with pytest.raises(InputError, match="no intact snapshot"):
        store.stack("attn_sink")


def test_another_schema_says_why_not(store):
    info = json.loads(store.run_file.read_text())
    write_json(store.run_file, {**info, "schema_version": 99})
    with pytest.raises(InputError, match="schema version 99"):
        store.run_info()
    store.run_file.write_text("{")
    with pytest.raises(InputError, match="run.json can.t be read"):
        store.run_info()
