"""What the test rows' outputs leave behind: predictions.jsonl, and scores for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from gpt2_interp.evaluation.facts import stated_facts, written_values
from gpt2_interp.evaluation.rouge import ROUGE_TYPES
from gpt2_interp.evaluation.test_rows import Result, ScoredRows
from gpt2_interp.files import write_atomically


def write_predictions(path: Path, test: ScoredRows, results: Mapping[str, Result]) -> None:
    """predictions.jsonl: id, source, reference and each result's output.

    Where the facts are known also "facts": slot, the value as the reference states it, and for each result whether its
    output states it and contradicts it nowhere; and "values", for each result what it writes (`facts.written_values`).
    """
    lines = []
    for i, row in enumerate(test.rows):
        outputs = {name: result.outputs[i] for name, result in results.items()}
        line: dict[str, Any] = {"id": row["id"], "source": row["source"], "reference": row["target"], **outputs}
        if test.has_facts:
            written = {name: written_values(text, row["facts"]) for name, text in outputs.items()}
            found = {name: stated_facts(row["facts"], values) for name, values in written.items()}
            line["facts"] = [
                {"slot": fact["slot"], "value": fact["stated"], **{name: found[name][k] for name in found}}
                for k, fact in enumerate(row["facts"])
            ]
            line["values"] = written
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines).encode())


def write_rouge_scalars(log_folder: Path, base: Result, tuned: Result, step: int) -> None:
    """rouge/rouge1 ... in TensorBoard: the base at step 0, the tuned model at the last step."""
    with SummaryWriter(str(log_folder)) as writer:
        for at, result in ((0, base), (step, tuned)):
            for kind in ROUGE_TYPES:
                if kind in result.scores:
                    writer.add_scalar(f"rouge/{kind}", result.scores[kind], at)
