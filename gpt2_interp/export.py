"""Write what a run has measured as tables or labelled arrays that other tools read.

    python -m gpt2_interp.export quickstart
    python -m gpt2_interp.export quickstart --format netcdf --to /tmp/quickstart_netcdf

Measures with the same axes come together, and their file is named after these axes:

parquet   a table, such as step.example.region.layer.head.parquet: a row for each cell, a column for each axis with its
          labels (the cluster and the half of a probe beside its id), and a column for each measure. For pandas, polars,
          DuckDB, R. Units and meanings are in the metadata of the columns.
zarr      a group of arrays with named dimensions, in one store for the run. Needs the package zarr.
netcdf    the same arrays, a file for each set of axes. NetCDF 4 where the package netCDF4 or h5netcdf is installed;
          otherwise NetCDF 3.

What is stored once for the run, such as the floors of the precision, has no step; what is one number for the whole run
is in the file "run". NaN: undefined, or not measured at that step.
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import argparse
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2_interp.cli.script_parser import ScriptParser
from gpt2_interp.errors import InputError, run_script
from gpt2_interp.snapshots.table import MEASURE, axis_size

if TYPE_CHECKING:
    import pyarrow
    import xarray

    from gpt2_interp.analysis.measurements import Measurements

FORMATS = ("parquet", "zarr", "netcdf")


def main() -> None:
    arguments = parse_arguments()
    from gpt2_interp.analysis.measurements import open_run  # after --help and mistakes, which need not wait for scipy

    written = export(open_run(arguments.run, arguments.root), arguments.format, arguments.to)
    for path in written:
        print(f"wrote {path}")


def export(run: Measurements, form: str, to: Path) -> list[Path]:
    """Write all measures of a run into the new folder `to`; return the paths of what is in it.

    form: one of `FORMATS`. Raises InputError if the folder has something in it or a package is missing.
    """
    if form == "zarr" and importlib.util.find_spec("zarr") is None:
        raise InputError("--format zarr needs the package zarr: pip install zarr, or take --format parquet.")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--to {to} is there already: delete it, or give another folder.")
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))  # the folder appears when it is whole
    try:
        for name, dataset in datasets(run):
            WRITERS[form](dataset, unfinished / name)
        unfinished.chmod(0o777 & ~_umask())
        os.replace(unfinished, to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sorted(to.iterdir())


def datasets(run: Measurements) -> Iterator[tuple[str, xarray.Dataset]]:
    """Yield (the dimensions joined by dots, all measures that have them), with the labels of `run[name]`.

    "run" is the name where there is no dimension.
    """
    import xarray

    together: dict[tuple[str, ...], list[str]] = {}
    for name in run:
        measure = MEASURE[name]
        if all(axis_size(run.info["axes"][axis]) for axis in measure.axes):  # none of probes that this run lacks
            first = () if measure.folder == "reference" else ("step",)
            together.setdefault((*first, *measure.axes), []).append(name)
    facts = {"run": run.paths.run_name, "schema_version": run.info["schema_version"]}
    for dims, names in together.items():
        yield ".".join(dims) or "run", xarray.Dataset({name: run[name] for name in names}, attrs=facts)


# --- the formats --------------------------------------------------------------------------------------------------


def write_parquet(dataset: xarray.Dataset, path: Path) -> None:
    """Write one tidy table, a step at a time so that it need not fit the memory."""
    from pyarrow import parquet

    steps = range(dataset.sizes["step"]) if "step" in dataset.sizes else [None]
    parts = (tidy(dataset if step is None else dataset.isel(step=[step])) for step in steps)
    first = next(parts)
    with parquet.ParquetWriter(path.with_name(f"{path.name}.parquet"), first.schema) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)


def tidy(dataset: xarray.Dataset) -> pyarrow.Table:
    """Return a row for each cell: a column for each coordinate, then one for each measure."""
    import pyarrow

    dims = tuple(next(iter(dataset.values())).dims)
    sizes = [dataset.sizes[dim] for dim in dims]
    columns, fields = [], []

    def add(name: str, column: pyarrow.Array, facts: dict) -> None:
        columns.append(column)
        fields.append(pyarrow.field(name, column.type, metadata={key: str(text) for key, text in facts.items()}))

    coords = sorted(dataset.coords.items(), key=lambda item: (dims.index(item[1].dims[0]), item[0]))
    for name, coord in coords:
        at = dims.index(coord.dims[0])
        index = np.arange(sizes[at]).reshape([-1 if i == at else 1 for i in range(len(dims))])
        cells = pyarrow.array(np.broadcast_to(index, sizes).ravel())
        labels = pyarrow.array(coord.values.tolist())
        add(name, (labels.dictionary_encode() if coord.dtype.kind == "U" else labels).take(cells), coord.attrs)
    for name, values in dataset.items():
        add(name, pyarrow.array(values.transpose(*dims).values.ravel()), values.attrs)
    facts = {key: str(value) for key, value in dataset.attrs.items()}
    return pyarrow.Table.from_arrays(columns, schema=pyarrow.schema(fields, metadata=facts))


def write_zarr(dataset: xarray.Dataset, path: Path) -> None:
    """Write one group of a zarr store."""
    dataset.to_zarr(path.parent / "measures.zarr", group=path.name, mode="a")


def write_netcdf(dataset: xarray.Dataset, path: Path) -> None:
    """Write one NetCDF file; the format has no float16."""
    wider = {name: values.astype("float32") for name, values in dataset.items() if values.dtype == "float16"}
    dataset.assign(wider).to_netcdf(path.with_name(f"{path.name}.nc"))


WRITERS = {"parquet": write_parquet, "zarr": write_zarr, "netcdf": write_netcdf}


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(prog="python -m gpt2_interp.export", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="the run's name")
    parser.add_argument("--format", default=FORMATS[0], choices=FORMATS, help="what to write")
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="a new folder (default: exports/RUN_FORMAT in --root)"
    )
    parser.add_argument("--root", type=Path, default=Path("."), help="the folder that holds the output folders")
    arguments = parser.parse_args()
    if arguments.to is None:
        arguments.to = arguments.root / "exports" / f"{arguments.run}_{arguments.format}"
    return arguments


def _umask() -> int:
    """The bits that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    run_script(main)
