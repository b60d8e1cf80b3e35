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


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON (no NaN, which JSON does not have) atomically."""
    write_atomically(path, (json.dumps(finite(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode())


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
