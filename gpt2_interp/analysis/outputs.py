"""The files that a run wrote under model_outputs/: scores, predictions and samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_interp.errors import InputError
from gpt2_interp.files import read_json, read_json_lines
from gpt2_interp.run_paths import RunPaths

SYSTEMS = {
    "base": "base model",
    "tuned": "fine-tuned",
    "lead3": "lead-3 (first three sentences)",
    "tuned_shuffled_source": "fine-tuned, another row's article",
}


def with_names_of_today(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics.json with an older version's fact_recall, which counted any form of a value, as
    fact_recall_lenient. Versions that count strictly write `fact_rule`."""
    if "fact_rule" in metrics:
        return metrics
    return {
        name: {key.replace("fact_recall", "fact_recall_lenient", 1): value for key, value in entry.items()}
        if name in SYSTEMS and isinstance(entry, dict)
        else entry
        for name, entry in metrics.items()
    }


def read_scores(paths: RunPaths) -> tuple[dict[str, Any], str]:
    """metrics.json as far as it is understood, and a sentence if there is nothing."""
    path = paths.model_outputs / "metrics.json"
    if not path.exists():
        return {}, "No scores yet: model_outputs/<run>/metrics.json is written when training ends."
    try:
        metrics = read_json(path)
    except InputError:
        return {}, f"{path.name} is not readable JSON."
    if not any(isinstance(metrics.get(system), dict) for system in SYSTEMS):
        return {}, f"{path.name} holds no scores that this report knows."
    return with_names_of_today(metrics), ""


def read_rows(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The first lines that are whole JSON objects. Others are left out, and named in a warning, and so is the file
    where a finished run lacks it."""
    if not path.exists():
        if (path.parent / "metrics.json").exists():
            warnings.warn(f"{path} is missing", stacklevel=2)
        return []
    try:
        rows, notes = read_json_lines(path)
    except InputError as error:
        rows, notes = [], [str(error)]
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return rows[:most]


def spread_samples(rows: list[dict[str, Any]], most_steps: int = 4, most_ids: int = 2) -> list[dict[str, Any]]:
    """Choose two prompts of the texts written during training, each at up to four steps from first to last."""
    shown = []
    for sample_id in list(dict.fromkeys(str(row.get("id")) for row in rows))[:most_ids]:
        texts = [row for row in rows if str(row.get("id")) == sample_id]
        texts.sort(key=lambda row: row["step"] if is_number(row.get("step")) else -1)
        positions = sorted({round(i * (len(texts) - 1) / max(1, most_steps - 1)) for i in range(most_steps)})
        first = texts[0]
        shown.append(
            {
                "id": sample_id,
                "prompt": str(first.get("prompt", "")),
                "reference": str(first.get("reference", "")),
                "texts": [
                    (texts[i].get("step", "?"), str(texts[i].get("generated", "")), _facts_of(texts[i]))
                    for i in positions
                    if i < len(texts)
                ],
            }
        )
    return shown


def _facts_of(sample: Mapping[str, Any]) -> str:
    """What a sample states and writes, in words; "" where no facts are known."""
    names = ("facts_stated", "facts", "values_right", "values_written")
    if not all(is_number(sample.get(name)) for name in names):
        return ""
    return "states {} of {} facts; {} of {} values are right".format(*(sample[name] for name in names))


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
