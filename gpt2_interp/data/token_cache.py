"""Tokenized examples kept between runs, under datasets' cache folder; deleting that folder costs time, nothing else.

A file is found by what its content follows from (rows, tokenizer, settings, this format) and believed only if its own
sha256 says that it is whole: safetensors loads a flipped bit without a word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from gpt2_interp.data.cache import cache_folder
from gpt2_interp.files import write_atomically

FORMAT = 1  # raise it when the same rows, tokenizer and settings give other examples, or are stored otherwise


def key(fingerprint: str, tokenizer, settings: Mapping[str, Any]) -> str | None:
    """sha256 of all that the examples follow from; None for a tokenizer that can't be serialized."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "to_str"):
        return None
    content = json.loads(backend.to_str())
    content = {name: content[name] for name in content if name not in ("padding", "truncation")}  # of its latest call
    parts = [FORMAT, fingerprint, content, tokenizer.eos_token_id, dict(settings)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read(key: str | None) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str, str]], dict[str, int]] | None:
    """Return (ids [token], spans [example, 4], names, counts) as written; None where there is no whole file."""
    path = _path(key)
    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in ("ids", "spans", "names")}
            metadata = file.metadata()
        if _digest(arrays, metadata["counts"]) != metadata["sha256"]:
            return None
        names = [tuple(name) for name in json.loads(arrays["names"].tobytes())]
        return arrays["ids"], arrays["spans"], names, json.loads(metadata["counts"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None  # damaged: tokenized again, and written anew


def write(
    key: str | None, ids: np.ndarray, spans: np.ndarray, names: Sequence[tuple], counts: Mapping[str, int]
) -> None:
    """Keep the examples. If that is not possible (full disk, read-only home), print it and let the run go on."""
    path = _path(key)
    if path is None:
        return
    arrays = {"ids": ids, "spans": spans, "names": np.frombuffer(json.dumps(list(names)).encode(), dtype=np.uint8)}
    metadata = {"counts": json.dumps(dict(counts))}
    metadata["sha256"] = _digest(arrays, metadata["counts"])
    try:
        write_atomically(path, save(arrays, metadata))
    except OSError as error:
        tqdm.write(f"tokenized rows can't be kept for the next run: {error}")


def _path(key: str | None) -> Path | None:
    return None if key is None else cache_folder() / "tokens" / f"{key}.safetensors"


def _digest(arrays: Mapping[str, np.ndarray], counts: str) -> str:
    digest = hashlib.sha256(counts.encode())
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}{arrays[name].dtype}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
