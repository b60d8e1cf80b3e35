"""benchmarks/strangers.py: it sees what it looks for, and a sample of its cases ends well."""

import subprocess
import sys

import pytest
import strangers  # of benchmarks/, which pytest has on its path

from tests.conftest import REPOSITORY

CASE = strangers.Case("g", "n", "generate_text.py", (), refused=True)
TRACE = "Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("status", "out", "written", "wrong"),
    [
        (2, "error: --seed must be a number.\n", set(), []),
        (2, f"{TRACE}ValueError: x\n", set(), ["a traceback", "no sentence of one or two lines"]),
        (2, "error: one\ntwo\nthree\n", set(), ["no sentence of one or two lines"]),
        (2, "error: one\n", {("checkpoints/a", 1)}, ["leaves checkpoints/a"]),
        (0, "done\n", {("out", 1)}, ["accepted"]),
        (None, "", set(), ["hangs"]),
        (-9, "error: x\n", set(), ["killed by signal 9"]),
    ],
)
def test_what_is_wrong_is_seen(status, out, written, wrong):
    outcome = strangers.Outcome(status, out)
    strangers.judge(CASE, outcome, written)
    assert outcome.wrong == wrong


def test_there_are_enough_cases_and_each_has_a_name_of_its_own():
    flags, inputs = list(strangers.flag_cases(train=False)), list(strangers.input_cases())
    assert len(flags) >= 150 and len(inputs) >= 100
    names = [(case.group, case.name, case.script) for case in (*flags, *inputs)]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_a_sample_ends_well():
    command = [sys.executable, "benchmarks/strangers.py", "--every", "60"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
