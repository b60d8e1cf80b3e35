"""Rows of a dataset on the Hub, which stay on disk until they are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from gpt2_interp.data.embedded import EMBEDDED
from gpt2_interp.data.rows import Row, columns_of, row_of
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError, first_line
from gpt2_interp.startup import is_offline


class MappedRows(Sequence[Row]):
    """Rows of a `datasets.Dataset`, which stays on disk: a row is made when it is asked for, a slice shares the table.

    numbers: where each row stands in its split. Raises InputError for a row without text, when it comes to it.
    """

    def __init__(self, table, data: DataArguments, name: str, split: str, numbers: Sequence[int] | None = None):
        self.data, self.name, self.split = data, name, split
        self.numbers = range(len(table)) if numbers is None else numbers
        columns = columns_of(table.column_names, data, name)
        self.text_columns = [column for column in columns if column is not None]
        self.table = table.select_columns([c for c in table.column_names if c in {"id", *self.text_columns}])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index):
        if isinstance(index, slice):
            chosen = range(len(self))[index]
            return MappedRows(self.table.select(chosen), self.data, self.name, self.split, self.numbers[index])
        position = range(len(self))[index]  # negative and too large ones as for a list
        return self._made(self.numbers[position], self.table[position])

    def __iter__(self) -> Iterator[Row]:
        batches = self.table.iter(batch_size=1000)  # reading row by row takes ten times as long
        columns = ((batch, zip(*batch.values(), strict=True)) for batch in batches)
        records = (dict(zip(names, values, strict=True)) for names, rows in columns for values in rows)
        return map(self._made, self.numbers, records)

    def _made(self, number: int, record: dict) -> Row:
        return row_of(record, self.data, f"{self.name}, {self.split} row {number}", f"{self.split}-{number:06d}")

    def select(self, positions: Sequence[int]) -> MappedRows:
        """The rows at these positions, in this order."""
        numbers = [self.numbers[position] for position in positions]
        return MappedRows(self.table.select(positions), self.data, self.name, self.split, numbers)

    def without_empty_texts(self) -> MappedRows:
        """Plain text on the Hub has empty lines between its paragraphs: nothing to read in them."""
        if len(self.text_columns) == 2:
            return self
        column = self.text_columns[0]
        batches = self.table.select_columns([column]).iter(batch_size=1000)
        texts = itertools.chain.from_iterable(batch[column] for batch in batches)
        kept = [i for i, text in enumerate(texts) if not isinstance(text, str) or text.strip()]
        return MappedRows(self.table.select(kept), self.data, self.name, self.split, kept)


def hub_splits(data: DataArguments, notes: list[str]) -> dict[str, MappedRows]:
    """Return {"train", and "validation" and "test" where the dataset has them}. Raises InputError."""
    import datasets

    name = " ".join(filter(None, (data.dataset_name, data.dataset_config_name)))
    try:
        tables = datasets.load_dataset(data.dataset_name, data.dataset_config_name, revision=data.dataset_revision)
    except Exception as error:  # the library raises many kinds; each of them ends here, in one sentence
        why = (
            "the Hugging Face Hub can't be reached" if is_offline() else f"{type(error).__name__}: {first_line(error)}"
        )
        raise InputError(
            f"dataset {name} can't be loaded: {why}; use --train_file and --validation_file with local rows, or one of "
            f"the embedded sources {', '.join(EMBEDDED)}."
        ) from None
    if "train" not in tables:
        raise InputError(
            f"dataset {name} has no split train: it has {', '.join(tables)}; save its rows to local files."
        )
    splits = {
        split: MappedRows(tables[split], data, name, split)
        for split in ("train", "validation", "test")
        if split in tables
    }
    for split, rows in splits.items():
        splits[split] = rows.without_empty_texts()
        if len(splits[split]) < len(rows):
            notes.append(f"{len(rows) - len(splits[split])} empty texts of {name} {split} are left out")
    return splits
