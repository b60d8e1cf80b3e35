"""Text of a base model's own kind, on which `--null_training` trains on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2_interp.data.control_text import general_texts, not_among
from gpt2_interp.data.rows import Row
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import REPOSITORY, here_or_in_repository
from gpt2_interp.synthetic.running_text import pretraining_texts

EMBEDDED_BASE = REPOSITORY / "assets" / "tiny_gpt2"


@dataclass(frozen=True)
class BaseText:
    """Where texts of the base's kind come from. texts: those that there are; None: as many new ones as are wanted."""

    texts: Sequence[str] | None
    where: str

    def rows(self, count: int, seed: int, others: Iterable[Row]) -> list[Row]:
        """Return at most `count` rows of plain text, the same for the same seed; none of them is one of `others`.

        Raises InputError where no text is left.
        """
        if self.texts is None:
            texts = list(pretraining_texts(count, seed))
        else:
            fresh = not_among(self.texts, others)
            if not fresh:
                raise InputError(
                    f"--null_training: all {len(self.texts)} texts of {self.where} are measured or trained on by the "
                    f"run itself; give a --control_file with more."
                )
            texts = random.Random(f"{seed} base text").sample(fresh, min(count, len(fresh)))
        names = (f"base-text-{seed}-{i:06d}" for i in range(count))
        return [
            {"id": name, "cluster": name, "source": "", "target": text}
            for name, text in zip(names, texts, strict=False)  # there may be fewer texts
        ]


def base_text(base: str, data: DataArguments) -> BaseText:
    """Find text of the base's own kind: new texts of `synthetic_text` for the embedded base, else those of
    --control_file, else WikiText. Raises InputError where there is none."""
    if Path(here_or_in_repository(base)).resolve() == EMBEDDED_BASE:
        return BaseText(None, "synthetic_text")
    texts, where, notes = general_texts(data)
    if not texts:
        raise InputError(
            f"--null_training {'; '.join(notes)}: it trains {base} on with text of its own kind, so give some with "
            f"--control_file."
        )
    return BaseText(texts, where)
