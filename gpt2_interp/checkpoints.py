"""Which checkpoint a resumed run goes on from."""

from __future__ import annotations

import re
from pathlib import Path

# Without one of these the Trainer resumes silently wrong: fresh optimizer state, schedule or random numbers.
NEEDED = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


def all_checkpoints(folder: Path) -> list[Path]:
    """checkpoint-<step> folders, oldest step first."""
    found = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    return [path for _, path in sorted(found)]


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint with all its files, or None."""
    for path in reversed(all_checkpoints(folder)):
        if _is_complete(path):
            return path
        print(f"  {path} is incomplete and skipped", flush=True)
    return None


def _is_complete(path: Path) -> bool:
    has_random_state = any(path.glob("rng_state*.pth"))
    return (
        has_random_state
        and all((path / name).is_file() for name in NEEDED)
        and any((path / name).is_file() for name in WEIGHTS)
    )


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))
