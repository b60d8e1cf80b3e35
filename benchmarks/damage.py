#!/usr/bin/env python
"""Damage each file of a finished toy run in turn, and start whatever reads it.

    python benchmarks/damage.py                    every file, damage and reader: about 1,000 cases, 40 minutes
    python benchmarks/damage.py --cases 60 --seed 3 --readers report text

Damages: half of it, empty, one bit flipped, deleted, a folder in its place. Readers: the report (visualize_metrics.py,
without pictures), the latent space (analyze_latent_space.py, without pictures), --resume of the run as if it had been
killed before metrics.json, and text (generate_text.py, from best_model/).

A case ends "same" (the same numbers or text as before), "named" (what is printed, or the result, names the file),
"silent" (other numbers, and nobody says why) or "traceback". Exits with 1 if any case ends in one of the last two.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.append(str(Path(__file__).resolve().parents[1]))

TRAINING = "gpt2_summarization"


# --- damages -----------------------------------------------------------------------------------------------------


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Flip one bit, in a digit where there is one: what stays readable is the harder case."""
    data = bytearray(path.read_bytes())
    digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()] if path.suffix in (".json", ".jsonl") else []
    if data:
        data[digits[len(digits) // 2] if digits else len(data) // 2] ^= 1
    path.write_bytes(data)


def delete(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = (halve, empty, flip, delete, folder)


# --- readers -----------------------------------------------------------------------------------------------------


def no_pictures() -> None:
    """In the process of analyze_latent_space.py: the coordinates are what may be wrong."""
    import analyze_latent_space

    analyze_latent_space.draw = lambda *args: []


@dataclass(frozen=True)
class Reader:
    """A script, the folders of the run that it reads, and what it makes of them."""

    script: str
    flags: Callable[[Any], list[str]]  # of the run's paths
    folders: tuple[str, ...]  # of RunPaths
    result: Callable[[Any, str], Any]  # of the run's paths and what was printed
    fault: Callable[[], None] | None = None


def report(paths, printed: str) -> Any:
    from tests.runs import timeless

    return [timeless(paths.metrics / "claims.json"), timeless(paths.visualizations / "interpretability_report.html")]


def without_notes(paths, printed: str) -> str:
    """The text that was generated: the lines that are no note."""
    return "\n".join(line for line in printed.splitlines() if not line.startswith(("note", "warning")))


READERS = {
    "report": Reader(
        "visualize_metrics",
        lambda paths: ["--only", "report"],
        ("metrics", "attention", "latent", "model_outputs"),
        report,
    ),
    "space": Reader(
        "analyze_latent_space",
        lambda paths: [],
        ("metrics", "latent"),
        lambda paths, printed: (paths.latent / "projection.safetensors").read_bytes(),
        no_pictures,
    ),
    "resume": Reader(
        TRAINING,
        lambda paths: ["--resume"],
        ("checkpoints", "metrics", "attention", "latent", "logs", "model_outputs"),
        lambda paths, printed: _resumed(paths),
    ),
    "text": Reader(
        "generate_text",
        lambda paths: [
            "--model_path",
            str(paths.model_outputs / "best_model"),
            "--prompt",
            "The bridge",
            "--task=text",
        ],
        ("model_outputs",),
        without_notes,
    ),
}


def _resumed(paths) -> Any:
    """What a person takes from a finished run: models, texts and scores."""
    from tests.runs import timeless

    files = [path for path in paths.model_outputs.rglob("*") if path.is_file()]
    return {str(path.relative_to(paths.model_outputs)): timeless(path) for path in files}


# --- cases -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    reader: str
    file: str  # below the root
    damage: Callable[[Path], None]

    def __str__(self) -> str:
        return f"{self.reader}: {self.damage.__name__} {self.file}"


class Damaged:
    """A finished run, kept aside, and a copy of it at the same place for each case."""

    def __init__(self, run, kept: Path, readers: Iterable[str]):
        self.run, self.kept = run, kept
        shutil.move(run.paths.root, kept)
        self.expected = {}
        for name in readers:
            if self.read(name):
                raise RuntimeError(f"{READERS[name].script} fails on the undamaged run:\n{run.output}")
            self.expected[name] = READERS[name].result(run.paths, run.output)

    def read(self, name: str, case: Case | None = None) -> int:
        reader, paths = READERS[name], self.run.paths
        shutil.rmtree(paths.root, ignore_errors=True)
        shutil.copytree(self.kept, paths.root)
        if name == "resume":
            (paths.model_outputs / "metrics.json").unlink()
        if case is not None:
            case.damage(paths.root / case.file)
        return self.run(*reader.flags(paths), script=reader.script, fault=reader.fault)

    def cases(self, names: Iterable[str]) -> list[Case]:
        found = []
        for name in names:
            for place in READERS[name].folders:
                folder = self.kept / getattr(self.run.paths, place).relative_to(self.run.paths.root)
                files = sorted(path for path in folder.rglob("*") if path.is_file())
                if name == "resume":
                    files = [path for path in files if path.name != "metrics.json"]
                found += [Case(name, str(path.relative_to(self.kept)), d) for path in files for d in DAMAGES]
        return found

    def verdict(self, case: Case) -> str:
        """Damage, read, and compare: "same", "named", "silent" or "traceback"."""
        status = self.read(case.reader, case)
        if "Traceback" in self.run.output or status not in (0, 2):
            return "traceback"
        result = READERS[case.reader].result(self.run.paths, self.run.output) if status == 0 else None
        if result == self.expected[case.reader]:
            return "same"
        shown = self.run.output + str(result if case.reader == "report" else "")
        return "named" if Path(case.file).stem in shown else "silent"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, help="so many, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), help="all by default")
    arguments = parser.parse_args()

    from tests.runs import FORKS, Run
    from tests.toy import make_toy_base

    FORKS.set_forkserver_preload(
        ["pytest", "tests.runs", "visualize_metrics", "gpt2_interp.report.page", "generate_text"]
    )
    counts: Counter = Counter()
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", make_toy_base(Path(place) / "base"))
        for script in (TRAINING, "analyze_latent_space"):
            if run(script=script, fault=no_pictures if script != TRAINING else None):
                raise RuntimeError(f"{script} fails:\n{run.output}")
        damaged = Damaged(run, Path(place) / "kept", arguments.readers)
        cases = damaged.cases(arguments.readers)
        if arguments.cases is not None and arguments.cases < len(cases):
            cases = random.Random(arguments.seed).sample(cases, arguments.cases)
        for case in cases:
            verdict = damaged.verdict(case)
            counts[case.reader, verdict] += 1
            if verdict in ("silent", "traceback"):
                last = run.output.strip().splitlines()[-1:] if verdict == "traceback" else []
                print(f"{verdict}: {case} {' '.join(last)[:200]}", flush=True)
    words = ("same", "named", "silent", "traceback")
    print(f"{'':8}" + "".join(f"{word:>11}" for word in words))
    for name in arguments.readers:
        print(f"{name:8}" + "".join(f"{counts[name, word]:11}" for word in words))
    return int(any(count for (_, verdict), count in counts.items() if verdict in ("silent", "traceback")))


if __name__ == "__main__":
    sys.exit(main())
