import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gpt2_interp import startup
from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import REPOSITORY


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


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:port", "http://[", "http://127.0.0.1:99999", "http://\u20ac" * 30]
)
def test_an_address_that_is_none_cannot_be_reached(monkeypatch, no_settings, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    startup.prepare({})
    assert startup.is_offline()


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


@pytest.fixture
def begun(monkeypatch):
    """A function that begins a script with these variables, and no other caches; all is undone afterwards."""

    def begin(**environment):
        for name in ("MPLBACKEND", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", *startup.CACHES):
            monkeypatch.setenv(name, "")  # so that it is undone
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        startup.begin()
        return {name: os.environ.get(name) for name in startup.CACHES}

    before = signal.getsignal(signal.SIGINT)
    yield begin
    signal.signal(signal.SIGINT, before)


def test_a_notebooks_backend_is_not_ours(begun):
    begun(MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert os.environ["MPLBACKEND"] == "agg"


def test_caches_stay_where_they_can_be_written(begun, tmp_path):
    assert set(begun(HOME=tmp_path).values()) == {None}
    (tmp_path / "file").touch()
    own = {name: str(tmp_path / name) for name in startup.CACHES}
    assert begun(HOME=tmp_path / "file", **own) == own
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "nothing is made for the question"


@pytest.mark.parametrize("where", ["HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"])
def test_caches_that_cannot_be_written_are_elsewhere(begun, tmp_path, where):
    (tmp_path / "file").touch()
    places = begun(**{"HOME": tmp_path, where: tmp_path / "file" / "x"})
    moved = {name: place for name, place in places.items() if place is not None}
    assert set(moved) == ({where} if where in startup.CACHES else set(startup.CACHES))
    assert all(Path(place).is_dir() and os.access(place, os.W_OK) for place in moved.values())


@pytest.mark.slow
def test_a_home_that_cannot_be_written_stops_no_picture(measurements, tmp_path):
    """numba, whose own folder may be read-only too, and matplotlib."""
    (tmp_path / "file").touch()
    shutil.copytree(measurements.paths.root, tmp_path / "root")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "NUMBA_C"))}
    environment |= {"HOME": str(tmp_path / "file"), "MPLBACKEND": "module://not_installed"}
    for script in ("analyze_latent_space.py", "visualize_metrics.py"):
        flags = ["--run_name", measurements.paths.run_name, "--root", str(tmp_path / "root")]
        only = ["--only", "gradient_norm_evolution"] if script.startswith("vis") else []
        result = subprocess.run(
            [sys.executable, script, *flags, *only], cwd=REPOSITORY, env=environment,
            capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0 and "MPLCONFIGDIR" not in result.stderr, result.stderr


def test_a_letter_that_the_terminal_lacks_stops_nothing():
    code = "from gpt2_interp import startup; startup.begin(); print('\\u0416')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True)
    assert (result.returncode, result.stdout) == (0, b"\\u0416\n"), result.stderr
    closed = subprocess.run(["bash", "-c", '"$0" -c "$1" >&- 2>&-', sys.executable, code], cwd=REPOSITORY)
    assert closed.returncode == 0
