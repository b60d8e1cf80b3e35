import os
import socket
import time

import pytest

from gpt2_interp import startup


@pytest.fixture
def no_settings(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "OMP_WAIT_POLICY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_an_unreachable_hub_is_found_out_quickly(monkeypatch, no_settings):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    startup.prepare()
    assert startup.is_offline() and os.environ["OMP_WAIT_POLICY"] == "passive"
    assert time.monotonic() - start < 5


def test_a_name_lookup_that_hangs_does_not_hang_us(monkeypatch, no_settings):
    monkeypatch.setattr(startup, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(socket, "create_connection", lambda *a: time.sleep(2))
    startup.prepare()
    assert startup.is_offline()


def test_a_reachable_hub_stays_online(monkeypatch, no_settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        startup.prepare()
    assert not startup.is_offline()


def test_what_the_user_set_is_kept(monkeypatch, no_settings):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    startup.prepare()
    assert os.environ["HF_HUB_OFFLINE"] == "0" and os.environ["OMP_WAIT_POLICY"] == "active"
