import subprocess
import sys

import pytest

from gpt2_interp import files
from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import REPOSITORY, RunPaths, check_can_write

SCRIPTS = [
    "gpt2_summarization.py quickstart --run_name=x",
    "visualize_metrics.py --run_name=x",
    "visualize_metrics.py --all",
    "analyze_latent_space.py --run_name=x",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_root_that_is_a_file_is_refused_by_every_script(script, tmp_path):
    (tmp_path / "file").touch()
    result = subprocess.run(
        [sys.executable, *script.split(), f"--root={tmp_path / 'file' / 'x'}"], cwd=REPOSITORY,
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: --root") and f"{tmp_path / 'file'} is not a folder" in result.stderr


def test_what_can_be_made_is_accepted_and_not_made(tmp_path):
    check_can_write(tmp_path / "new", RunPaths("x", tmp_path / "new").all())
    assert not list(tmp_path.iterdir())


def test_each_place_of_a_run_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="logs/x is a link to nothing"):
        check_can_write(tmp_path, RunPaths("x", tmp_path).all())
    (tmp_path / "gone").mkdir()
    check_can_write(tmp_path, RunPaths("x", tmp_path).all())
    allowed = files.os.access  # not chmod: root may write anywhere
    monkeypatch.setattr(files.os, "access", lambda path, mode: path.name != "x" and allowed(path, mode))
    with pytest.raises(InputError, match=f"--root {tmp_path}: .*logs/x can't be written"):
        check_can_write(tmp_path, RunPaths("x", tmp_path).all())
