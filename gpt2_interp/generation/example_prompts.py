"""Prompts to try a model with: of the run that trained it, of the embedded world, or of the world at large."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from gpt2_interp.data.local_files import records
from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import REPOSITORY
from gpt2_interp.synthetic.rows import news_rows, story_rows

N_EXAMPLES = 4
OPENING_WORDS = 6  # of a text, for the model to go on from

GENERAL = {
    "text": [
        "Once upon a time",
        "The meaning of life is",
        "In a shocking finding, scientists discovered",
        "The recipe is simple. First,",
    ],
    "creative_writing": [
        "You wake up one morning and every clock in the world runs backwards.",
        "The last lighthouse keeper on earth receives a letter.",
        "A dragon applies for a job at the public library.",
        "Two strangers meet on a night train, and one of them knows the other's future.",
    ],
    "summarization": [
        "The city council voted on Tuesday to close the old harbour bridge for eighteen months. Engineers found "
        "cracks in two of its pillars during an inspection in March, and said that the bridge could no longer "
        "carry lorries. About 20,000 people cross it every day. A ferry will run every ten minutes, free of "
        "charge, until the repairs are done. Shop owners on the northern bank fear for their business and have "
        "asked the city for help.",
        "A team of biologists has found a frog that was believed to be extinct for sixty years. The small brown "
        "animal was heard before it was seen: a student recorded its call in a mountain valley in January. The "
        "team returned with lamps and counted eleven adults beside a stream. The valley is to become a reserve, "
        "the ministry said on Friday, and its exact location will be kept secret to protect the animals.",
        "The national women's team won the final 3-2 after extra time on Sunday, in front of 64,000 spectators. "
        "They were two goals behind at half-time. The captain, who had been injured for most of the season, came "
        "on in the 70th minute and scored twice. It is the team's first title in twenty-two years. The coach "
        "announced after the match that she would retire at the end of the year.",
    ],
}  # fmt: skip


def example_prompts(path: str, tokenizer: PreTrainedTokenizerBase, task: str, trained_task: str | None) -> list[str]:
    """Three to five prompts for the model in folder `path`."""
    if task == trained_task and (own := _of_its_run(Path(path))):
        return own
    return _of_the_embedded_world(task) if _is_embedded(tokenizer) else GENERAL[task]


def _of_its_run(folder: Path) -> list[str]:
    """Test prompts of the run that the model came from: predictions.jsonl stands beside best_model/ and final_model/.

    Rows without a source are plain texts, of which the first words are taken.
    """
    try:
        rows = [
            record for _, record in itertools.islice(records(folder.resolve().parent / "predictions.jsonl"), N_EXAMPLES)
        ]
        return [row["source"] or _opening(row["reference"]) for row in rows]
    except (InputError, KeyError, AttributeError):
        return []  # a folder of another origin


def _of_the_embedded_world(task: str) -> list[str]:
    if task == "summarization":
        return [row["article"] for row in news_rows(N_EXAMPLES, split="test")]
    stories = story_rows(N_EXAMPLES, split="test")
    return [row["prompt"] if task == "creative_writing" else _opening(row["story"]) for row in stories]


def _is_embedded(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the model speaks the embedded base's tokens: then it knows the embedded world alone."""
    file = REPOSITORY / "assets" / "tiny_gpt2" / "tokenizer.json"
    if not file.is_file():
        return False
    embedded, own = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"], tokenizer.get_vocab()
    return embedded.items() <= own.items()


def _opening(text: str) -> str:
    return " ".join(text.split()[:OPENING_WORDS])
