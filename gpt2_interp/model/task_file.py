"""task.json in the folder of a trained model: what the model was trained to do, and on which lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt2_interp.data.settings import TASKS
from gpt2_interp.errors import InputError

TASK_FILE = "task.json"  # in the folder of a trained model: what it was trained to do, and on which lengths


def trained_task(folder: str | Path) -> dict[str, Any] | None:
    """Return {"task", "max_source_length", "max_target_length"} of a model that this project trained; None of any
    other. Of an adapter also "base_model", as the flag named it.

    Raises InputError for a broken file.
    """
    path = Path(folder) / TASK_FILE
    if not path.is_file():
        return None
    try:
        trained = json.loads(path.read_text(encoding="utf-8"))
        lengths = [trained[f"max_{part}_length"] for part in ("source", "target")]
        if trained["task"] in TASKS and all(type(length) is int and length > 0 for length in lengths):
            return trained
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is damaged: train again, or delete it and say --task.")
