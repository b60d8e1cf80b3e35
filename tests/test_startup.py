import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gpt2_interp import startup
from gpt2_interp.errors import InputError


@pytest.fixture
def no_settings(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "OMP_WAIT_POLICY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_an_unreachable_hub_is_found_out_quickly(monkeypatch, no_settings):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    startup.prepare({})
    assert startup.is_offline() and os.environ["OMP_WAIT_POLICY"] == "passive"
    assert time.monotonic() - start < 20  # the libraries' own retries take 23 s and more


def test_a_name_lookup_that_hangs_does_not_hang_us(monkeypatch, no_settings):
    monkeypatch.setattr(startup, "TIMEOUT_SECONDS", 0.1)
    waiting = threading.Event()

    def hang(*args):
        waiting.wait(60)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "create_connection", hang)
    start = time.monotonic()
    startup.prepare({})
    assert startup.is_offline() and time.monotonic() - start < 30
    waiting.set()


def test_a_reachable_hub_stays_online(monkeypatch, no_settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        startup.prepare({})
    assert not startup.is_offline()


def test_what_the_user_set_is_kept(monkeypatch, no_settings):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    startup.prepare({})
    assert os.environ["HF_HUB_OFFLINE"] == "0" and os.environ["OMP_WAIT_POLICY"] == "active"


def test_names_that_cannot_be_had_offline_are_refused_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "hub" / "models--cached--one").mkdir(parents=True)
    startup.prepare({"--model_name_or_path": "cached/one", "--dataset_name": "synthetic_news"})
    startup.prepare({"--model_name_or_path": str(tmp_path)})
    for flag, name, words in (
        ("--model_name_or_path", "gpt2", "can't be reached; give a folder"),
        ("--dataset_name", "cached/one", "--train_file"),
    ):
        with pytest.raises(InputError, match=words):
            startup.prepare({flag: name})


def test_the_script_says_so_without_retries(tmp_path):
    """A subprocess, because what counts is that nothing heavy is imported before."""
    repository = Path(__file__).resolve().parents[1]
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "gpt2_summarization.py", "quickstart", "--model_name_or_path=gpt2", f"--root={tmp_path}"],
        cwd=repository, env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert time.monotonic() - start < 20  # the libraries' own retries take 23 s and more
    assert result.returncode == 2 and result.stderr.startswith("error: --model_name_or_path gpt2: ")
    assert result.stderr.count("\n") == 1
