"""Names, types, defaults and helps of Hugging Face's TrainingArguments, without importing it, which takes seconds.

The fields are read from the source file of the installed library; a test compares them with the imported class.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

UNKNOWN = "as the library decides"  # a default that is computed when the library is imported


@dataclass(frozen=True)
class Flag:
    """One flag of a dataclass: its type as it is written, e.g. "int | None", its default, and what argparse gets."""

    name: str
    type: str
    default: Any
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The type that a word of the command line is read as; of a union, the part that HfArgumentParser takes."""
        parts = self.type.split(" | ")
        if len(parts) == 1 or "bool" in parts and "None" in parts:
            return "bool" if "bool" in parts else parts[0]
        other = "None" if "None" in parts else "str"
        return parts[0] if parts[1] == other else parts[1]


def flags_of(group: type) -> list[Flag]:
    """Return the flags of a dataclass. Types come from the source, because HfArgumentParser changes those of fields."""
    found = []
    for one in fields(group):
        default = one.default if one.default_factory is MISSING else one.default_factory()
        found.append(Flag(one.name, group.__annotations__[one.name], default, dict(one.metadata)))
    return found


def training_arguments() -> dict[str, Flag]:
    """Return the flags of TrainingArguments by name, in the library's order."""
    found = importlib.util.find_spec("transformers")
    source = Path(found.origin).with_name("training_args.py").read_text(encoding="utf-8")
    tree = ast.parse(source[source.index("class TrainingArguments") :].partition("\n    def ")[0])
    flags = {}
    for line in ast.walk(tree):
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Call):
            given = {word.arg: word.value for word in line.value.keywords}
            if "init" in given:
                continue
            factory = given.get("default_factory")
            default = [] if factory is not None else _value(given["default"])
            words = given.get("metadata", ast.Dict([], []))
            metadata = {_value(key): _value(value) for key, value in zip(words.keys, words.values, strict=True)}
            metadata = {key: value for key, value in metadata.items() if value is not UNKNOWN}
            flags[line.target.id] = Flag(line.target.id, ast.unparse(line.annotation), default, metadata)
    return flags


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN
