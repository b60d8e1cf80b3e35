"""General text, on which nothing is trained: a change of the task must be larger than the change on this text."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gpt2_interp.data import local_files
from gpt2_interp.data.cache import cache_folder
from gpt2_interp.data.mixture import SHORTEST_TEXT, SOURCES
from gpt2_interp.data.rows import Row
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError, first_line
from gpt2_interp.files import write_atomically
from gpt2_interp.startup import is_offline
from gpt2_interp.synthetic.rows import EMBEDDED_ROWS

N_TEXTS = 192  # enough for 64 examples as long as a probe: short texts are joined
CANDIDATES = 10_000  # texts of a file among which some are drawn
BEGINNING = 100  # characters that tell most texts apart
OTHER_TEXT = {"synthetic_news": "synthetic_stories", "synthetic_stories": "synthetic_news"}  # what else is embedded


def load_control(
    data: DataArguments, seed: int, training: Sequence[Row], count: int = N_TEXTS
) -> tuple[list[Row], str, list[str]]:
    """Return (`count` rows of plain text or fewer, where they come from, notes); no rows and a note where there is
    none.

    --control_file if given; beside an embedded source the other one's texts; beside rows from the Hub, paragraphs of
    WikiText's test split. Texts that are training rows are left out. Raises InputError for a bad --control_file only.
    """
    if (data.dataset_name or "").startswith("synthetic_") and not data.control_file:
        return _embedded(OTHER_TEXT.get(data.dataset_name, "synthetic_news"), seed, count)
    if not (data.control_file or data.dataset_name or _streamed(data)):
        return [], "", ["no general text to hold the changes against: give some with --control_file"]
    texts, where, notes = general_texts(data)
    if notes:
        notes = [f"no general text to hold the changes against: {note}; give a --control_file" for note in notes]
    fresh = not_among(texts, training)
    if len(fresh) < len(texts):
        notes.append(f"{len(texts) - len(fresh)} texts of {where} are training rows: they are no general text")
    chosen = sorted(random.Random(f"{seed} control").sample(range(len(fresh)), min(count, len(fresh))))
    return [_row(f"control-{i:06d}", fresh[i]) for i in chosen], where, notes


def general_texts(data: DataArguments) -> tuple[list[str], str, list[str]]:
    """Return (texts, where they come from, why there are none): those of --control_file, else paragraphs of WikiText.

    Raises InputError for a bad --control_file only.
    """
    if data.control_file:
        return _file_texts(Path(data.control_file), data.text_unit), data.control_file, []
    return _wikitext()


def _row(identity: str, text: str, cluster: str | None = None) -> Row:
    return {"id": identity, "cluster": cluster or identity, "source": "", "target": text}


def _streamed(data: DataArguments) -> bool:
    """Return whether some source of the mixture comes from the Hub."""
    return any(word.partition("=")[0] not in {f.partition("=")[0] for f in data.source_files} for word in data.mixture)


# --- where texts come from ---------------------------------------------------------------------------------------


def _embedded(source: str, seed: int, count: int) -> tuple[list[Row], str, list[str]]:
    """Held-out texts of an embedded source; no training row is like them."""
    made = EMBEDDED_ROWS[source](count, seed, "validation")
    column, cluster = ("story", "plot") if source == "synthetic_stories" else ("article", "event")
    rows = [_row(row["id"], row[column], row[cluster]) for row in made]
    return rows, f"{source} (seed {seed}, split validation)", []


def _file_texts(path: Path, text_unit: str) -> list[str]:
    """The first CANDIDATES texts of a local file; captions and stubs only where there is nothing longer."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path given to --control_file.")
    texts = []
    for where, record in itertools.islice(local_files.records(path, text_unit), CANDIDATES):
        text = record[_text_column(record, where)]
        if not isinstance(text, str):
            raise InputError(f"{where} of --control_file: column 'text' does not hold text; correct it.")
        if text.strip():
            texts.append(text.strip())
    if not texts:
        raise InputError(f"{path} has no text; give another --control_file.")
    return [text for text in texts if len(text) >= SHORTEST_TEXT] or texts


def _text_column(record: dict, where: str) -> str:
    if "text" in record:
        return "text"
    columns = [name for name, value in record.items() if isinstance(value, str) and name != "id"]
    if len(columns) != 1:
        raise InputError(
            f"{where} of --control_file has no column 'text' and not exactly one other with text: it has "
            f"{', '.join(map(repr, record))}; name the right one 'text'."
        )
    return columns[0]


def _wikitext() -> tuple[list[str], str, list[str]]:
    """Paragraphs of WikiText-103's test split, kept locally once they were read."""
    source = SOURCES["wikitext"]
    path = cache_folder() / "samples" / f"wikitext-{source.revision[:8]}-test.jsonl"
    if not path.is_file():
        why = "the Hugging Face Hub can't be reached" if is_offline() else _download(path)
        if why:
            return [], source.address, [f"WikiText can't be had ({why})"]
    records = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    texts = [text.target for record in records if (text := source.read(record)) is not None]
    return texts, f"{source.address} test", []


def _download(path: Path) -> str | None:
    """Write the split's records to `path`; why not, if that fails: general text is worth no error."""
    import datasets

    source = SOURCES["wikitext"]
    try:
        table = datasets.load_dataset(
            source.hub_id, source.config, split="test", revision=source.revision, streaming=True
        )
        lines = [json.dumps({"text": record["text"]}, ensure_ascii=False) + "\n" for record in table]
        write_atomically(path, "".join(lines).encode())
    except Exception as error:  # the library raises many kinds
        return f"{type(error).__name__}: {first_line(error)}"
    return None


# --- without training rows ----------------------------------------------------------------------------------------


def not_among(texts: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """The texts, each once, without those that are a source or a target of one of the rows, but for white space and
    case."""
    found = {_normal(text): text for text in texts}
    beginnings = {_beginning(text) for text in texts}
    for text in _all_texts(rows):
        if _beginning(text) in beginnings:  # what is cheap first: there may be hundreds of thousands of long texts
            found.pop(_normal(text), None)
    return list(found.values())


def _all_texts(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield from filter(None, (row["source"], row["target"]))


def _beginning(text: str) -> str:
    return _normal(text.lstrip()[: 4 * BEGINNING])[:BEGINNING]


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()
