"""What must be settled before the libraries are imported, because they read it then. So this imports none of them."""

from __future__ import annotations

import os
import socket
import threading
from urllib.parse import urlparse

TIMEOUT_SECONDS = 3.0


def prepare() -> None:
    """Call first in a script that imports torch or Hugging Face's libraries."""
    # Threads that wait by spinning starve each other as soon as anything else runs on their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    go_offline_if_unreachable()


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def go_offline_if_unreachable() -> None:
    """Set HF_HUB_OFFLINE=1 when no TCP connection to the Hub can be made within 3 seconds.

    Without network `from_pretrained` and `load_dataset` retry for 23-199 s before they fail; offline they use what is
    cached, or fail at once. Behind a proxy the libraries reach the Hub though this socket can't: nothing is changed.
    """
    behind_proxy = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if "HF_HUB_OFFLINE" in os.environ or behind_proxy or _reachable():
        return
    os.environ["HF_HUB_OFFLINE"] = "1"


def _reachable() -> bool:
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    answer: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((address.hostname, address.port or 443), TIMEOUT_SECONDS).close()
            answer.append(True)
        except OSError:
            answer.append(False)

    # A thread, because the name lookup inside has no time limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return bool(answer and answer[0])
