"""Flags that choose the data."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2_interp.data.local_files import TEXT_UNITS
from gpt2_interp.data.mixture import SOURCES
from gpt2_interp.flags import flag, flags

TRAINED_TASKS = ("summarization", "creative_writing")
TASKS = ("text", *TRAINED_TASKS)  # of a prompt; "text": no template, what is given is continued


@dataclass
class DataArguments:
    _argument_group_name = "data"

    task: str = flag(
        TRAINED_TASKS[0],
        "summarization: source -> summary. creative_writing: prompt -> story, or plain text.",
        choices=list(TRAINED_TASKS),
    )
    dataset_name: str | None = flag(
        None,
        "synthetic_news, synthetic_stories, synthetic_text (embedded, no network), or a dataset on the Hub, "
        "e.g. abisee/cnn_dailymail.",
    )
    dataset_config_name: str | None = flag(None, "Configuration of a Hub dataset, e.g. 3.0.0.")
    dataset_revision: str | None = flag(None, "Commit of a Hub dataset, so that its rows never change.")
    mixture: list[str] = flags(
        [],
        "Instead of one dataset, several sources of creative writing with their weights, e.g. writingprompts=0.4 "
        f"openwebtext=0.6. Sources: {', '.join(SOURCES)}. The rows that are needed are streamed from the Hub once.",
    )
    source_files: list[str] = flags(
        [], "Local files for sources of --mixture, e.g. wikitext=wiki.jsonl; the others are streamed from the Hub."
    )
    train_file: str | None = flag(
        None, "Local rows to train on: .jsonl, .csv, .parquet or .txt (plain text, cut by --text_unit)."
    )
    validation_file: str | None = flag(
        None,
        "Local rows to choose the best model by, and to take the probes from; default: the last "
        "--validation_split_percentage of the training rows.",
    )
    test_file: str | None = flag(None, "Local rows to score base and tuned model on; default: validation rows.")
    control_file: str | None = flag(
        None,
        "General text that snapshots measure beside the probes: .txt, .jsonl, .csv or .parquet, column text. Default: "
        "the other embedded source beside an embedded one, WikiText beside rows from the Hub, none beside local rows.",
    )
    null_targets: bool = flag(
        False,
        "Permute the targets of the training rows among their sources: a rerun that learns the style of targets but "
        "can't learn to use the source; claims.json compares with it.",
    )
    validation_split_percentage: float = flag(
        10, "Without validation rows: percent of the training rows, the last ones, that are held out."
    )
    text_unit: str = flag(
        "paragraph",
        "One example of a .txt file is: a line, a paragraph (between empty lines), or a document (between "
        "<|endoftext|>, or the whole file).",
        choices=list(TEXT_UNITS),
    )
    block_size: int | None = flag(
        None,
        "Creative writing: no example is longer than N tokens. A plain text becomes several blocks (in a "
        "--mixture its first one), a prompted story keeps its beginning. Default: whole texts only.",
    )
    text_column: str | None = flag(
        None, "Column of the source (article, prompt); of the whole text if there is no other."
    )
    summary_column: str | None = flag(None, "Column of the target (highlights, story).")
    max_source_length: int = flag(448, "Most tokens of a source; longer ones lose their end.")
    max_target_length: int = flag(
        64,
        "Tokens kept free for the target, and the most that are generated. Longer targets are kept whole, at the "
        "expense of their source.",
    )
    max_train_samples: int | None = flag(None, "Use the first N training rows; of synthetic data, make N.")
    max_eval_samples: int | None = flag(None, "Rows that choose the best model.")
    max_predict_samples: int | None = flag(None, "Rows on which base and tuned model are compared.", decides="record")
