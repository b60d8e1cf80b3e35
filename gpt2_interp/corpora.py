"""Sources -> rows {"id", "cluster", "source", "target"}: embedded, local files, or the Hub.

`cluster` names what makes rows dependent (the kind of event they were made from); elsewhere it is the row's own id.
Where the facts that a target states are known, a row has them as "facts".
A new embedded source is one function and one entry in `EMBEDDED`.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2_interp import synthetic_corpus
from gpt2_interp.arguments import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.startup import is_offline
from gpt2_interp.synthetic_text import pretraining_texts

Row = dict[str, Any]


@dataclass
class Corpus:
    """Rows of each use, disjoint where the source has enough of them, and what must be said about that."""

    train: list[Row]
    validation: list[Row]  # choose the best model
    test: list[Row]  # compare base and tuned model
    probes: list[Row]  # measured by every snapshot
    provenance: dict[str, dict] = field(default_factory=dict)  # use -> {"source", "rows"}
    notes: list[str] = field(default_factory=list)


# --- embedded sources ------------------------------------------------------------------------------------------


def _news(count: int, seed: int, split: str) -> Iterator[Row]:
    for row in synthetic_corpus.news_rows(count, seed, split):
        yield {
            "id": row["id"],
            "cluster": row["event"],
            "source": row["article"],
            "target": row["highlights"],
            "facts": row["facts"],
        }


def _stories(count: int, seed: int, split: str) -> Iterator[Row]:
    for row in synthetic_corpus.story_rows(count, seed, split):
        yield {"id": row["id"], "cluster": row["plot"], "source": row["prompt"], "target": row["story"]}


def _running_text(count: int, seed: int, split: str) -> Iterator[Row]:
    """Plain text for pre-training; each split is its own seed."""
    texts = pretraining_texts(count, seed + 1000 * synthetic_corpus.SPLITS.index(split))
    for i, text in enumerate(texts):
        yield {"id": f"text-{split}-{seed}-{i:06d}", "cluster": f"text-{i}", "source": "", "target": text}


EMBEDDED: dict[str, tuple[str, Callable[[int, int, str], Iterator[Row]]]] = {
    "synthetic_news": ("summarization", _news),
    "synthetic_stories": ("creative_writing", _stories),
    "synthetic_text": ("creative_writing", _running_text),
}
DEFAULT_TRAIN_ROWS, DEFAULT_EVAL_ROWS, DEFAULT_PREDICT_ROWS = 4000, 200, 200


def _embedded_corpus(data: DataArguments, probe_samples: int, seed: int) -> Corpus:
    task, make = EMBEDDED[data.dataset_name]
    if data.task != task:
        raise InputError(f"--dataset_name {data.dataset_name} is for --task {task}, not {data.task}.")
    n_eval = data.max_eval_samples or DEFAULT_EVAL_ROWS
    held_out = list(make(n_eval + probe_samples, seed, "validation"))
    return Corpus(
        train=list(make(data.max_train_samples or DEFAULT_TRAIN_ROWS, seed, "train")),
        validation=held_out[:n_eval],
        test=list(make(data.max_predict_samples or DEFAULT_PREDICT_ROWS, seed, "test")),
        probes=held_out[n_eval:],
        provenance={
            use: {"source": f"{data.dataset_name} (seed {seed}, split {split})"}
            for use, split in (
                ("train", "train"),
                ("validation", "validation"),
                ("test", "test"),
                ("probes", "validation"),
            )
        },
    )


# --- local files -----------------------------------------------------------------------------------------------

DEFAULT_COLUMNS = {"summarization": ("article", "highlights"), "creative_writing": ("prompt", "story")}


def _records(path: Path) -> Iterator[tuple[str, dict]]:
    """(where, record) for each row of a local file; `where` is "file, line n" for error messages."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: check the path given to --train_file, --validation_file or --test_file."
        )
    reader = {
        ".jsonl": _jsonl_records,
        ".json": _jsonl_records,
        ".csv": _csv_records,
        ".parquet": _parquet_records,
        ".txt": _text_records,
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
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except ValueError:
                what = "is empty" if not line.strip() else "is not valid JSON"
                raise InputError(f"{where} {what}; each line must be one JSON object.") from None
            if not isinstance(record, dict):
                raise InputError(f"{where} is not a JSON object with named columns.")
            yield where, record


def _csv_records(path: Path) -> Iterator[tuple[str, dict]]:
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for record in reader:
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
    for number, record in enumerate(table.to_pylist(), 1):
        yield f"{path}, row {number}", record


def _text_records(path: Path) -> Iterator[tuple[str, dict]]:
    """One record a paragraph; paragraphs are separated by empty lines."""
    with open(path, encoding="utf-8") as file:
        groups = itertools.groupby(enumerate(file, 1), key=lambda numbered: bool(numbered[1].strip()))
        for has_text, lines in groups:
            if has_text:
                lines = list(lines)
                yield f"{path}, line {lines[0][0]}", {"text": "".join(line for _, line in lines).strip()}


def read_rows(path: str | Path, data: DataArguments, limit: int | None = None) -> list[Row]:
    """Rows of one local file, at most `limit`. Raises InputError naming file and line of the first bad row."""
    path = Path(path)
    rows = []
    for where, record in itertools.islice(_records(path), limit):
        rows.append(_row(record, data, where, f"{path.stem}-{len(rows):06d}"))
    if not rows:
        raise InputError(f"{path} has no rows.")
    return rows


def _row(record: dict, data: DataArguments, where: str, default_id: str) -> Row:
    source_column, target_column = _columns(record, data, where)
    identity = str(record.get("id") or default_id)
    cells = {"source": "" if source_column is None else record[source_column], "target": record[target_column]}
    for name, column in (("source", source_column), ("target", target_column)):
        if column is not None and (not isinstance(cells[name], str) or not cells[name].strip()):
            raise InputError(f"{where}: column {column!r} is empty or not text; fill it or remove the row.")
    return {"id": identity, "cluster": identity, **cells}


def _columns(record: dict, data: DataArguments, where: str) -> tuple[str | None, str]:
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


# --- the Hub ---------------------------------------------------------------------------------------------------


def _hub_rows(data: DataArguments, split: str, limit: int | None) -> list[Row]:
    import datasets

    spec = f"{data.dataset_name}" + (f" ({data.dataset_config_name})" if data.dataset_config_name else "")
    try:
        table = datasets.load_dataset(data.dataset_name, data.dataset_config_name, split=split)
    except Exception as error:  # the library raises many kinds; each of them ends here, in one sentence
        why = (
            "the Hugging Face Hub can't be reached" if is_offline() else f"{type(error).__name__}: {_first_line(error)}"
        )
        raise InputError(
            f"dataset {spec}, split {split}, can't be loaded: {why}; use --train_file and --validation_file with local "
            f"rows, or one of the embedded sources {', '.join(EMBEDDED)}."
        ) from None
    table = table.select(range(min(limit or len(table), len(table))))
    return [_row(record, data, f"{spec}, {split} row {i}", f"{split}-{i:06d}") for i, record in enumerate(table)]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")


# --- all of them -----------------------------------------------------------------------------------------------


def load_corpus(data: DataArguments, probe_samples: int, seed: int) -> Corpus:
    """Rows for training, choosing, testing and probing. Raises InputError for everything that is wrong with them."""
    if data.dataset_name in EMBEDDED:
        corpus = _embedded_corpus(data, probe_samples, seed)
    elif data.dataset_name:
        corpus = Corpus(
            train=_hub_rows(data, "train", data.max_train_samples),
            validation=_hub_rows(data, "validation", None),
            test=_hub_rows(data, "test", data.max_predict_samples or DEFAULT_PREDICT_ROWS),
            probes=[],
            provenance={
                use: {"source": f"{data.dataset_name} {data.dataset_config_name or ''} {split}".strip()}
                for use, split in (
                    ("train", "train"),
                    ("validation", "validation"),
                    ("test", "test"),
                    ("probes", "validation"),
                )
            },
        )
        _share_validation_rows(corpus, data, probe_samples)
    else:
        validation_file, test_file = data.validation_file, data.test_file
        corpus = Corpus(
            train=read_rows(data.train_file, data, data.max_train_samples),
            validation=read_rows(validation_file, data),
            test=read_rows(test_file, data, data.max_predict_samples or DEFAULT_PREDICT_ROWS) if test_file else [],
            probes=[],
            provenance={
                "train": {"source": data.train_file},
                "validation": {"source": validation_file},
                "test": {"source": test_file or validation_file},
                "probes": {"source": validation_file},
            },
        )
        _share_validation_rows(corpus, data, probe_samples)
    for use in ("train", "validation", "test", "probes"):
        corpus.provenance[use]["rows"] = len(getattr(corpus, use))
    return corpus


def _share_validation_rows(corpus: Corpus, data: DataArguments, probe_samples: int) -> None:
    """Divide the validation rows, in their order: first to choose the best model, then to test (without a test file),
    the rest to probe. Where they do not suffice, uses overlap, and that is noted."""
    rows = corpus.validation
    n_test = 0 if corpus.test else data.max_predict_samples or min(DEFAULT_PREDICT_ROWS, len(rows) // 3)
    n_eval = data.max_eval_samples or max(1, min(DEFAULT_EVAL_ROWS, (len(rows) - n_test) // 2))
    corpus.validation = rows[:n_eval]
    if not corpus.test:
        corpus.test = rows[n_eval : n_eval + n_test]
        corpus.notes.append("no test file: base and tuned model are compared on validation rows")
        if len(corpus.test) < n_test:
            corpus.test = rows[-n_test:]
            corpus.notes.append(
                "validation rows are few: some choose the best model and test it too, so its scores are optimistic"
            )
    corpus.probes = rows[n_eval + n_test : n_eval + n_test + probe_samples]
    if len(corpus.probes) < min(8, probe_samples):
        corpus.probes = rows[:probe_samples]
        corpus.notes.append("validation rows are few: the probes are among the rows that choose the best model")
    if len(corpus.probes) < probe_samples:
        corpus.notes.append(
            f"{len(corpus.probes)} probes instead of {probe_samples}: there are no more validation rows"
        )
