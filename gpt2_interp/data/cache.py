"""The folder of files that can be made again."""

from __future__ import annotations

from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of files that can be made again, under the cache of `datasets`."""
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "gpt2_interp"
