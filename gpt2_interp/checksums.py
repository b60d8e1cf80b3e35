"""Checksums of files beside them, in the form that `sha256sum -c sha256sums.txt` checks too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from gpt2_interp.files import write_atomically

NAME = "sha256sums.txt"


def write_checksums(folder: Path, files: Iterable[Path], to_come: Mapping[str, bytes] | None = None) -> None:
    """Write the sha256 of the files to sha256sums.txt in `folder`, sorted by their paths as seen from there.

    to_come: files of the folder that are written only after this, by name with their content.
    """
    sums = {os.path.relpath(path, folder): _sha256(path) for path in files}
    sums |= {name: hashlib.sha256(data).hexdigest() for name, data in (to_come or {}).items()}
    lines = (f"{digest}  {Path(name).as_posix()}\n" for name, digest in sorted(sums.items()))
    write_atomically(folder / NAME, "".join(lines).encode())


def changed_files(folder: Path) -> list[str]:
    """Return the files that are not what sha256sums.txt in `folder` says, changed or gone, as paths from there; none
    where there is no such file. A line of it that can't be read is named as sha256sums.txt itself."""
    try:
        lines = (folder / NAME).read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n")
    except FileNotFoundError:
        return []
    except OSError:
        return [NAME] if os.path.isdir(folder) else []
    changed = []
    for line in lines:
        digest, _, name = line.partition("  ")
        if not name or "\0" in name:
            changed.append(NAME)
        elif not (folder / name).is_file() or _sha256(folder / name) != digest:
            changed.append(name)
    return list(dict.fromkeys(changed))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
