"""Parts that the benchmarks share: where real data are, and what the machine is."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

# Real text and GPT-2's tokenizer files, which this repository must not hold. Tests read the same setting.
DATA = Path(os.environ.get("GPT2_INTERP_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def refuse_without(data: Path, *files: str) -> None:
    """Exit with status 2 and one sentence if one of the files is not in the data folder."""
    for file in files:
        if not (data / file).is_file():
            print(
                f"error: there is no {file} in {data}: name a folder that has it with --data or GPT2_INTERP_DATA "
                "(cnn_dailymail/*.jsonl has article and highlights, webtext/*.jsonl has text, gpt2_tokenizer/ is "
                "GPT-2's vocab.json and merges.txt).",
                file=sys.stderr,
            )
            sys.exit(2)


def wait(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine() -> dict:
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "cpu": name,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
