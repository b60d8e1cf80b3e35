"""Sealed checkpoints: which are intact, which one a run is resumed from or takes its best weights from, which may go.

A checkpoint is sealed by manifest.json, which holds the sha256 of each of its files and of itself and is written last.
A folder without it, or that is not what it says, is never used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import GPT2LMHeadModel, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import align_special_tokens

from gpt2_interp.errors import InputError, first_line
from gpt2_interp.files import write_atomically

MANIFEST = "manifest.json"


def say(text: str) -> None:
    print(f"  {text}", flush=True)


# --- sealing ---------------------------------------------------------------------------------------------------


def seal(folder: Path, interruption: bool = False, **info: Any) -> None:
    """Bring every file of a complete checkpoint to disk, then write its manifest, which makes it one.

    interruption: saved because a signal came, between two scheduled checkpoints. info: more to keep in the manifest.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        flush_to_disk(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    body = {"step": step_of(folder), "interruption": interruption, "files": files, **info}
    write_atomically(folder / MANIFEST, _manifest_bytes(body))
    for directory in (*(path for path in folder.rglob("*") if path.is_dir()), folder, folder.parent):
        flush_to_disk(directory)  # a file's name is on disk when its directory is


def verify(folder: Path) -> str | None:
    """Return why a checkpoint can't be trusted, or None if every file is what its manifest says.

    Files that the manifest does not know are ignored: nothing that belongs to a checkpoint comes after its seal.
    """
    if not (folder / MANIFEST).is_file():
        return f"it is not sealed (no {MANIFEST})"
    manifest = _read_manifest(folder)
    if manifest is None:
        return f"{MANIFEST} is damaged"
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if (size := path.stat().st_size) != entry["bytes"]:
            return f"{name} has {size} bytes instead of {entry['bytes']}"
        try:
            if _sha256(path) != entry["sha256"]:
                return f"{name} is damaged (its sha256 is not the manifest's)"
        except OSError as error:
            return f"{name} can't be read ({error})"
    return None


def _manifest_bytes(body: dict[str, Any]) -> bytes:
    """The manifest's text, with the sha256 of everything else in it."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None if it is missing or a single byte of it is not as it was written."""
    try:
        data = (folder / MANIFEST).read_bytes()
        body = json.loads(data)
        del body["sha256"]
        return body if _manifest_bytes(body) == data else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """fsync a file or a directory: what a power cut leaves of it is what was written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- finding ---------------------------------------------------------------------------------------------------


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def all_checkpoints(folder: Path) -> list[Path]:
    """checkpoint-<step> folders, sealed or not, oldest step first."""
    return sorted((path for path in folder.glob("checkpoint-*") if re.fullmatch(r"\d+", path.name[11:])), key=step_of)


def newest_intact(folder: Path, say: Callable[[str], None] = say) -> Path | None:
    """The newest checkpoint that is what its manifest says, or None. Newer ones are named with what is wrong."""
    for path in reversed(all_checkpoints(folder)):
        reason = verify(path)
        if reason is None:
            return path
        say(f"{path} is skipped: {reason}")
    return None


def newest_sealed(folder: Path) -> Path | None:
    """The newest checkpoint with a manifest, not verified."""
    return next((path for path in reversed(all_checkpoints(folder)) if (path / MANIFEST).is_file()), None)


def best_intact_step(
    folder: Path, state: TrainerState, metric: str, greater_is_better: bool, say: Callable[[str], None] = say
) -> int:
    """The evaluated step with the best `metric` whose checkpoint is intact; the last step's weights need none.

    A better one that is damaged or gone is named.
    """
    values = {line["step"]: line[metric] for line in state.log_history if math.isfinite(line.get(metric, math.nan))}
    ranked = sorted(values, key=lambda step: (-values[step] if greater_is_better else values[step], step))
    for step in ranked:
        path = folder / f"checkpoint-{step}"
        reason = None if step == state.global_step else verify(path) if path.exists() else "it is gone"
        if reason is None:
            return step
        if path.exists() or step == state.best_global_step:
            say(f"{path}, step {step} with {metric} {values[step]:.4g}, can't be best_model/: {reason}")
    return state.global_step


# --- removing --------------------------------------------------------------------------------------------------


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint, its seal first: whatever a kill leaves of it is not taken for one. Of a link, only the
    link: somebody keeps the checkpoint elsewhere."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
        return
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def remove_newer(folder: Path, last: Path | None, say: Callable[[str], None] = say) -> None:
    """Delete every checkpoint after `last` (all of them if None): the resumed run will write these steps anew."""
    for path in all_checkpoints(folder):
        if last is None or step_of(path) > step_of(last):
            say(f"{path} is removed: it will be made again")
            remove(path)


def rotate(folder: Path, limit: int | None, best_step: int | None) -> None:
    """Delete old checkpoints after a seal. The newest sealed one, the `limit` newest (all if None), and the best one
    remain.

    Interruption checkpoints go as soon as a newer one is sealed, and so does what was never sealed.
    """
    newest = newest_sealed(folder)
    assert newest is not None, "rotate() is for after a seal"
    scheduled: list[Path] = []
    for path in reversed(all_checkpoints(folder)):  # newest first
        manifest = _read_manifest(path)
        is_scheduled = manifest is not None and not manifest["interruption"]
        scheduled += [path] * is_scheduled
        keep = is_scheduled and (limit is None or len(scheduled) <= limit or step_of(path) == best_step)
        if path != newest and not keep and step_of(path) < step_of(newest):
            remove(path)


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Delete the temporary files of a write that was killed (`write_atomically`'s names), in and below `folders`."""
    for folder in folders:
        for path in folder.rglob(".*.tmp"):
            path.unlink(missing_ok=True)


# --- loading ---------------------------------------------------------------------------------------------------


def load_finished(trainer, checkpoint: Path) -> bool:
    """Return whether training had ended at this checkpoint; then the trainer holds its state and weights.

    Trainer.train(resume_from_checkpoint=...) would take one more step, and go on where early stopping had decided to
    stop.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    control = state.stateful_callbacks.get("TrainerControl", {"args": {}})["args"]
    if state.global_step < state.max_steps and not control.get("should_training_stop", False):
        return False
    load_weights(trainer.model, checkpoint)
    align_special_tokens(trainer.model, trainer.processing_class)  # as training did: the config is saved with the model
    trainer.state = state
    return True


def load_weights(model, checkpoint: Path) -> None:
    """Put a checkpoint's weights (whole model or LoRA adapter) into `model`, in place. Raises InputError."""
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(checkpoint), adapter_name="default", is_trainable=False)
        else:
            loaded = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32)
            model.load_state_dict(loaded.state_dict())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{checkpoint} can't be loaded ({first_line(error)}); train again or delete it.") from None
