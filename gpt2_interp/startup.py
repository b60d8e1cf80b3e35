"""Settings that the libraries read when they are imported, so they come first. This module imports none of them."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gpt2_interp.errors import InputError, first_line, is_disk_full, is_out_of_memory, leave_at_ctrl_c
from gpt2_interp.files import why_unwritable
from gpt2_interp.run_paths import here_or_in_repository

TIMEOUT_SECONDS = 3.0

_FOLDER = "not a local folder, not cached, and the Hugging Face Hub can't be reached; give a folder in its layout."
# Flags whose value may be a name on the Hub, and what to say when it can't be had.
HUB_FLAGS = {
    "--model_name_or_path": _FOLDER,
    "--tokenizer_name": _FOLDER,
    "--model_path": _FOLDER,
    "--base_model": _FOLDER,
    "--compare_to": _FOLDER,
    "--dataset_name": "not cached, and the Hugging Face Hub can't be reached; use --train_file and --validation_file "
    "with local rows, or an embedded source: synthetic_news, synthetic_stories, synthetic_text.",
}
# Where libraries keep what they make again without it: the variable that says so, and where it is by default.
CACHES = {
    "MPLCONFIGDIR": (("XDG_CONFIG_HOME", "~/.config"), ("XDG_CACHE_HOME", "~/.cache")),
    "NUMBA_CACHE_DIR": (("XDG_CACHE_HOME", "~/.cache"),),
}


def begin() -> None:
    """Call in the first line of a script, before any other import.

    Ctrl-C ends its imports without a traceback; pictures go to files; caches are where this user may write; a letter
    that the terminal lacks is printed as its number.
    """
    leave_at_ctrl_c()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # neither closed by the caller nor a notebook's
            stream.reconfigure(errors="backslashreplace")
    os.environ["MPLBACKEND"] = "agg"  # a notebook leaves its own to what it starts, where that may not be installed
    for name, defaults in CACHES.items():
        places = [os.environ[name]] if os.environ.get(name) else [os.environ.get(*default) for default in defaults]
        if any(why_unwritable(Path(place).expanduser()) for place in places):
            os.environ[name] = _temporary_folder()


def _temporary_folder() -> str:
    """A folder of this process, deleted when it ends: one that others know of could hold their code."""
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="gpt2_interp_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def prepare(given: Mapping[str, str]) -> None:
    """Settle the environment; call first in a script that imports torch or Hugging Face's libraries.

    given: the values of `HUB_FLAGS` that the user gave. Raises InputError if one of them can't be had offline.
    """
    # Threads that wait by spinning starve each other as soon as anything else runs on their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    go_offline_if_unreachable()
    if is_offline():
        for flag, name in given.items():
            if not (
                Path(here_or_in_repository(name)).exists() or name.startswith("synthetic_") or _is_cached(flag, name)
            ):
                raise InputError(f"{flag} {name}: {HUB_FLAGS[flag]}")


def _is_cached(flag: str, name: str) -> bool:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    kind = "datasets" if flag == "--dataset_name" else "models"
    return (cache / f"{kind}--{name.replace('/', '--')}").is_dir()


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def go_offline_if_unreachable() -> None:
    """Set HF_HUB_OFFLINE=1 when no TCP connection to the Hub can be made within 3 seconds.

    Without network `from_pretrained` and `load_dataset` retry for 23-199 s before they fail; offline they use what is
    cached, or fail at once. Behind a proxy the libraries reach the Hub though this socket can't: nothing is changed.
    """
    behind_proxy = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if "HF_HUB_OFFLINE" in os.environ or behind_proxy or _reachable():
        return
    os.environ["HF_HUB_OFFLINE"] = "1"


def _reachable() -> bool:
    import socket
    from urllib.parse import urlparse

    answer: list[bool] = []

    def connect() -> None:
        try:
            address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
            socket.create_connection((address.hostname, address.port or 443), TIMEOUT_SECONDS).close()
            answer.append(True)
        except (OSError, ValueError):  # of an address that is none, too
            answer.append(False)

    # A thread, because the name lookup inside has no time limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return bool(answer and answer[0])


@contextmanager
def reading(what: str, name: str, flag: str) -> Iterator[None]:
    """Turn what a library raises while it reads a model's folder, which anybody may have written, into one sentence.

    Hugging Face checks little of it: a wrong value ends in any kind of error. Raises InputError, which names `flag`
    where the folder is missing.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or is_disk_full(error):
            raise
        if isinstance(error, (OSError, ValueError)) and not Path(name).is_dir():
            why = "and the Hugging Face Hub can't be reached" if is_offline() else "nor a model on the Hugging Face Hub"
            problem = (
                f"{what} {name!r} is not a local folder, {why}: give {flag} a local folder in Hugging Face layout."
            )
            raise InputError(problem) from None
        kind = f"{type(error).__name__}: " if isinstance(error, (LookupError, TypeError, AttributeError)) else ""
        raise InputError(f"{what} in {name} can't be loaded: {kind}{first_line(error)}.") from None
