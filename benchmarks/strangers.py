#!/usr/bin/env python
"""All scripts in a stranger's hands: flags with values that make no sense, and files and folders that are not right.

    python benchmarks/strangers.py                     all of it: about ten minutes on one core
    python benchmarks/strangers.py --every 20          each twentieth case
    python benchmarks/strangers.py --only presets      cases whose group or name has this (a regular expression)
    python benchmarks/strangers.py --train             also trains two steps wherever flags of training are accepted

Each case is a process of its own, forked when everything is imported. It may end well or be refused; it may not show a
traceback, hang, be refused in more than two lines, or leave a file behind when it is refused. Prints a table, what is
wrong, and exits with 1 if anything is.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
PROJECT = Path(__file__).resolve().parents[1]
sys.path.append(str(PROJECT))

import strangers_inputs as bad

from gpt2_interp.cli.early import OURS
from gpt2_interp.cli.hugging_face_flags import flags_of, training_arguments
from gpt2_interp.generation.settings import SETTINGS

BASE = PROJECT / "assets" / "tiny_gpt2"
MEMORY = 24 * 2**30  # bytes of addresses that a case may take: a huge number must not take the machine down
HUGE, LONG = "9" * 20, "x" * 300
VALUES = {  # by the kind of a flag
    "int": ("-1", "0", HUGE, "1.5", "nan", "x", "", "😀"),
    "float": ("-1", "0", "1e300", "nan", "-inf", "x", ""),
    "bool": ("perhaps", "", "2"),
    "str": ("", "😀", "nan", "../..", LONG, "-1"),
    "list": ("", "😀", "a=b=c", "-1"),
}
ACCEPTED = 0
PICTURE = "learning_timeline"  # one that is drawn in a second


@dataclass(frozen=True)
class Case:
    """argv: {root}, {bad} and {base} stand for the output folder, the bad input and the base model. stops: functions,
    as "module:name", at which a case that comes so far has ended well. refused: whether it must be."""

    group: str
    name: str
    script: str
    argv: tuple[str, ...]
    make: Callable[[Path], object] = lambda folder: None
    stops: tuple[str, ...] = ()
    refused: bool = False
    stdin: bytes = b""
    prepare: Callable[[Path], object] = lambda root: None  # what lies in the output folder already


@dataclass
class Outcome:
    status: int | None  # None: it hung
    out: str
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


# --- the cases ---------------------------------------------------------------------------------------------------

ROWS = ("--max_train_samples=16", "--max_eval_samples=4", "--max_predict_samples=2", "--probe_samples=8",
        "--samples_per_checkpoint=0", "--max_source_length=64", "--max_target_length=8")  # fmt: skip
SHORT = ("--max_steps=2", "--save_steps=1", "--measures", "loss", "--use_cpu", "--disable_tqdm=true")
TRAIN = ("--root={root}", "--run_name=r", *ROWS, *SHORT)
MODEL, NEWS = "--model_name_or_path={base}", "--dataset_name=synthetic_news"
READ, MADE = "gpt2_interp.data.corpora:load_corpus", "gpt2_interp.probes.build:build_probes"
TEXT = ("--model_path={base}", "--max_new_tokens=2")
FLAGS = {  # of the other scripts, by kind
    "visualize_metrics.py": {"run_name": "str", "all": "bool", "only": "list", "root": "str", "mine": "str"},
    "analyze_latent_space.py": {
        **dict.fromkeys(("run_name", "layer", "pooling", "method", "root", "mine"), "str"),
        **{"n_neighbors": "int", "min_dist": "float", "seed": "int", "max_steps": "int"},
    },
    "gpt2_interp.audit": {
        **dict.fromkeys(("source", "split", "model_path", "tokenizer_name", "mine"), "str"),
        **{"count": "int", "seed": "int", "jsonl": "bool"},
    },
    "gpt2_interp.cli.presets": {"run_name": "str", "root": "str"},
}


def hostile(flags: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, kind in flags.items():
        for value in VALUES[kind]:
            yield f"--{name}={value}", f"--{name}={value if value != LONG else 'xxx...'}"


def flag_cases(train: bool) -> Iterator[Case]:
    training = {name: one.kind.partition("[")[0] for name, one in training_arguments().items()}
    ours = {one.name: one.kind.partition("[")[0] for group in OURS for one in flags_of(group)}
    kinds = {name: kind if kind in VALUES else "str" for name, kind in (ours | training | {"mine": "str"}).items()}
    numbers = {name for name, kind in kinds.items() if kind != "str"} & set(training)
    for word, name in hostile(kinds):
        stops = () if train and word.split("=")[0][2:] in numbers else (READ,)
        yield Case("flags of training", name, "gpt2_summarization.py", (MODEL, NEWS, *TRAIN, word), stops=stops)
    decoding = {name: setting.kind.__name__ for name, setting in SETTINGS.items()}
    others = dict.fromkeys(("implementation", "task", "device", "compare_to", "base_model", "output_file",
                            "text_file", "prompts_file", "text_column", "model_path", "mine"), "str")  # fmt: skip
    for word, name in hostile(decoding | others | {"batch_size": "int"}):
        ask = () if "_file" in word and "output" not in word else ("--prompt=Oslo",)
        way = ("--decoding=beam",) if "beams" in word or "early" in word or "length_p" in word else ()
        yield Case("flags of generate_text.py", name, "generate_text.py", (*TEXT, *ask, *way, word))
    given = {"visualize_metrics.py": ("--run_name=fake", "--root={root}", f"--only={PICTURE}"),
             "analyze_latent_space.py": ("--run_name=fake", "--root={root}", "--method=pca")}  # fmt: skip
    drawn = ("gpt2_interp.figures.draw:write_layout", "gpt2_interp.figures.draw:write_picture")
    for script, flags in FLAGS.items():
        for word, name in hostile(flags):
            argv, prepare = (*given.get(script, ()), word), fake_run if script in given else Case.prepare
            yield Case(f"flags of {script}", name, script, argv, stops=drawn, prepare=prepare)


def input_cases() -> Iterator[Case]:
    for name, make in bad.ROWS.items():
        columns = () if "txt" in name else ("--text_column=article", "--summary_column=highlights")
        task = "--task=creative_writing" if "txt" in name else "--task=summarization"
        rows = ("--train_file={bad}", "--validation_split_percentage=40", task, *columns, *TRAIN)
        yield Case("rows to train on", name, "gpt2_summarization.py", (MODEL, *rows), make, (MADE,))
        control = (MODEL, NEWS, *TRAIN, "--control_file={bad}")
        yield Case("general text", name, "gpt2_summarization.py", control, make, (MADE,))
        if name == "a pipe":
            continue  # whoever gives one here waits for its other end
        ask = (*TEXT, "--prompts_file={bad}", "--output_file={root}/out.jsonl", "--text_column=article")
        yield Case("prompts", name, "generate_text.py", ask, make)
        yield Case("one prompt", name, "generate_text.py", (*TEXT, "--text_file={bad}"), make)
    for name, make in bad.PRESETS.items():
        for script in ("gpt2_summarization.py", "gpt2_interp.cli.presets"):
            yield Case("presets", name, script, ("{bad}", "--root={root}"), partial(preset, make), (READ,))
    for name, model in bad.MODELS.items():
        make = partial(model, base=BASE)
        train = ("--model_name_or_path={bad}", NEWS, *TRAIN)
        yield Case("models to train", name, "gpt2_summarization.py", train, make, (MADE,))
        lora = (*train, "--tuning=lora", "--root={root}")
        yield Case("models to train", f"{name}, LoRA", "gpt2_summarization.py", lora, make, (MADE,))
        ask = ("--model_path={bad}", "--prompt=Oslo", "--max_new_tokens=2")
        yield Case("models to ask", name, "generate_text.py", ask, make)
        scratch = (*ask, "--implementation=scratch")
        yield Case("models to ask", f"{name}, from scratch", "generate_text.py", scratch, make)
    lines = "\n".join(("/help", "/mine", "/", "/temperature nan", "/temperature", "/model", "/model gone", "/seed -1",
                       "/num_sequences 0", "/top_p 7", "/decoding mine", "/save", "/save /gone/x", "\x1b[31m", "\x00",
                       "😀" * 3, "x" * 5000, "", " ", "/task mine", "/compare", "/quit now", "/reset 7"))  # fmt: skip
    for name, data in {"odd commands": lines.encode(), "bytes": bytes(range(256)), "nothing": b""}.items():
        yield Case("sessions", name, "generate_text.py", TEXT, stdin=data)
    for words in ("gone", "{bad}", "quickstart --run_name=a/b", "quickstart --mine", "quickstart --root", "--seed=x"):
        argv = (*words.split(), "--root={root}") if not words.endswith("--root") else tuple(words.split())
        yield Case("run_experiment.sh", words, "run_experiment.sh", argv, bad.PRESETS["a list"], refused=True)


def preset(make: Callable[[Path], Path], folder: Path) -> Path:
    """The preset, with the base's path in the place of its name."""
    path = make(folder)
    if path.is_file():
        path.write_bytes(path.read_bytes().replace(b"{base}", str(BASE).encode()))
    return path


def fake_run(root: Path) -> None:
    shutil.copytree(_fake, root, dirs_exist_ok=True)


_fake: Path


# --- one case ----------------------------------------------------------------------------------------------------


def run(case: Case, folder: Path, limit: float) -> Outcome:
    root, inputs, work = (folder / name for name in ("root", "inputs", "work"))
    for path in (root, inputs, work):
        path.mkdir(parents=True)
    case.prepare(root)
    before = files(root)
    places = {"root": str(root), "bad": str(case.make(inputs)), "base": str(BASE)}
    argv = [_filled(word, places) for word in case.argv]
    (folder / "stdin").write_bytes(case.stdin)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(case, argv, folder, work)
    outcome = Outcome(_wait(pid, limit), (folder / "output").read_text(errors="replace"))
    outcome.seconds = time.monotonic() - began
    judge(case, outcome, files(root) - before)
    return outcome


def _filled(word: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def files(folder: Path) -> set[tuple[str, int]]:
    return {(str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def _child(case: Case, argv: list[str], folder: Path, work: Path) -> None:
    """Run the script in this process, and end it."""
    status = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
        for stream, file in ((0, os.open(folder / "stdin", os.O_RDONLY)), (1, output), (2, output)):
            os.dup2(file, stream)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = (open(k, "w", buffering=1, closefd=False) for k in (1, 2))  # noqa: SIM115
        os.chdir(work)
        if case.script.endswith(".sh"):
            os.environ |= {"VIRTUAL_ENV": str(ready_environment(folder))}
            os.execvp("bash", ["bash", str(PROJECT / case.script), *argv])
        for stop in case.stops:
            module, name = stop.split(":")
            setattr(sys.modules[module], name, _stop)
        sys.argv = [case.script, *argv]
        if case.script.endswith(".py"):
            runpy.run_path(str(PROJECT / case.script), run_name="__main__")
        else:
            sys.modules.pop(case.script, None)
            runpy.run_module(case.script, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
        os._exit(status)


def ready_environment(folder: Path) -> Path:
    """A folder that setup_environment.sh takes for an environment with all packages: this Python, without its pip."""
    environment = folder / "environment"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/sh\n[ "$2" != pip ] || exit 1\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    state = 'echo "$PWD $(cat requirements.txt requirements.txt pyproject.toml | cksum)"'
    stamp = subprocess.run(["bash", "-c", state], cwd=PROJECT, capture_output=True, check=True).stdout
    (environment / ".gpt2_interp_requirements").write_bytes(stamp)
    return environment


def _stop(*args, **kwargs):
    raise SystemExit(ACCEPTED)


def _wait(pid: int, limit: float) -> int | None:
    """Exit status, negative for the signal that killed it; None for one that had to be killed here."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def judge(case: Case, outcome: Outcome, written: set) -> None:
    if outcome.status is None:
        outcome.wrong.append("hangs")
        return
    if "Traceback (most recent call last)" in outcome.out:
        outcome.wrong.append("a traceback")
    if outcome.status < 0:
        outcome.wrong.append(f"killed by signal {-outcome.status}")
    if outcome.status == 0:
        if case.refused:
            outcome.wrong.append("accepted")
        return
    last = outcome.out.rstrip("\n").rpartition("error: ")[2]
    if outcome.status == 1 and case.group == "prompts" and last.endswith("prompts could not be used"):
        return  # each is named on a line of its own, and the others are answered
    if "error: " not in outcome.out or last.count("\n") > 1 or len(last) > 1500:
        outcome.wrong.append("no sentence of one or two lines")
    if written and outcome.status == 2:
        outcome.wrong.append(f"leaves {', '.join(sorted(name for name, _ in written)[:3])}")


# --- all of them -------------------------------------------------------------------------------------------------


def import_everything() -> None:
    """What the scripts import, so that no case has to."""
    import torch

    torch.set_num_threads(1)
    import transformers

    import gpt2_interp.analysis.claims
    import gpt2_interp.audit.counts
    import gpt2_interp.audit.verdict
    import gpt2_interp.figures.draw
    import gpt2_interp.figures.latent
    import gpt2_interp.generation.session
    import gpt2_interp.generation.text_model
    import gpt2_interp.report.all_runs
    import gpt2_interp.report.page
    import gpt2_summarization
    from tests.fake_store import write_fake_run

    global _fake
    _fake = Path(tempfile.mkdtemp(prefix="strangers_run_"))
    write_fake_run(_fake)
    transformers.PreTrainedTokenizerFast, transformers.AutoTokenizer  # noqa: B018  lazy, as all names of it are
    assert gpt2_summarization and gpt2_interp
    gc.collect()
    gc.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="run each N-th case")
    parser.add_argument("--only", default="", metavar="REGEX", help="run cases whose group: name has this")
    parser.add_argument("--train", action="store_true", help="train where flags of training are accepted")
    parser.add_argument("--limit", type=float, default=60, metavar="SECONDS", help="longer than this is a hang")
    parser.add_argument("--show", action="store_true", help="print each case with its last line")
    arguments = parser.parse_args()
    cases = [case for case in (*flag_cases(arguments.train), *input_cases())
             if re.search(arguments.only, f"{case.group}: {case.name}")][:: arguments.every]  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="strangers_"))
    os.environ["HF_HOME"] = str(folder / "cache")
    import_everything()
    counts: dict[str, Counter] = {}
    try:
        for number, case in enumerate(cases):
            outcome = run(case, folder / str(number), arguments.limit)
            shutil.rmtree(folder / str(number), ignore_errors=True)
            kinds = ["cases", "accepted" if outcome.status == 0 else "refused", *(["WRONG"] if outcome.wrong else [])]
            counts.setdefault(case.group, Counter()).update(kinds)
            if outcome.wrong or arguments.show:
                last = (outcome.out.strip().splitlines() or [""])[-1][:200]
                said = f"status {outcome.status}, {outcome.seconds:.1f} s, {', '.join(outcome.wrong) or 'fine'}"
                print(f"{case.script} {case.group}: {case.name}: {said}: {last}", flush=True)
    finally:
        for place in (folder, _fake):
            shutil.rmtree(place, ignore_errors=True)
    columns = ("cases", "accepted", "refused", "WRONG")
    print(f"{'':36}" + "".join(f"{column:>10}" for column in columns))
    for group, found in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"{group:36}" + "".join(f"{found[column]:>10}" for column in columns))
    sys.exit(any(found["WRONG"] for found in counts.values()))


if __name__ == "__main__":
    main()
