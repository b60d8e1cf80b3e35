"""Sources -> rows {"id", "cluster", "source", "target"}: embedded, local files, the Hub, or a mixture of several.

`cluster` names what makes rows dependent (the kind of event they were made from, the prompt of several stories);
elsewhere it is the row's own id. Rows of a mixture have their source as "group". Where the facts that a target states
are known, a row has them as "facts". A new embedded source is one function and one entry in `EMBEDDED`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt2_interp.data import control_text, local_files
from gpt2_interp.data.embedded import EMBEDDED
from gpt2_interp.data.hub_rows import hub_splits
from gpt2_interp.data.mixture import mix, mixture_shares, pairs
from gpt2_interp.data.null_targets import permute_targets
from gpt2_interp.data.rows import END_OF_TEXT, Row, fingerprint, row_of, tell_apart, without_end_of_text
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError


@dataclass
class Corpus:
    """Rows of each use, disjoint if the source has enough of them, and notes on what to know about them."""

    train: Sequence[Row]
    validation: Sequence[Row]  # choose the best model
    test: Sequence[Row]  # compare base and tuned model
    probes: Sequence[Row]  # measured by every snapshot
    test_probes: Sequence[Row] = ()  # measured too: of the test split, none of them scored
    control: Sequence[Row] = ()  # general text, measured too; plain text, none of it trained on
    provenance: dict[str, dict] = field(default_factory=dict)  # use -> {"source", "rows", "sha256"}
    notes: list[str] = field(default_factory=list)


# --- embedded sources ------------------------------------------------------------------------------------------


DEFAULT_TRAIN_ROWS, DEFAULT_EVAL_ROWS, DEFAULT_PREDICT_ROWS = 4000, 200, 200


def _embedded_corpus(data: DataArguments, probe_samples: int, seed: int) -> Corpus:
    task, make = EMBEDDED[data.dataset_name]
    if data.task != task:
        raise InputError(f"--dataset_name {data.dataset_name} is for --task {task}, not {data.task}.")
    n_eval = data.max_eval_samples or DEFAULT_EVAL_ROWS
    n_test = data.max_predict_samples or DEFAULT_PREDICT_ROWS
    held_out = list(make(n_eval + probe_samples, seed, "validation"))
    like_test = list(make(n_test + probe_samples // 2, seed, "test"))
    return Corpus(
        train=list(make(data.max_train_samples or DEFAULT_TRAIN_ROWS, seed, "train")),
        validation=held_out[:n_eval],
        test=like_test[:n_test],
        probes=held_out[n_eval:],
        test_probes=like_test[n_test:],
        provenance={
            use: {"source": f"{data.dataset_name} (seed {seed}, split {split})"}
            for use, split in (
                ("train", "train"),
                ("validation", "validation"),
                ("test", "test"),
                ("probes", "validation"),
                ("test_probes", "test"),
            )
        },
    )


# --- local files -----------------------------------------------------------------------------------------------


def read_rows(path: str | Path, data: DataArguments, limit: int | None = None) -> tuple[list[Row], list[str]]:
    """Return (rows of one local file, at most `limit`; notes on what was changed in them).

    Raises InputError naming file and line of the first bad row.
    """
    path = Path(path)
    rows = []
    for where, record in itertools.islice(local_files.records(path, data.text_unit), limit):
        rows.append(row_of(record, data, where, f"{path.stem}-{len(rows):06d}"))
    if not rows:
        raise InputError(f"{path} has no rows.")
    notes = []
    if ended := without_end_of_text(rows):
        notes.append(f"{ended} targets of {path} end with {END_OF_TEXT}, which training adds itself: it is taken off")
    if repeated := tell_apart(rows):
        notes.append(f"{repeated} rows of {path} repeat the id of an earlier row: a number tells them apart")
    return rows, notes


def _local_corpus(data: DataArguments, probe_samples: int) -> Corpus:
    train_file, validation_file, test_file = data.train_file, data.validation_file, data.test_file
    if validation_file:
        train, notes = read_rows(train_file, data, data.max_train_samples)
        validation, more = read_rows(validation_file, data)
        notes += more
    else:
        rows, notes = read_rows(train_file, data)
        train, validation = _hold_out(rows, train_file, data, probe_samples, notes)
    n_test = data.max_predict_samples or DEFAULT_PREDICT_ROWS
    test, more = read_rows(test_file, data, n_test + probe_samples) if test_file else ([], [])
    notes += more
    held_out = validation_file or f"the end of {train_file}"
    corpus = Corpus(
        train=_first(train, data.max_train_samples, "--max_train_samples", train_file),
        validation=validation,
        test=test[:n_test],
        probes=[],
        test_probes=test[n_test:],
        provenance={
            "train": {"source": train_file},
            "validation": {"source": held_out},
            "test": {"source": test_file or held_out},
            "probes": {"source": held_out},
            "test_probes": {"source": test_file},
        },
        notes=notes,
    )
    if test_file:
        _first(corpus.test, data.max_predict_samples, "--max_predict_samples", test_file)
    _share_validation_rows(corpus, data, probe_samples)
    return corpus


# --- the Hub ---------------------------------------------------------------------------------------------------


def _hub_corpus(data: DataArguments, probe_samples: int) -> Corpus:
    notes: list[str] = []
    splits = hub_splits(data, notes)
    train, validation, test = (splits.get(split) for split in ("train", "validation", "test"))
    name = " ".join(
        filter(None, (data.dataset_name, data.dataset_config_name, (data.dataset_revision or "")[:8] or None))
    )
    held_out = f"{name} validation"
    if validation is None:
        held_out = f"the end of {name} train"
        train, validation = _hold_out(train, f"{name} train", data, probe_samples, notes)
    n_test = data.max_predict_samples or DEFAULT_PREDICT_ROWS
    if test is not None:
        _first(test, data.max_predict_samples, "--max_predict_samples", f"{name} test")
    corpus = Corpus(
        train=_first(train, data.max_train_samples, "--max_train_samples", f"{name} train"),
        validation=validation,
        test=[] if test is None else test[:n_test],
        probes=[],
        test_probes=[] if test is None else test[n_test : n_test + probe_samples],
        provenance={
            "train": {"source": f"{name} train"},
            "validation": {"source": held_out},
            "test": {"source": held_out if test is None else f"{name} test"},
            "probes": {"source": held_out},
            "test_probes": {"source": f"{name} test"},
        },
        notes=notes,
    )
    _share_validation_rows(corpus, data, probe_samples)
    return corpus


# --- a mixture -------------------------------------------------------------------------------------------------


def _mixed_corpus(data: DataArguments, probe_samples: int, seed: int) -> Corpus:
    wanted = {
        "train": data.max_train_samples or DEFAULT_TRAIN_ROWS,
        "validation": data.max_eval_samples or DEFAULT_EVAL_ROWS,
        "test": data.max_predict_samples or DEFAULT_PREDICT_ROWS,
        "probes": probe_samples,
    }
    files = pairs("--source_files", data.source_files)
    mixture = mix(mixture_shares(data.mixture), files, wanted, seed, data.text_unit)
    provenance = {}
    for use, counts in mixture.counts.items():
        parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        provenance[use] = {"source": f"mixture of {parts}", "counts": counts}
    provenance["train"]["samples"] = mixture.samples  # the same for all uses
    return Corpus(**mixture.rows, provenance=provenance)


# --- all of them -----------------------------------------------------------------------------------------------


def load_corpus(data: DataArguments, probe_samples: int, seed: int) -> Corpus:
    """Load rows for training, choosing, testing and probing, and general text. Raises InputError for everything that is
    wrong with them, also if there are fewer rows than asked for."""
    if data.mixture:
        corpus = _mixed_corpus(data, probe_samples, seed)
    elif data.dataset_name in EMBEDDED:
        corpus = _embedded_corpus(data, probe_samples, seed)
    elif data.dataset_name:
        corpus = _hub_corpus(data, probe_samples)
    else:
        corpus = _local_corpus(data, probe_samples)
    corpus.test_probes = _never_seen(corpus, probe_samples // 2)
    if not corpus.test_probes:
        corpus.provenance.pop("test_probes", None)
    corpus.control, where, notes = control_text.load_control(data, seed, corpus.train)
    corpus.notes += notes
    if corpus.control:
        corpus.provenance["control"] = {"source": where}
    if data.null_targets:
        corpus.train, count = permute_targets(corpus.train, seed)
        corpus.provenance["train"]["source"] += ", targets permuted"
        corpus.notes.append(f"--null_targets: the targets of {count} training rows are permuted among their sources")
    for use in corpus.provenance:
        rows = getattr(corpus, use)
        corpus.provenance[use] |= {"rows": len(rows), "sha256": fingerprint(rows)}
    return corpus


def _never_seen(corpus: Corpus, count: int) -> list[Row]:
    """Return the first `count` of corpus.test_probes whose text (the source, where there is one) no other row has."""
    texts = [row["source"] or row["target"] for row in corpus.test_probes]
    others = itertools.chain(corpus.train, corpus.validation, corpus.test, corpus.probes)
    fresh = dict.fromkeys(control_text.not_among(texts, others) if texts else ())
    chosen = []
    for row, text in zip(corpus.test_probes, texts, strict=True):
        if text in fresh and len(chosen) < count:
            del fresh[text]  # each text once
            chosen.append(row)
    return chosen


def _first(rows: Sequence[Row], limit: int | None, flag: str, where: str) -> Sequence[Row]:
    """The first `limit` rows. Raises InputError where there are fewer: no run uses less than was asked for."""
    if limit is not None and len(rows) < limit:
        raise InputError(
            f"{where} has only {len(rows)} rows, and {flag} asks for {limit}: lower it, or give more rows."
        )
    return rows[:limit]


def _hold_out(
    rows: Sequence[Row], where: str, data: DataArguments, probe_samples: int, notes: list[str]
) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return (the first rows, the last --validation_split_percentage of them). Raises InputError where these are too
    few."""
    share = data.validation_split_percentage
    n_held = round(len(rows) * share / 100)
    needed = (data.max_eval_samples or 1) + (data.max_predict_samples or 1) * (data.test_file is None)
    needed += min(8, probe_samples)
    if n_held < needed:
        raise InputError(
            f"{where} has {len(rows)} rows, and the {share:g}% of them that are held out are {n_held} of the {needed} "
            f"that validation, test and probes need: raise --validation_split_percentage, cut the text into more rows "
            f"(--text_unit paragraph or line), or give a --validation_file."
        )
    notes.append(f"no validation rows given: the last {share:g}% of {where} ({n_held} rows) are held out")
    return rows[: len(rows) - n_held], rows[len(rows) - n_held :]


def _share_validation_rows(corpus: Corpus, data: DataArguments, probe_samples: int) -> None:
    """Divide the validation rows, in their order: first to choose the best model, then to test (without a test file),
    the rest to probe. Where they do not suffice, uses overlap, and that is noted."""
    rows = corpus.validation
    where = corpus.provenance["validation"]["source"]
    _first(rows, data.max_eval_samples, "--max_eval_samples", where)
    if not corpus.test:
        _first(rows, data.max_predict_samples, "--max_predict_samples", where)
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
