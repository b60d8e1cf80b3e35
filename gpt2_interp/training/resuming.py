"""The check whether a run may be resumed with today's settings: only with those it began with, as far as they change
the result."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_interp.errors import InputError
from gpt2_interp.files import finite

VERSIONS = ("torch", "transformers")
# Where data are read from. What stands in them is compared by its sha256, wherever it is now.
DATA_FILES = frozenset(("train_file", "validation_file", "test_file", "control_file", "source_files"))


def adopt_choices(recorded: Mapping[str, Any], experiment, training) -> None:
    """Choose again what the run itself chose when it began (precision, batch), where no flag decides it now."""
    was = recorded.get("arguments", {})
    if experiment.precision == "auto":
        experiment.precision = was.get("precision", "auto")
    if experiment.effective_batch_size is None:
        experiment.effective_batch_size = was.get("effective_batch_size")
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        if getattr(training, name) is None:
            setattr(training, name, was.get(name))


def check_settings(recorded: Mapping[str, Any], today: Mapping[str, Any]) -> None:
    """Compare two run.json contents; raise InputError that names each flag which differs, with both values.

    Only what both have is compared: "arguments", except for those that decide nothing (today's "decides" lists them);
    "device", "threads" (on a CPU), "processes", "versions"; and the sha256 of each part of "data", whose files may have
    another path by now.
    """
    recorded, today = _as_written(recorded), _as_written(today)
    changed = _arguments(recorded, today)
    was, now = recorded.get("arguments", {}), today.get("arguments", {})
    differences = [_changed(f"--{name}", was[name], now[name]) for name in changed] + _surroundings(recorded, today)
    if differences:
        flags = " ".join(_as_flag(name, was[name]) for name in changed if was[name] not in (None, []))
        raise InputError(
            f"{', '.join(differences)}: a resumed run must end like one that was never stopped, so resume it as it "
            f"began{f', with {flags}' if flags else ''}, or give another --run_name."
        )


def have_data_moved(recorded: Mapping[str, Any], today: Mapping[str, Any]) -> bool:
    """Return whether a flag names another file of data than the run began with; only reading tells what is in it."""
    return not DATA_FILES.isdisjoint(_differing(*(_as_written(run.get("arguments", {})) for run in (recorded, today))))


def _as_written(value: Any) -> Any:
    """Floats and the like as run.json has them."""
    return json.loads(json.dumps(finite(value)))


def _arguments(recorded: Mapping[str, Any], today: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ and matter."""
    harmless = set(today.get("decides", {}).get("nothing", ()))
    data = recorded.get("data", {}).values()
    if data and all("sha256" in part for part in data):
        harmless |= DATA_FILES
    return [
        name for name in _differing(recorded.get("arguments", {}), today.get("arguments", {})) if name not in harmless
    ]


def _surroundings(recorded: Mapping[str, Any], today: Mapping[str, Any]) -> list[str]:
    """Differences in machine, libraries and data."""
    found = [
        _changed(what, recorded[key], today[key])
        for key, what in (("device", "the device"), ("processes", "the number of processes"))
        if key in _differing(recorded, today)
    ]
    if "threads" in _differing(recorded, today) and today.get("device") == "cpu":
        found.append(_changed("OMP_NUM_THREADS", recorded["threads"], today["threads"]))
    was, now = recorded.get("versions", {}), today.get("versions", {})
    found += [_changed(name, was[name], now[name]) for name in _differing(was, now) if name in VERSIONS]
    was, now = recorded.get("data", {}), today.get("data", {})
    for use in _differing(was, now):
        if "sha256" in _differing(was[use], now[use]):
            found.append(_changed(f"the sha256 of the {use} data", was[use]["sha256"][:12], now[use]["sha256"][:12]))
            names = [Path(one.get("source", "")).name for one in (was[use], now[use])]
            if names[0] != names[1]:
                found[-1] += f" (from {names[0]}, now {names[1]}; rows without an id have it from the file's name)"
    return found


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of both whose values differ, sorted."""
    return sorted(key for key in was.keys() & now.keys() if was[key] != now[key])


def _changed(name: str, was: Any, now: Any) -> str:
    return f"{name} was {_shown(was)} and is now {_shown(now)}"


def _as_flag(name: str, value: Any) -> str:
    """A setting as the command line takes it."""
    values = value if isinstance(value, list) else [value]
    return shlex.join([f"--{name}", *(_shown(one) for one in values)])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
