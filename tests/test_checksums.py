"""Checksums beside files: what changed is named, and sha256sum reads them."""

import shutil
import subprocess

import pytest

from gpt2_interp.checksums import NAME, changed_files, write_checksums


@pytest.fixture
def folder(tmp_path):
    folder, other = tmp_path / "outputs" / "run", tmp_path / "metrics" / "run"
    for path in (folder / "a b.json", folder / "metrics.json", other / "run.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    write_checksums(folder, [folder / "a b.json", other / "run.json"], {"metrics.json": b"{}"})
    return folder


def test_what_is_as_it_was_is_not_named(folder):
    assert changed_files(folder) == []
    (folder / "new.json").write_text("a file that came later")
    assert changed_files(folder) == []


@pytest.mark.parametrize("name", ["a b.json", "metrics.json", "../../metrics/run/run.json"])
def test_what_was_changed_or_is_gone_is_named(folder, name):
    (folder / name).write_bytes(b"{ ")
    assert changed_files(folder) == [name]
    (folder / name).unlink()
    assert changed_files(folder) == [name]
    (folder / name).mkdir()
    assert changed_files(folder) == [name]


def test_damaged_checksums_name_a_file_or_themselves(folder):
    sums = folder / NAME
    whole = sums.read_bytes()
    for place in range(len(whole)):
        sums.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert changed_files(folder), place
    sums.write_bytes(b"\xff\x00\n")
    assert changed_files(folder) == [NAME]
    sums.unlink()
    assert changed_files(folder) == []
    sums.mkdir()
    assert changed_files(folder) == [NAME]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_sha256sum_reads_them(folder):
    subprocess.run(["sha256sum", "--check", "--strict", NAME], cwd=folder, check=True, capture_output=True)
