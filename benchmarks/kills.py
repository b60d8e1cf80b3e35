#!/usr/bin/env python
"""Kill a whole experiment at random moments, go on with it each time, and compare every file in the end.

    python benchmarks/kills.py                     100 kills of a toy experiment, half of them with LoRA; 15 minutes
    python benchmarks/kills.py --kills 1000 --seed 7

The stages are those of run_experiment.sh: training (with snapshots and scores), latent space, pictures (one of each
format, to save time, and the reports); each is a process. SIGKILL, SIGTERM or SIGINT comes at a random time, or before
the n-th file that the stage opens for writing, renames or removes. After each one the stage is started again (training
with --resume), until the experiment is whole. Then its files are compared with those of an experiment that nothing
disturbed: every byte, but for times (TIMES and timeless in tests/runs.py name where they stand) and TensorBoard's
files, whose records are compared. Exits with 1 if anything differs or ends in another way.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import util
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.append(str(Path(__file__).resolve().parents[1]))

STAGES = {
    "gpt2_summarization": [],
    "analyze_latent_space": [],
    "visualize_metrics": [
        "--only",
        "learning_timeline",
        "neuron_activations_evolution",
        "attention_head_evolution",
        "report",
    ],
}  # and their flags
SHARES = (2, 1, 1)  # of the kills, by stage
TUNINGS = {"full": [], "lora": ["--tuning=lora"]}
# How a stage ends by a signal: killed by it, or having saved its work (and said so).
ENDS = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGTERM: {-signal.SIGTERM, 128 + signal.SIGTERM},
    signal.SIGINT: {-signal.SIGINT, 128 + signal.SIGINT},
}
FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}  # and "open" for writing
COUNTED = "file events: "


# --- in the process of a stage ---------------------------------------------------------------------------------


def signal_after(seconds: float, number: int) -> None:
    """Send this process a signal in so many seconds."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


class FileEvents:
    """Counts what this process does to files under a folder; sends a signal before event `last`, if that is given."""

    def __init__(self, root: Path, last: int | None = None, number: int = 0):
        self.root, self.last, self.number, self.count = str(root), last, number, 0

    def __call__(self) -> None:
        sys.addaudithook(self._event)
        if self.last is None:
            util.Finalize(None, lambda: print(f"{COUNTED}{self.count}", flush=True), exitpriority=0)

    def _event(self, event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if not (writes or event in FILE_EVENTS) or not str(arguments[0]).startswith(self.root):
            return
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), self.number)


@dataclass(frozen=True)
class Moment:
    """When a signal comes: after a share of the stage's usual time, or before that share of its file events."""

    stage: str
    number: signal.Signals
    kind: str  # "time" or "file"
    share: float

    def fault(self, experiment: Experiment) -> Any:
        """What the stage's process has to do."""
        if self.kind == "time":
            return partial(signal_after, self.share * experiment.seconds[self.stage], self.number)
        return FileEvents(experiment.root, 1 + int(self.share * experiment.events[self.stage]), self.number)


def random_moment(rng: random.Random) -> Moment:
    stage, number = rng.choices(list(STAGES), SHARES)[0], rng.choices(list(ENDS), (6, 2, 2))[0]
    return Moment(stage, number, rng.choice(["time", "file"]), rng.random())


# --- an experiment ---------------------------------------------------------------------------------------------


@dataclass
class Experiment:
    """The stages of one toy experiment, and the outcome that nothing disturbed."""

    run: Any  # tests.runs.Run
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    events: dict[str, int] = field(default_factory=dict)  # by stage
    expected: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.run.paths.root

    def stage(self, name: str, fault: Any = None) -> int:
        """Run one stage, going on with what is there; return its exit status."""
        resume = name == "gpt2_summarization" and any(path.exists() for path in self.run.paths.all())
        return self.run(*STAGES[name], *["--resume"] * resume, script=name, fault=fault)

    def undisturbed(self) -> None:
        """Run every stage once, and note how long it takes, what it does to files, and the outcome."""
        from tests.runs import whole_outcome

        for name in STAGES:
            started = time.perf_counter()
            if self.stage(name, FileEvents(self.root)):
                raise RuntimeError(f"{name} fails undisturbed:\n{self.run.output}")
            self.seconds[name] = time.perf_counter() - started
            self.events[name] = int(self.run.output.rpartition(COUNTED)[2].split()[0])
        self.expected = whole_outcome(self.run.paths)
        shutil.rmtree(self.root)

    def killed(self, moments: list[Moment]) -> Counter:
        """Run the experiment with these kills, the earlier stages first, until it is whole; compare and clear it away.

        Returns the moments at which a signal ended a stage. Where the stage was over before, there was no kill.
        """
        from tests.runs import differences, whole_outcome

        done: Counter = Counter()
        for name in STAGES:
            for moment in (moment for moment in moments if moment.stage == name):
                status = self.stage(name, moment.fault(self))
                done[moment] += status != 0
                if status not in {0, *ENDS[moment.number]} or "Traceback" in self.run.output:
                    self.problem(f"{name} ended with {status} after {moment}")
            if status := self.stage(name):
                self.problem(f"{name} ended with {status} when it was started again")
        for name in differences(whole_outcome(self.run.paths), self.expected):
            self.problem(f"{name} differs", output=False)
        shutil.rmtree(self.root)
        return done

    def problem(self, what: str, output: bool = True) -> None:
        self.problems.append(what + (f":\n{self.run.output[-3000:]}" if output else ""))
        print(f"  {self.problems[-1]}", flush=True)


def kill_and_resume(experiment: Experiment, kills: int, rng: random.Random, most: int = 12) -> Counter:
    """Kill the experiment `kills` times, up to `most` of them before it is made whole, compared and begun again."""
    done: Counter = Counter()
    while done.total() < kills:
        planned = min(rng.randint(1, most), kills - done.total())
        done += experiment.killed([random_moment(rng) for _ in range(planned)])
        print(f"  {done.total()} of {kills} kills, {len(experiment.problems)} problems", flush=True)
    return done


# --- all of it -------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how many, over all tunings")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--tuning", choices=TUNINGS, nargs="+", default=list(TUNINGS), help="full and LoRA by default")
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error(f"--kills {arguments.kills}: at least one is needed")

    from tests.runs import FORKS, Run
    from tests.toy import make_toy_base

    drawing = ["analyze_latent_space", "visualize_metrics", "gpt2_interp.report.page", "sklearn.manifold"]
    FORKS.set_forkserver_preload(["pytest", "tests.runs", *drawing])
    problems, whole = [], Counter()
    with tempfile.TemporaryDirectory() as folder:
        base = make_toy_base(Path(folder) / "base")
        for i, tuning in enumerate(arguments.tuning):
            kills = len(range(i, arguments.kills, len(arguments.tuning)))
            experiment = Experiment(Run(Path(folder) / tuning, base, flags=TUNINGS[tuning]))
            experiment.undisturbed()
            done = kill_and_resume(experiment, kills, random.Random(f"{arguments.seed} {tuning}"))
            print_table(tuning, done, len(experiment.expected))
            whole += done
            problems += experiment.problems
    print(f"{whole.total()} kills, {len(problems)} problems")
    return int(bool(problems))


def print_table(tuning: str, done: Counter, compared: int) -> None:
    print(f"{tuning}: {done.total()} kills; {compared} files and series of TensorBoard compared")
    print(f"  {'stage':22}" + "".join(f"{number.name:>10}" for number in ENDS) + f"{'by time':>10}{'by file':>10}")
    for stage in STAGES:
        mine = [moment for moment in done.elements() if moment.stage == stage]
        signals = [sum(moment.number == number for moment in mine) for number in ENDS]
        kinds = [sum(moment.kind == kind for moment in mine) for kind in ("time", "file")]
        print(f"  {stage:22}" + "".join(f"{count:10}" for count in [*signals, *kinds]))


if __name__ == "__main__":
    sys.exit(main())
