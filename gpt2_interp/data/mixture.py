"""The sources of the creative-writing mixture: raw records -> prompts and stories, or plain texts.

A new source is one function (a raw record -> `Text`, or None to leave it out) with a row in `SOURCES`. Of each source
that a mixture names, as many records as it needs are streamed once from the Hub into a local sample, never the whole
data set; or they come from a local file.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpt2_interp.data import local_files
from gpt2_interp.data.cache import cache_folder
from gpt2_interp.errors import InputError, first_line
from gpt2_interp.files import write_atomically
from gpt2_interp.startup import is_offline

SHUFFLE_BUFFER = 10_000  # records among which a stream is shuffled
SHORTEST_TEXT = 100  # characters; shorter texts are captions, stubs and "[deleted]"
USES = ("test", "probes", "validation", "train")  # in the order in which they are given their clusters


@dataclass(frozen=True)
class Text:
    """One record's text: `source` is the prompt, "" for plain text. Texts of one `cluster` stay on one side of the
    split; None means that the text is a cluster of its own."""

    source: str
    target: str
    cluster: str | None = None


# --- one function a source -------------------------------------------------------------------------------------

_TAGS = re.compile(r"^(?:\s*\[\s*[A-Za-z/]{2,6}\s*\]\s*:?)+")  # "[ WP ]", "[ TT ] [ IP ]": kinds of post on Reddit
_SPACED = (  # what tokenization for word-based models took apart: "do n't", "word ,", "( aside )"
    (re.compile(r"``\s*|\s*''"), '"'),
    (re.compile(r" (n't|'(?:s|re|ve|ll|d|m))\b"), r"\1"),
    (re.compile(r" ’ (t|s|re|ve|ll|d|m)\b"), r"’\1"),
    (re.compile(r" +([.,!?;:)\]%”])"), r"\1"),
    (re.compile(r"([(\[$“]) +"), r"\1"),
)


def _joined(text: str) -> str:
    """Punctuation and contractions back at their words."""
    for pattern, replacement in _SPACED:
        text = pattern.sub(replacement, text)
    return text


def _paragraphs(text: str) -> str:
    """Lines without outer or repeated spaces, empty ones dropped, one empty line between paragraphs."""
    lines = (" ".join(line.split()) for line in text.replace("<newline>", "\n").split("\n"))
    return "\n\n".join(line for line in lines if line)


def writing_prompts(record: Mapping[str, Any]) -> Text | None:
    """prompt, story. All stories of one prompt are one cluster, whatever its tag and case."""
    prompt = _joined(_paragraphs(_TAGS.sub("", record["prompt"])))
    story = _joined(_paragraphs(record["story"]))
    return Text(prompt, story, prompt) if prompt and len(story) >= SHORTEST_TEXT else None


def roc_stories(record: Mapping[str, Any]) -> Text | None:
    """Five sentences: as `sentences`, or as prompt (the first) and continuation (the others). Plain text."""
    sentences = record["sentences"] if "sentences" in record else (record["prompt"], record["continuation"])
    story = " ".join(" ".join(sentences).split())
    return Text("", story) if len(story) >= SHORTEST_TEXT else None


def wikitext(record: Mapping[str, Any]) -> Text | None:
    """text: a paragraph. Left out are headings (" = Title = "), stubs, and paragraphs with words replaced by <unk>."""
    text = re.sub(r" @([-,.])@ ", r"\1", record["text"])
    if text.lstrip().startswith("=") or "<unk>" in text or len(text) < SHORTEST_TEXT:
        return None
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    return Text("", _joined(_paragraphs(text)))


def open_web_text(record: Mapping[str, Any]) -> Text | None:
    """text: a whole web page."""
    text = record["text"].replace(local_files.DOCUMENT_END, "").strip()
    return Text("", text) if len(text) >= SHORTEST_TEXT else None


@dataclass(frozen=True)
class Source:
    """A source on the Hub (revision None: the newest), and the function that reads its records."""

    hub_id: str
    config: str | None
    revision: str | None
    read: Callable[[Mapping[str, Any]], Text | None]

    @property
    def address(self) -> str:
        return self.hub_id + (f"@{self.revision}" if self.revision else "") + (f" {self.config}" if self.config else "")


SOURCES = {
    "writingprompts": Source(
        "euclaise/writingprompts", None, "35f0aa359452ba8147b34d925684fccee26679cc", writing_prompts
    ),
    "rocstories": Source("Ximing/ROCStories", None, None, roc_stories),
    "wikitext": Source(
        "Salesforce/wikitext", "wikitext-103-raw-v1", "b08601e04326c79dfdd32d625aee71d232d685c3", wikitext
    ),
    "openwebtext": Source("Skylion007/openwebtext", None, "79d93d786212f7344586290adb811d4ae6a1762c", open_web_text),
}


# --- how many of each ------------------------------------------------------------------------------------------


def pairs(flag: str, words: Sequence[str]) -> dict[str, str]:
    """Parse ["wikitext=0.2", ...] into {"wikitext": "0.2", ...}. Raises InputError naming the flag."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in SOURCES:
            raise InputError(f"{flag}: {name!r} is no source; the sources are {', '.join(SOURCES)}.")
        if not (equals and value):
            raise InputError(f"{flag}: write {name}=VALUE, not {word!r}.")
        if name in found:
            raise InputError(f"{flag} names {name} twice.")
        found[name] = value
    return found


def mixture_shares(words: Sequence[str]) -> dict[str, Fraction]:
    """The mixture's shares, which sum to 1. Raises InputError."""
    shares: dict[str, Fraction] = {}
    for name, value in pairs("--mixture", words).items():
        try:
            shares[name] = Fraction(value)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"--mixture: {value!r} is no weight for {name}; write a number like 0.4.") from None
        if shares[name] <= 0:
            raise InputError(f"--mixture: the weight of {name} must be above 0; leave the source out instead.")
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def counts(shares: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Whole numbers that sum to `total`, each less than 1 from its share of it: the largest remainders are rounded up,
    of equal ones the first."""
    floors = {name: math.floor(share * total) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: floors[name] - shares[name] * total)
    for name in by_remainder[: total - sum(floors.values())]:
        floors[name] += 1
    return floors


# --- records of one source -------------------------------------------------------------------------------------


def sample(name: str, count: int, seed: int) -> Path:
    """The local sample of `count` records of a source that its function accepts: streamed from the Hub the first time.

    Raises InputError when the Hub can't be reached, the stream fails, or it ends too early.
    """
    source = SOURCES[name]
    path = cache_folder() / "samples" / f"{name}-{(source.revision or 'newest')[:8]}-seed{seed}-{count}.jsonl"
    if path.is_file() and path.read_bytes().count(b"\n") == count:
        return path
    instead = f"give a local file with --source_files {name}=FILE, or take {name} out of --mixture"
    if is_offline():
        raise InputError(
            f"source {name} ({source.address}) has no local sample yet, and the Hugging Face Hub can't be reached: "
            f"{instead}."
        )
    lines: list[str] = []
    try:
        for record in tqdm(_stream(source, seed), desc=f"streaming {name}", unit=" records", leave=False):
            if source.read(record) is not None:
                lines.append(json.dumps(record, ensure_ascii=False) + "\n")
            if len(lines) == count:
                break
    except Exception as error:  # the library raises many kinds; each of them ends here, in one sentence
        raise InputError(
            f"source {name} ({source.address}) failed after {len(lines)} of {count} rows "
            f"({type(error).__name__}: {first_line(error)}): try again, or {instead}."
        ) from None
    if len(lines) < count:
        raise InputError(_too_few(name, source.address, count, len(lines)))
    write_atomically(path, "".join(lines).encode())
    return path


def _stream(source: Source, seed: int) -> Iterator[dict]:
    import datasets

    table = datasets.load_dataset(source.hub_id, source.config, split="train", revision=source.revision, streaming=True)
    return iter(table.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER))


def _too_few(name: str, where: str, wanted: int, got: int) -> str:
    return (
        f"source {name} ({where}) gives only {got} usable rows of the {wanted} that the mixture wants: lower its "
        f"weight in --mixture, or --max_train_samples, --max_eval_samples and --max_predict_samples, or give a larger "
        f"file with --source_files."
    )


def texts(name: str, path: Path, text_unit: str) -> Iterator[Text]:
    """The usable texts of a source's file, in the file's order, each text once. Raises InputError for a bad record."""
    read, seen = SOURCES[name].read, set()
    for where, record in local_files.records(path, text_unit):
        try:
            text = read(record)
        except (KeyError, TypeError, AttributeError) as error:
            what = f"has no column {error}" if isinstance(error, KeyError) else f"is not usable ({error})"
            raise InputError(
                f"{where} {what}: source {name} reads what {(read.__doc__ or '').split('.')[0]}; it has "
                f"{', '.join(map(repr, record))}."
            ) from None
        if text is not None and (digest := _digest(text.target)) not in seen:
            seen.add(digest)
            yield text


def _digest(text: str) -> str:
    """Return a hash that is the same for texts which differ in case or white space only."""
    return hashlib.sha256(" ".join(text.split()).casefold().encode()).hexdigest()


# --- the mixture -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """rows and counts: use -> rows; use -> {source: rows}. samples: source -> {"from", "sha256"} of what was read."""

    rows: dict[str, list[dict]]
    counts: dict[str, dict[str, int]]
    samples: dict[str, dict[str, str]]


def mix(
    shares: Mapping[str, Fraction],
    files: Mapping[str, str],
    wanted: Mapping[str, int],
    seed: int,
    text_unit: str = "paragraph",
) -> Mixture:
    """Make `wanted[use]` rows {"id", "cluster", "group", "source", "target"} for each use, with exactly each source's
    share of them, in an order shuffled by `seed`. No cluster is in two uses. Raises InputError.

    files: local files of some sources; the others are streamed.
    """
    for file in files.values():  # before anything is streamed
        if not Path(file).is_file():
            raise InputError(f"{file} does not exist: check the path given to --source_files.")
    by_source = {use: counts(shares, total) for use, total in wanted.items()}
    rows: dict[str, list[dict]] = {use: [] for use in wanted}
    samples = {}
    for name in shares:
        needed = {use: by_source[use][name] for use in USES}
        total = sum(needed.values())
        # A cluster that would be on two sides, and a text that comes twice, cost a few rows.
        path = Path(files[name]) if name in files else sample(name, total + total // 20 + 100, seed)
        clusters = _clusters(name, path, text_unit, None if name in files else SOURCES[name].address)
        for use, chosen in _divide(name, str(path), clusters, needed).items():
            rows[use] += chosen
        samples[name] = {
            "from": str(path) if name in files else SOURCES[name].address,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    for use in rows:
        random.Random(f"{seed} {use}").shuffle(rows[use])
    return Mixture(rows, by_source, samples)


def _clusters(name: str, path: Path, text_unit: str, address: str | None) -> dict[str, list[dict]]:
    """Group the rows of one source by their cluster."""
    clusters: dict[str, list[dict]] = {}
    for i, text in enumerate(texts(name, path, text_unit)):
        cluster = f"{name}-{_digest(text.cluster or text.target)[:16]}"
        row = {"id": f"{name}-{i:06d}", "cluster": cluster, "group": name, "source": text.source, "target": text.target}
        clusters.setdefault(cluster, []).append(row)
    return clusters


def _divide(
    name: str, where: str, clusters: Mapping[str, list[dict]], needed: Mapping[str, int]
) -> dict[str, list[dict]]:
    """Whole clusters to each use in turn, in the order of their hashes, until it has as many rows as it needs; what is
    left of a use's last cluster is used nowhere. Raises InputError."""
    ordered = iter(sorted(clusters))  # the names are hashes: an order that has nothing to do with the file's
    divided: dict[str, list[dict]] = {}
    for use, count in needed.items():
        chosen: list[dict] = []
        while len(chosen) < count:
            cluster = next(ordered, None)
            if cluster is None:
                got = sum(map(len, divided.values())) + len(chosen)
                raise InputError(_too_few(name, where, sum(needed.values()), got))
            chosen += clusters[cluster]
        divided[use] = chosen[:count]
    return divided
