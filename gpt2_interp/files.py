"""Files that are whole or absent: written under a temporary name, flushed, renamed."""

from __future__ import annotations

import errno
import glob
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from gpt2_interp.errors import InputError, first_line


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, flush to disk, rename.

    Temporary files that killed writes of this file have left are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = leftover.name.split(".")[-2]
        if number.isdigit() and not _is_running(int(number)):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def json_bytes(value: Any) -> bytes:
    """Return strict JSON: no NaN, which JSON does not have."""
    return (json.dumps(finite(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically."""
    write_atomically(path, json_bytes(value))


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InputError, with the file's name, if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: no JSON, or no UTF-8
        raise InputError(f"{path} can't be read ({first_line(error)}).") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object.")
    return value


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return (the JSON objects of a file's lines, a sentence about each line that is none).

    A last line without its end, which is still being written or was cut off, is left out like a damaged one. Raises
    InputError, with the file's name, if it can't be read.
    """
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path} can't be read ({first_line(error)}).") from None
    objects, damaged = [], [] if lines or rest else [f"{path} is empty."]
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            objects.append(value)
        else:
            damaged.append(f"{path}, line {number}, is damaged and left out.")
    if rest:
        damaged.append(f"{path}, line {len(lines) + 1}, has no end and is left out.")
    return objects, damaged


def finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity replaced by None, and numpy scalars by Python's."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "dtype") and hasattr(value, "item"):  # a numpy scalar, without importing numpy
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def why_unwritable(folder: Path) -> str | None:
    """Return why no file can be written in `folder`, as far as permissions say, or None.

    A folder that is missing is judged by the nearest one above it, in which it would be made.
    """
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is {'a link to nothing' if folder.is_symlink() and not folder.exists() else 'not a folder'}"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} can't be written"


def lock(file: IO) -> bool:
    """Lock an open file against other processes; return False if one of them has it.

    A record lock (lockf): the kernel frees it when the process dies, and workers that it forks don't inherit it.
    Raises OSError where the file system or the operating system has no such locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError(errno.ENOLCK, "Python has no fcntl on this system") from None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def line_writer(path: Path) -> Callable[[dict], None]:
    """Return a function that appends one JSON line to `path`."""

    def append(record: dict) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    return append
