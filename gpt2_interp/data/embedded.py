"""The embedded sources as rows: news, stories, running text."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gpt2_interp.data.rows import Row
from gpt2_interp.synthetic.rows import SPLITS, news_rows, story_rows
from gpt2_interp.synthetic.running_text import pretraining_texts


def _news(count: int, seed: int, split: str) -> Iterator[Row]:
    for row in news_rows(count, seed, split):
        yield {
            "id": row["id"],
            "cluster": row["event"],
            "source": row["article"],
            "target": row["highlights"],
            "facts": row["facts"],
        }


def _stories(count: int, seed: int, split: str) -> Iterator[Row]:
    for row in story_rows(count, seed, split):
        yield {"id": row["id"], "cluster": row["plot"], "source": row["prompt"], "target": row["story"]}


def _running_text(count: int, seed: int, split: str) -> Iterator[Row]:
    """Plain text for pre-training; each split is its own seed."""
    texts = pretraining_texts(count, seed + 1000 * SPLITS.index(split))
    for i, text in enumerate(texts):
        yield {"id": f"text-{split}-{seed}-{i:06d}", "cluster": f"text-{i}", "source": "", "target": text}


EMBEDDED: dict[str, tuple[str, Callable[[int, int, str], Iterator[Row]]]] = {
    "synthetic_news": ("summarization", _news),
    "synthetic_stories": ("creative_writing", _stories),
    "synthetic_text": ("creative_writing", _running_text),
}
