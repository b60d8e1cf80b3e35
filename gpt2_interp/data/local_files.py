"""Local files -> records: .jsonl, .csv, .parquet with named columns, and .txt in lines, paragraphs or documents."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gpt2_interp.errors import InputError

TEXT_UNITS = ("line", "paragraph", "document")
DOCUMENT_END = "<|endoftext|>"  # what stands between documents in files made for GPT-2


def records(path: Path, text_unit: str = "paragraph") -> Iterator[tuple[str, dict]]:
    """Yield (where, record) for each row of a local file; `where` is "file, line n" for error messages. Raises
    InputError."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: check the path given to --train_file, --validation_file, --test_file or "
            f"--source_files."
        )
    reader = {
        ".jsonl": _jsonl_records,
        ".json": _jsonl_records,
        ".csv": _csv_records,
        ".parquet": _parquet_records,
        ".txt": partial(_text_records, unit=text_unit),
    }.get(path.suffix)
    if reader is None:
        raise InputError(
            f"{path}: {path.suffix or 'no suffix'} is not a known kind; use .jsonl, .csv, .parquet or .txt."
        )
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it first."
        ) from None
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} can't be read ({error}).") from None


def _jsonl_records(path: Path) -> Iterator[tuple[str, dict]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                what = "is empty" if not line.strip() else "is not valid JSON"
                raise InputError(f"{where} {what}; each line must be one JSON object.") from None
            if not isinstance(record, dict):
                raise InputError(f"{where} is not a JSON object with named columns.")
            if "\\ud" in line.lower() and not _is_unicode(json.dumps(record, ensure_ascii=False)):
                raise InputError(
                    f"{where} holds half a character (a lone surrogate such as \\ud83d, what is left of a cut emoji): "
                    f"complete it or remove it."
                )
            yield where, record


def _is_unicode(text: str) -> bool:
    """Return whether every character is a whole one: half of a surrogate pair can't be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_records(path: Path) -> Iterator[tuple[str, dict]]:
    csv.field_size_limit(2**31 - 1)  # an article may well exceed the default of 131,072 characters
    with open(path, encoding="utf-8-sig", newline="") as file:  # Excel's "CSV UTF-8" begins with a byte order mark
        reader = csv.DictReader(file, strict=True)  # else one stray quote makes the rest of the file one cell
        while True:
            first = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(
                    f"{path}: the row that begins on line {first} can't be read ({error}): a quote is not closed, or "
                    f'stands inside a cell without being doubled ("").'
                ) from None
            if None in record or None in record.values():
                raise InputError(f"{path}, line {reader.line_num} has not as many cells as the header has columns.")
            yield f"{path}, line {reader.line_num}", record


def _parquet_records(path: Path) -> Iterator[tuple[str, dict]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path} is not a parquet file ({error}).") from None
    batches = (batch.to_pylist() for batch in table.to_batches(max_chunksize=1000))  # never all rows as Python objects
    for number, record in enumerate(itertools.chain.from_iterable(batches), 1):
        yield f"{path}, row {number}", record


def _text_records(path: Path, unit: str) -> Iterator[tuple[str, dict]]:
    """One record a line that is not empty; or a paragraph (between empty lines); or a document (between <|endoftext|>,
    the whole file where there is none)."""
    with open(path, encoding="utf-8-sig") as file:  # a byte order mark is no text
        if unit == "document":
            for number, text in enumerate(file.read().split(DOCUMENT_END), 1):
                if text.strip():
                    yield f"{path}, document {number}", {"text": text.strip()}
            return
        if unit == "line":
            yield from ((f"{path}, line {n}", {"text": line.strip()}) for n, line in enumerate(file, 1) if line.strip())
            return
        groups = itertools.groupby(enumerate(file, 1), key=lambda numbered: bool(numbered[1].strip()))
        for has_text, lines in groups:
            if has_text:
                lines = list(lines)
                yield f"{path}, line {lines[0][0]}", {"text": "".join(line for _, line in lines).strip()}


def whole_text(path: str, flag: str) -> str:
    """A file as one text, without byte order mark; "-" is the standard input. Raises InputError, which names `flag`."""
    if not path:
        raise InputError(f"write {flag} FILE.")
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{flag} {path} is not UTF-8 text: convert it first.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise InputError(f"{flag} {path} can't be read ({getattr(error, 'strerror', error)}).") from None
