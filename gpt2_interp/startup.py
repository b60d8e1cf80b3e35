"""What must be settled before the libraries are imported, because they read it then. So this imports none of them."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlparse

from gpt2_interp.errors import InputError

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

# A flag that is given -> settings of the preset that it takes the place of. The base model and the data can each be
# named in several ways, of which a run has one; a preset's way gives way to the command line's.
_HUB = {"dataset_name", "dataset_config_name", "dataset_revision"}
_FILES = {"train_file", "validation_file", "test_file"}
_MIXTURE = {"mixture", "source_files"}
SUPERSEDED = {
    "--dataset_name": _HUB | _FILES | _MIXTURE,
    "--train_file": _HUB | _MIXTURE,
    "--mixture": _HUB | _FILES,
    "--config_name": {"model_name_or_path"},
    "--model_name_or_path": {"config_name", "config_overrides", "new_tokenizer_size", "copying_start"},
}
_SIZES = {"max_train_samples", "max_eval_samples", "max_predict_samples"}


def superseded(argv: Iterable[str], settings: Collection[str]) -> set[str]:
    """Names of the preset's `settings` that the flags in `argv` take the place of.

    Files in the place of a dataset have sizes of their own: the preset's numbers of rows, which may be more than they
    have, go with its dataset.
    """
    flags = {_flag(word) for word in argv}
    names = set().union(*(SUPERSEDED.get(flag, ()) for flag in flags))
    if "--train_file" in flags and "train_file" not in settings:
        names |= _SIZES
    return names & set(settings)


def _flag(word: str) -> str:
    """--dataset_name of "--dataset-name=x"; any other word as it is."""
    return "--" + word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else word


def prepare(given: Mapping[str, str]) -> None:
    """Call first in a script that imports torch or Hugging Face's libraries.

    given: the values of `HUB_FLAGS` that the user gave. Raises InputError if one of them can't be had offline.
    """
    # Threads that wait by spinning starve each other as soon as anything else runs on their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    go_offline_if_unreachable()
    if is_offline():
        for flag, name in given.items():
            if not (Path(name).exists() or name.startswith("synthetic_") or _is_cached(flag, name)):
                raise InputError(f"{flag} {name}: {HUB_FLAGS[flag]}")


def given_names(argv: Sequence[str], configs: Path) -> dict[str, str]:
    """Values of `HUB_FLAGS` in a preset and the flags over it, read without the real parser, which imports torch."""
    found: dict[str, str] = {}
    if argv and not argv[0].startswith("-"):
        preset = Path(argv[0]) if argv[0].endswith((".yaml", ".yml")) else configs / f"{argv[0]}.yaml"
        if preset.is_file():
            lines = re.findall(r"^(\w+): *([^\s#]+)", preset.read_text(encoding="utf-8"), re.MULTILINE)
            gone = superseded(argv, dict(lines))
            found = {f"--{key}": value for key, value in lines if f"--{key}" in HUB_FLAGS and key not in gone}
    for i, word in enumerate(argv):
        flag, (_, equals, value) = _flag(word), word.partition("=")
        if flag in HUB_FLAGS and (equals or i + 1 < len(argv)):
            found[flag] = value if equals else argv[i + 1]
    return found


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
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    answer: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((address.hostname, address.port or 443), TIMEOUT_SECONDS).close()
            answer.append(True)
        except OSError:
            answer.append(False)

    # A thread, because the name lookup inside has no time limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return bool(answer and answer[0])
