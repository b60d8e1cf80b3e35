"""The snapshot store: what was measured on the fixed probes at one optimizer step.

Every array is declared in `table.py`, and the writer validates against it. A snapshot is up to three
safetensors files and a manifest `interpretability_metrics/<run>/step_00000500.json` with their sha256, written last: a
step without it did not happen. What later snapshots are compared with stands once in `reference.safetensors`. Each of
these files describes itself: `description`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_save

from gpt2_interp.errors import InputError
from gpt2_interp.files import finite, read_json, read_json_lines, write_atomically, write_json
from gpt2_interp.run_paths import RunPaths, measured_runs
from gpt2_interp.snapshots.table import MEASURE, Measure, axis_size

SCHEMA_VERSION = 2
ENTRY = {"file", "bytes", "sha256", "arrays"}  # what a manifest says of a file


class SnapshotStore:
    """Snapshots, probe set and training log of one run.

    run.json holds the run's settings and "axes": {axis name: size or list of labels}, which every array must fit.
    """

    def __init__(self, paths: RunPaths):
        self.paths = paths
        self._folders = {"attention": paths.attention, "latent": paths.latent, "metrics": paths.metrics}

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
        info = read_json(self.run_file)
        if info.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                f"{self.run_file} has schema version {info.get('schema_version')}, this program reads "
                f"{SCHEMA_VERSION}: run it again with gpt2_summarization.py --overwrite, or draw it with the version "
                f"of this project that wrote it."
            )
        if not isinstance(info.get("axes"), dict):
            raise InputError(f"{self.run_file} is damaged (it names no axes): run the training again.")
        return info

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
            assert measure.folder in self._folders, f"{name} is no part of a snapshot"
            by_folder.setdefault(measure.folder, {})[name] = _checked(measure, np.asarray(array), axes)
        files = {folder: _write_arrays(self.array_file(folder, step), group) for folder, group in by_folder.items()}
        manifest = {"step": step, "schema_version": SCHEMA_VERSION, "written": time.time(), "files": files, **info}
        write_json(self.manifest_file(step), manifest)

    def remove(self, step: int) -> None:
        """Forget one snapshot, so that it can be taken again with more measures."""
        self.manifest_file(step).unlink()
        for folder in self._folders:
            self.array_file(folder, step).unlink(missing_ok=True)

    def manifest(self, step: int) -> dict[str, Any]:
        """The manifest of one snapshot. Raises InputError if it is not readable JSON."""
        return _read_manifest(self.manifest_file(step))

    def load(self, step: int, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays of one snapshot, all or those of `names` that it has; only these are read.

        Raises InputError, with the file's name, where a file can't be read or its sha256 is wrong.
        """
        wanted = None if names is None else set(names)
        arrays: dict[str, np.ndarray] = {}
        for folder, entry in self.manifest(step)["files"].items():
            here = [name for name in entry["arrays"] if wanted is None or name in wanted]
            if here:
                arrays |= _read_arrays(self._folders[folder] / entry["file"], entry["sha256"], here)
        return arrays

    def stack(self, name: str) -> tuple[list[int], np.ndarray]:
        """Return (steps, array [step, *axes]) of one measure over all snapshots that have it, undamaged.

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

    # ---- the reference: step 0, once per run ----

    @property
    def reference_file(self) -> Path:
        return self.paths.metrics / "reference.safetensors"

    def write_reference(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Store what later snapshots are compared with: measures of folder "reference"."""
        axes = self.run_info()["axes"]
        assert all(MEASURE[name].folder == "reference" for name in arrays)
        checked = {name: _checked(MEASURE[name], np.asarray(array), axes) for name, array in arrays.items()}
        entry = _write_arrays(self.reference_file, checked)
        write_json(self.reference_file.with_suffix(".json"), {"schema_version": SCHEMA_VERSION, **entry})

    def reference_names(self) -> set[str]:
        """Names of the arrays that the reference holds; none without one."""
        manifest = self.reference_file.with_suffix(".json")
        return set(_read_manifest(manifest)["arrays"]) if manifest.is_file() else set()

    def load_reference(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays of the reference, all or those of `names` that it has; {} without one. InputError if damaged."""
        manifest = self.reference_file.with_suffix(".json")
        if not manifest.is_file():
            return {}
        entry = _read_manifest(manifest)
        wanted = set(entry["arrays"]) if names is None else set(names) & set(entry["arrays"])
        return _read_arrays(self.reference_file, entry["sha256"], sorted(wanted)) if wanted else {}

    def truncate(self, last_step: int) -> None:
        """Forget what came after `last_step`, where a resume goes on: snapshots, log lines, files without manifest."""
        for step in self.steps():
            if step > last_step:
                self.manifest_file(step).unlink()  # first: from now on the step did not happen
        if last_step < 0:
            self.reference_file.with_suffix(".json").unlink(missing_ok=True)
            self.reference_file.unlink(missing_ok=True)
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

    def write_tokens(self, texts: Mapping[int, str]) -> None:
        """tokens.json: the text of every token id that occurs in the probes."""
        write_json(self.paths.metrics / "tokens.json", texts)

    def tokens(self) -> dict[int, str]:
        """Return what `write_tokens` stored; {} if nothing was. Raises InputError if it is damaged."""
        path = self.paths.metrics / "tokens.json"
        try:
            return {int(i): text for i, text in read_json(path).items()} if path.exists() else {}
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}).") from None

    def probe_set(self) -> dict[str, Any]:
        """probe_set.json. Raises InputError if it can't be read."""
        return read_json(self.probe_file)

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Append one line, {"step": ..., scalars}, to training_log.jsonl."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(record), allow_nan=False) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """All complete lines of the training log. Others are left out, and named in a warning."""
        if not self.log_file.exists():
            return []
        lines, notes = read_json_lines(self.log_file)
        kept = [line for line in lines if isinstance(line.get("step"), int)]
        if len(kept) < len(lines):
            notes.append(f"{self.log_file}: {len(lines) - len(kept)} lines without a step are left out.")
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return kept


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write one safetensors file; return its entry in the manifest."""
    step = re.fullmatch(r"step_(\d+)", path.stem)
    about = {name: {"axes": MEASURE[name].axes, "unit": MEASURE[name].unit} for name in sorted(arrays)}
    data = safetensors_save(dict(arrays), description(path.parent.name, int(step[1]) if step else 0, about))
    write_atomically(path, data)
    sha256 = hashlib.sha256(data).hexdigest()
    return {"file": path.name, "bytes": len(data), "sha256": sha256, "arrays": sorted(arrays)}


def description(run: str, step: int | None, arrays: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, str]:
    """Return the metadata of a safetensors file that says what is in it.

    arrays: {name: {"axes": names of the dimensions, "unit": ...}}. One entry, "info", holds it all as JSON: safetensors
    writes several in a random order, and equal arrays must give equal bytes.
    """
    info = {"schema_version": SCHEMA_VERSION, "run": run, "step": step, "arrays": arrays, **more}
    return {"info": json.dumps(finite(info), ensure_ascii=False, sort_keys=True, allow_nan=False)}


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a snapshot or of the reference. Raises InputError if it can't be read, or lacks an entry."""
    manifest = read_json(path)
    entries = manifest.get("files", {"reference": manifest})
    whole = isinstance(entries, dict) and all(isinstance(e, dict) and e.keys() >= ENTRY for e in entries.values())
    if not whole:
        raise InputError(f"{path} is damaged (it does not say which arrays there are).")
    return manifest


def _read_arrays(path: Path, sha256: str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the named arrays of one file. Raises InputError, with the file's name, if the file is not what was
    written."""
    try:
        found = path.stat()
        file = _opened(path.absolute(), sha256, (found.st_ino, found.st_size, found.st_mtime_ns))
        if file is None:
            raise InputError(f"{path} is damaged (its sha256 is not the manifest's).")
        stated = json.loads((file.metadata() or {}).get("info", "{}")).get("arrays", {})  # none in an earlier version's
        for name in names:
            if name in stated and name in MEASURE and stated[name]["axes"] != list(MEASURE[name].axes):
                raise InputError(
                    f"{path} has {name} along {', '.join(stated[name]['axes'])}, this program has it along "
                    f"{', '.join(MEASURE[name].axes)}: read it with the version of this project that wrote it."
                )
        return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} can't be read ({error}).") from None


@functools.cache
def _opened(path: Path, sha256: str, version: tuple[int, ...]) -> safe_open | None:
    """The file, mapped into memory; None if its sha256 is another one.

    Opened and checked once a process for each version (inode, bytes, time). A mapped file takes no file descriptor.
    """
    with open(path, "rb") as file:
        intact = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    return safe_open(path, framework="numpy") if intact else None


def _checked(measure: Measure, array: np.ndarray, axes: Mapping[str, Any]) -> np.ndarray:
    """Return `array` in the measure's dtype, contiguous. Raises ValueError if its shape is not that of the measure's
    axes."""
    sizes = tuple(axis_size(axes[axis]) for axis in measure.axes)
    if array.shape != sizes:
        raise ValueError(f"{measure.name} has shape {array.shape}; its axes {measure.axes} want {sizes}")
    return np.asarray(array, dtype=measure.dtype, order="C")  # ascontiguousarray would give a scalar an axis
