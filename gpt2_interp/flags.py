"""Flags as fields of a dataclass: a default, a help text, and what of a run the flag decides."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

# What is learned; only what is measured, logged or scored of it (last digits too); or nothing that can be read later:
# places, speed, the console.
Decides = Literal["learning", "record", "nothing"]


def flag(default: Any, text: str, decides: Decides = "learning", **metadata: Any) -> Any:
    """A dataclass field with its --help text, in which argparse would read a bare % as a format."""
    return field(default=default, metadata={"help": text.replace("%", "%%"), "decides": decides, **metadata})


def flags(default: list, text: str, decides: Decides = "learning") -> Any:
    """A dataclass field that takes several values."""
    metadata = {"help": text.replace("%", "%%"), "decides": decides}
    return field(default_factory=lambda: list(default), metadata=metadata)
