"""A row (source, target, id, cluster) made from a record, and the fingerprint of many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError

Row = dict[str, Any]


DEFAULT_COLUMNS = {"summarization": ("article", "highlights"), "creative_writing": ("prompt", "story")}


def row_of(record: dict, data: DataArguments, where: str, default_id: str) -> Row:
    source_column, target_column = columns_of(record, data, where)
    identity = str(record.get("id") or default_id)
    cells = {"source": "" if source_column is None else record[source_column], "target": record[target_column]}
    for name, column in (("source", source_column), ("target", target_column)):
        if column is not None and (not isinstance(cells[name], str) or not cells[name].strip()):
            raise InputError(f"{where}: column {column!r} is empty or not text; fill it or remove the row.")
    return {"id": identity, "cluster": identity, **cells}


def columns_of(record: Iterable[str], data: DataArguments, where: str) -> tuple[str | None, str]:
    """(source column or None for plain text, target column), from the flags or the task's usual names."""
    usual_source, usual_target = DEFAULT_COLUMNS[data.task]
    source, target = data.text_column or usual_source, data.summary_column or usual_target
    plain_text = data.task == "creative_writing" and data.summary_column is None and usual_target not in record
    if plain_text:
        source, target = None, data.text_column or "text"
    for flag, column in (("--text_column", source), ("--summary_column", target)):
        if column is not None and column not in record:
            if plain_text:
                flag = "--text_column"
            raise InputError(
                f"{where} has no column {column!r}: it has {', '.join(map(repr, record))}; choose with {flag}."
            )
    return source, target


def fingerprint(rows: Iterable[Row]) -> str:
    """sha256 of what the rows say, and of their order: runs of equal fingerprints have seen the same data."""
    digest = hashlib.sha256()
    for row in rows:
        text = "\0".join((row["id"], row["cluster"], row.get("group", ""), row["source"], row["target"], ""))
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
