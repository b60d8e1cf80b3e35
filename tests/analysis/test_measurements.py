import hashlib
import subprocess
import sys

import numpy as np
import pytest

import gpt2_interp
from gpt2_interp import open_run
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots import store as snapshot_store
from gpt2_interp.snapshots.table import MEASURE, STORED
from tests.fake_store import STEPS, write_fake_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_fake_run(root, "a_run")
    return root


@pytest.fixture
def run(root) -> Measurements:
    return open_run("a_run", root=root)


def test_a_measure_has_the_labels_of_the_table_and_of_the_run(run):
    entropy = run["attn_entropy"]
    assert entropy.dims == ("step", *MEASURE["attn_entropy"].axes) and entropy.step.values.tolist() == list(STEPS)
    assert entropy.region.values.tolist() == ["Q", "A"] and entropy.layer.values.tolist() == [0, 1, 2]
    assert entropy.example.values[0] == "probe-0" and entropy.example_cluster.values[0] == "event 0"
    assert entropy.attrs["units"] == "bits" and entropy.attrs["formula"] == MEASURE["attn_entropy"].formula
    assert entropy.attrs["meaning"] == MEASURE["attn_entropy"].meaning
    steps, values = run.stack("attn_entropy")
    one = entropy.sel(step=200, region="A", layer=1, head=2, example="probe-3")
    assert one.item() == values[steps.index(200), 3, 1, 1, 2]
    assert run["hidden_norm"].hidden_layer.values[0] == "embedding"


def test_what_is_stored_once_has_no_step(run):
    assert run["floor_attn_sink"].dims == ("layer", "head")


def test_a_pattern_knows_query_and_key(run):
    pattern = run["attn_pattern"].isel(step=0, pattern_example=0, layer=0, head=0)
    square = pattern.set_index(query_key=["query", "key"]).unstack("query_key")
    assert square.dims == ("query", "key") and square.sizes["query"] == square.sizes["key"]
    assert np.isnan(square.sel(query=2, key=3)) and square.sel(query=3, key=2) == pattern.values[3 * 4 // 2 + 2]


def test_every_measure_is_named_and_labelled(run):
    assert {measure.name for measure in STORED} <= set(run) and "attn_entropy" in run
    for name in run:
        assert run[name].name == name and set(run[name].dims) == {"step", *MEASURE[name].axes} - (
            {"step"} if MEASURE[name].folder == "reference" else set()
        )


def test_one_snapshot_has_all_its_measures_or_the_named_ones(run, root):
    last = run.snapshot(1000)
    assert last.step == 1000 and last.attrs["run"] == "a_run" and "band_attn_sink" in last and "grad_share" in last
    first = run.snapshot(0, ["attn_sink", "probe_loss"])
    assert list(first) == ["attn_sink", "probe_loss"] and first.sizes["example"] == 24
    np.testing.assert_array_equal(first["attn_sink"], run["attn_sink"].sel(step=0))
    assert list(run.snapshot(0, "attn_sink")) == ["attn_sink"]


def test_wrong_names_and_steps_are_named(run):
    with pytest.raises(InputError, match="attn_entropy"):
        run["attn_entropie"]
    with pytest.raises(InputError, match="step 7"):
        run.snapshot(7)
    with pytest.raises(InputError, match="band_attn_sink"):
        run.snapshot(0, ["band_attn_sink"])
    with pytest.raises(AttributeError, match="open_runs"):
        gpt2_interp.open_runs  # noqa: B018


def test_a_measure_that_the_run_lacks_is_named(tmp_path):
    write_fake_run(tmp_path, steps=(0, 10), tiers=("light",), claims=False)
    with pytest.raises(InputError, match="stable_rank"):
        open_run("fake", tmp_path)["stable_rank"]


def test_a_damaged_file_is_skipped_over_all_snapshots_and_refused_alone(tmp_path):
    store = write_fake_run(tmp_path, claims=False)
    file = store.array_file("attention", 50)
    file.write_bytes(file.read_bytes()[:-4] + b"!!!!")
    run = open_run("fake", tmp_path)
    with pytest.warns(UserWarning, match=file.name):
        assert run["attn_sink"].step.values.tolist() == [0, 100, 200, 1000]
    with pytest.raises(InputError, match=file.name):
        run.snapshot(50)
    assert run.snapshot(50, ["probe_loss"]).sizes["example"] == 24  # another file


def test_a_damaged_manifest_is_named_and_skipped(tmp_path):
    store = write_fake_run(tmp_path, claims=False)
    store.manifest_file(50).write_text("{")
    store.reference_file.with_suffix(".json").write_text("{")
    run = open_run("fake", tmp_path)
    with pytest.warns(UserWarning, match="reference.json"):
        assert "attn_sink" in list(run)
    with pytest.warns(UserWarning, match="step_00000050.json"):
        assert run["attn_sink"].step.values.tolist() == [0, 100, 200, 1000]
    with pytest.raises(InputError, match="step_00000050.json"):
        run.snapshot(50)


def test_without_a_probe_set_probes_are_numbered(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10), claims=False)
    store.probe_file.write_text("{")
    with pytest.warns(UserWarning, match="probe_set.json"):
        assert open_run("fake", tmp_path)["probe_loss"].example.values.tolist() == list(range(24))


def test_each_file_is_checked_once_and_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    store = write_fake_run(tmp_path, claims=False)
    checked, read = [], []
    digest, opened = hashlib.file_digest, snapshot_store.safe_open

    class Watched:
        def __init__(self, path, framework):
            self.file = opened(path, framework=framework)

        def get_tensor(self, name):
            read.append(name)
            return self.file.get_tensor(name)

        def metadata(self):
            return self.file.metadata()

    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: checked.append(file.name) or digest(file, name))
    monkeypatch.setattr(snapshot_store, "safe_open", Watched)
    snapshot_store._opened.cache_clear()
    for _ in range(2):
        run = Measurements(RunPaths("fake", tmp_path))
        run.stack("attn_sink"), run.stack("attn_sink"), run.stack("attn_gini"), run.series(["attn_sink"])
    assert sorted(checked) == sorted(str(store.array_file("attention", step)) for step in STEPS)
    assert set(read) == {"attn_sink", "attn_gini"} and len(read) == 2 * 3 * len(STEPS)
    snapshot_store._opened.cache_clear()


def test_reading_a_run_takes_no_torch_and_importing_the_package_nothing(root):
    program = (
        "import sys, gpt2_interp; assert not {'numpy', 'scipy', 'torch'} & set(sys.modules); "
        f"run = gpt2_interp.open_run('a_run', root={str(root)!r}); run['attn_sink'], run.snapshot(0); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
