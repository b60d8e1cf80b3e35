#!/usr/bin/env python
"""Whether a trained model answers in Hugging Face's own classes, started in another folder, as it did in its run.

    python benchmarks/opens_elsewhere.py quickstart
    python benchmarks/opens_elsewhere.py quickstart_lora --rows 16

Opens model_outputs/RUN/best_model with AutoModelForCausalLM (an adapter with AutoPeftModelForCausalLM, also merged) and
with `pipeline`, in the precision that each takes by default, and compares greedy text with the run's
predictions.jsonl. Exit status 1 if a text differs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"
REPOSITORY = Path(__file__).resolve().parents[1]


def ways(folder: str, is_lora: bool) -> dict[str, Callable[[], tuple]]:
    """Name -> a function that returns (model, tokenizer)."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    def of_pipeline():
        write = pipeline("text-generation", model=folder)
        return write.model, write.tokenizer

    def of(model):
        return model, AutoTokenizer.from_pretrained(folder)

    if is_lora:
        return {
            "AutoPeftModelForCausalLM": lambda: of(AutoPeftModelForCausalLM.from_pretrained(folder)),
            "merge_and_unload": lambda: of(AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload()),
            "pipeline": of_pipeline,
        }
    return {
        "AutoModelForCausalLM": lambda: of(AutoModelForCausalLM.from_pretrained(folder)),
        "pipeline": of_pipeline,
    }


def answer(model, tokenizer, source: str, task: dict) -> str:
    """The greedy text behind a source, whose prompt is made as the model card says."""
    import torch

    template = tokenizer("\nTL;DR:")["input_ids"]
    room = min(task["max_source_length"], model.config.n_positions - task["max_target_length"] - len(template))
    ids = torch.tensor([tokenizer(source.strip(), truncation=True, max_length=room)["input_ids"] + template])
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=task["max_target_length"], do_sample=False
    )
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run that summarizes")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="folder that holds model_outputs/")
    parser.add_argument("--rows", type=int, default=200, help="test rows at most")
    args = parser.parse_args()
    outputs = args.root.resolve() / "model_outputs" / args.run
    folder = outputs / "best_model"
    if not folder.is_dir():
        sys.exit(f"{folder} is missing: train the run first.")
    with open(outputs / "predictions.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][: args.rows]
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    is_lora, differ = (folder / "adapter_config.json").is_file(), 0
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)
        for name, opened in ways(str(folder), is_lora).items():
            model, tokenizer = opened()
            same = sum(answer(model, tokenizer, row["source"], task) == row["tuned"] for row in rows)
            print(f"{name}, {model.dtype}: {same} of {len(rows)} as stored", flush=True)
            differ += len(rows) - same
        os.chdir(REPOSITORY)
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
