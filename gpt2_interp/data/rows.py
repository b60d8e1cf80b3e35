"""A row (source, target, id, cluster) made from a record, and the fingerprint of many."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError

Row = dict[str, Any]
END_OF_TEXT = "<|endoftext|>"  # of GPT-2's tokenizer; every target gets one when it is tokenized

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
    """Return (source column or None for plain text, target column), from the flags or the task's usual names."""
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


def without_end_of_text(rows: Iterable[Row]) -> int:
    """Take a literal end of text off the targets, in place; return how many.

    Notebooks often write it into the data. It would be supervised twice, and count as a word of the reference.
    """
    changed = 0
    for row in rows:
        text = row["target"].rstrip()
        if text.endswith(END_OF_TEXT) and text.removesuffix(END_OF_TEXT).strip():
            row["target"] = text.removesuffix(END_OF_TEXT).rstrip()
            changed += 1
    return changed


def tell_apart(rows: Sequence[Row]) -> int:
    """Give rows that repeat an earlier id an id of their own, in place; return how many. Their cluster remains the id
    that they share, because such rows may depend on each other."""
    seen: Counter[str] = Counter()
    taken = {row["id"] for row in rows}
    changed = 0
    for row in rows:
        identity = row["id"]
        seen[identity] += 1
        if seen[identity] > 1:
            while (own := f"{identity} ({seen[identity]})") in taken:
                seen[identity] += 1
            row["id"] = own
            changed += 1
    return changed


def fingerprint(rows: Iterable[Row]) -> str:
    """sha256 of what the rows say, and of their order: runs of equal fingerprints have seen the same data."""
    digest = hashlib.sha256()
    for row in rows:
        text = "\0".join((row["id"], row["cluster"], row.get("group", ""), row["source"], row["target"], ""))
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
