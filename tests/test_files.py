import os
import subprocess
import sys

import pytest

from gpt2_interp import files
from gpt2_interp.files import write_atomically

HOLD = """
import sys
from gpt2_interp.files import lock
with open(sys.argv[1], "a+") as file:
    print(lock(file), flush=True)
    input()
"""


def test_a_lock_keeps_other_processes_out_until_its_own_ends(tmp_path):
    path = tmp_path / "x.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "True\n"
    with open(path, "a+") as file:
        assert not files.lock(file)
        holder.communicate("\n")
        assert files.lock(file)


def test_a_system_without_locks_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with open(tmp_path / "x", "a+") as file, pytest.raises(OSError, match="fcntl"):
        files.lock(file)


def test_the_package_and_the_reader_of_presets_import_nothing_heavy():
    program = "import sys, gpt2_interp, gpt2_interp.cli.presets; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets", "numpy", "fcntl"} & set(found)


def test_what_a_killed_write_left_goes_with_the_next(tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    gone, ours = (tmp_path / f".a[b].json.{number}.tmp" for number in (process.pid, os.getppid()))
    other = tmp_path / f".b.json.{process.pid}.tmp"
    for path in (gone, ours, other):
        path.touch()
    write_atomically(tmp_path / "a[b].json", b"{}")
    assert {path.name for path in tmp_path.iterdir()} == {"a[b].json", ours.name, other.name}
