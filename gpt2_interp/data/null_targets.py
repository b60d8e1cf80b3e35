"""Rows whose targets were permuted among their sources. A model can learn from them how targets are written, and
nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from gpt2_interp.data.rows import Row
from gpt2_interp.errors import InputError


class PermutedTargets(Sequence[Row]):
    """rows[i] with the target of rows[taken_from[i]], and without facts, which would be another row's.

    Made when asked for: of a table that stays on disk nothing but the numbers is permuted.
    """

    def __init__(self, rows: Sequence[Row], taken_from: Sequence[int]):
        assert len(rows) == len(taken_from)
        self.rows, self.taken_from = rows, taken_from
        self.donors = rows.select(taken_from) if hasattr(rows, "select") else [rows[j] for j in taken_from]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return _with_target(self.rows[index], self.donors[index])

    def __iter__(self) -> Iterator[Row]:
        return map(_with_target, self.rows, self.donors)


def _with_target(row: Row, donor: Row) -> Row:
    return {**{key: value for key, value in row.items() if key != "facts"}, "target": donor["target"]}


def permute_targets(rows: Sequence[Row], seed: int) -> tuple[PermutedTargets, int]:
    """Return (the rows with targets permuted, how many were), the same for the same rows and seed.

    The rows with a source are put on a random cycle and each gets the target of the next: so none keeps its own.
    Plain texts stay as they are. Raises InputError where fewer than two rows have a source.
    """
    cycle = list(_with_source(rows))
    if len(cycle) < 2:
        raise InputError(
            "--null_targets exchanges targets among sources, and the training rows have none (plain text): give rows "
            "with a source and a target, or leave the flag out."
        )
    random.Random(f"{seed} null targets").shuffle(cycle)
    taken_from = list(range(len(rows)))
    for i, giver in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        taken_from[i] = giver
    return PermutedTargets(rows, taken_from), len(cycle)


def _with_source(rows: Sequence[Row]) -> Sequence[int]:
    """Numbers of the rows that have a source. A table has one in all rows or in none."""
    if hasattr(rows, "select"):
        return range(len(rows)) if rows and rows[0]["source"] else ()
    return [i for i, row in enumerate(rows) if row["source"]]
