"""Tokenizers: from the Hub, from a folder, or learned from the training text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from transformers import (
    AutoTokenizer,
    GPT2Tokenizer,
    PreTrainedTokenizerBase,
)

from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import here_or_in_repository
from gpt2_interp.startup import reading

TOKENIZER_FILES = ("tokenizer.json", "merges.txt")  # a tokenizer's folder has one of them


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """A tokenizer by name or folder; vocab.json and merges.txt are enough. Raises InputError."""
    name_or_path = here_or_in_repository(name_or_path)
    folder = Path(name_or_path)
    if folder.is_dir() and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise InputError(  # AutoTokenizer would make one without words
            f"{name_or_path} has no tokenizer (tokenizer.json, or vocab.json and merges.txt): put its files there."
        )
    with reading("tokenizer", name_or_path, "--tokenizer_name"):
        if folder.is_dir() and not (folder / "tokenizer.json").exists() and (folder / "merges.txt").exists():
            tokenizer = GPT2Tokenizer.from_pretrained(folder)  # AutoTokenizer wants a config.json too
        else:
            tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {name_or_path} has no end-of-text token, so the model could not learn to stop.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masked wherever it pads; EOS itself stays supervised
    return tokenizer


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerBase:
    """A new byte-level BPE with `size` tokens, <|endoftext|> among them, learned from `texts`.

    Digits are shown to it apart, so that none are merged: "forty-seven" -> "4", "7" can be learned digit by digit, also
    for numbers that never occurred.
    """
    apart = (re.sub(r"(?<=\d)(?=\d)", " ", text) for text in texts)
    tokenizer = GPT2Tokenizer().train_new_from_iterator(apart, size, show_progress=False)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
