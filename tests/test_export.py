"""python -m gpt2_interp.export: what it writes is what the store holds."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from pyarrow import parquet

from gpt2_interp.analysis.measurements import open_run
from gpt2_interp.errors import InputError
from gpt2_interp.export import export
from gpt2_interp.snapshots.table import MEASURE, axis_size
from tests.fake_store import write_fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    write_fake_run(root, "fake", steps=(0, 100, 1000))
    return open_run("fake", root)


def expected(run):
    """Names of the measures of which this run has probes."""
    return {name for name in run if all(axis_size(run.info["axes"][axis]) for axis in MEASURE[name].axes)}


def test_parquet_has_every_number_beside_its_labels(run, tmp_path):
    random, found = np.random.default_rng(0), set()
    for path in export(run, "parquet", tmp_path / "out"):
        table = parquet.read_table(path)
        frame, dims = table.to_pandas(), [] if path.stem == "run" else path.stem.split(".")
        names = [name for name in table.column_names if name in MEASURE]
        key = [name for dim in dims for name in (("query", "key") if dim == "query_key" else (dim,))]
        assert len(frame) == len(frame.drop_duplicates(key or None)) and table.schema.metadata[b"run"] == b"fake"
        for name in names:
            values, found = run[name], found | {name}
            assert values.dims == tuple(dims) and frame[name].notna().sum() == np.isfinite(values).sum()
            assert table.schema.field(name).metadata[b"units"].decode() == MEASURE[name].unit
            for _ in range(5):
                cell = values[tuple(random.integers(values.shape))]
                row = frame
                for label in key:
                    row = row[row[label] == cell[label].item()]
                np.testing.assert_array_equal(row[name], [cell.item()])
                assert "example" not in dims or row["example_cluster"].item() == cell["example_cluster"].item()
    assert found == expected(run) and [path.name for path in tmp_path.iterdir()] == ["out"]


def equal(dataset, run):
    for name, values in dataset.items():
        known = run[name]
        assert values.dims == known.dims and values.attrs["units"] == MEASURE[name].unit
        np.testing.assert_array_equal(values.sel(step=known.step) if "step" in known.dims else values, known)
        for label in set(known.coords) - {"step"}:
            np.testing.assert_array_equal(values[label], known[label])
    return set(dataset)


def test_netcdf_is_what_open_run_gives(run, tmp_path):
    found = set()
    for path in export(run, "netcdf", tmp_path / "out"):
        with xr.open_dataset(path) as dataset:
            found |= equal(dataset, run)
    assert found == expected(run)


def test_zarr_is_what_open_run_gives(run, tmp_path):
    pytest.importorskip("zarr", reason="zarr is not installed")
    (store,) = export(run, "zarr", tmp_path / "out")
    found = set()
    for group in (path.name for path in store.iterdir() if path.is_dir()):
        found |= equal(xr.open_zarr(store, group=group), run)
    assert found == expected(run)


def program(*flags):
    return subprocess.run([sys.executable, "-m", "gpt2_interp.export", *flags], capture_output=True, text=True)


def test_the_program_writes_a_new_folder_and_names_what_is_missing(run):
    root = str(run.paths.root)
    done = program("fake", "--root", root)
    assert done.returncode == 0 and "step.example.parquet" in done.stdout and not done.stderr
    assert (run.paths.root / "exports" / "fake_parquet" / "step.example.parquet").is_file()
    again = program("fake", "--root", root)
    assert again.returncode == 2 and "--to" in again.stderr and again.stderr.count("\n") == 1
    wrong = program("fack", "--root", root)
    assert wrong.returncode == 2 and "fack" in wrong.stderr and "fake" in wrong.stderr
    if importlib.util.find_spec("zarr") is None:
        missing = program("fake", "--root", root, "--format", "zarr")
        assert missing.returncode == 2 and "pip install zarr" in missing.stderr


def test_a_folder_with_something_in_it_is_refused_and_nothing_is_half_written(run, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(InputError, match="--to .*full"):
        export(run, "parquet", tmp_path / "full")

    def fails(dataset, path):
        path.write_text("half")
        raise OSError("no space")

    monkeypatch.setitem(export.__globals__["WRITERS"], "parquet", fails)
    with pytest.raises(OSError, match="no space"):
        export(run, "parquet", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
