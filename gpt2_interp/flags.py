"""Flags as fields of a dataclass: a default and a help text."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def flag(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with its --help text, in which argparse would read a bare % as a format."""
    return field(default=default, metadata={"help": text.replace("%", "%%"), **metadata})


def flags(default: list, text: str) -> Any:
    """A dataclass field that takes several values."""
    return field(default_factory=lambda: list(default), metadata={"help": text.replace("%", "%%")})
