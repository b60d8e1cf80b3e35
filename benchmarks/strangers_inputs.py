"""Bad files and folders for strangers.py: name -> a function that writes one and returns its path."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROW = {"article": "The mayor of Oslo opened a bridge. It cost 3 million.", "highlights": "A bridge in Oslo.", "id": "1"}
LINE = json.dumps(ROW) + "\n"
LINES = "".join(json.dumps(ROW | {"id": str(i)}) + "\n" for i in range(40))
HEADER = "id,article,highlights\n"
CELLS = "".join(f'{i},"The mayor, {i}",A bridge\n' for i in range(40))
Writer = Callable[[Path], Path]  # takes an empty folder


def _file(name: str, content: str | bytes) -> Writer:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def _changed(**columns) -> str:
    """Good rows with one at the end that is not."""
    return LINES + json.dumps({**ROW, "id": "last", **columns}) + "\n"


def _without(name: str) -> str:
    return "".join(json.dumps({k: v for k, v in json.loads(line).items() if k != name}) + "\n"
                   for line in LINES.splitlines())  # fmt: skip


def _parquet(folder: Path, columns: dict, cut: bool = False) -> Path:
    import pyarrow
    import pyarrow.parquet

    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    if cut:
        path.write_bytes(path.read_bytes()[:-20])
    return path


def _folder(folder: Path) -> Path:
    (folder / "folder.jsonl").mkdir()
    return folder / "folder.jsonl"


def _link(folder: Path, to: str) -> Path:
    (folder / "link.jsonl").symlink_to(to)
    return folder / "link.jsonl"


def _pipe(folder: Path) -> Path:
    """A pipe that nobody writes to."""
    os.mkfifo(folder / "pipe.jsonl")
    return folder / "pipe.jsonl"


ROWS: dict[str, Writer] = {
    "a file that is not there": lambda folder: folder / "nothing.jsonl",
    "a name of 300 letters": lambda folder: folder / ("x" * 300 + ".jsonl"),
    "a folder": _folder,
    "a pipe": _pipe,
    "a link to nothing": partial(_link, to="nowhere"),
    "a link to itself": partial(_link, to="link.jsonl"),
    "a device": lambda folder: Path("/dev/null"),
    "no suffix": _file("rows", LINES),
    "an unknown suffix": _file("rows.xlsx", LINES),
    "gzip": _file("rows.jsonl.gz", b"\x1f\x8b\x08\x00" + bytes(50)),
    "gzip called jsonl": _file("rows.jsonl", b"\x1f\x8b\x08\x00" + bytes(50)),
    "empty jsonl": _file("rows.jsonl", ""),
    "empty csv": _file("rows.csv", ""),
    "empty txt": _file("rows.txt", ""),
    "empty parquet": _file("rows.parquet", ""),
    "line ends alone": _file("rows.jsonl", "\n\n\n"),
    "blanks alone, txt": _file("rows.txt", " \n\t\n"),
    "one row": _file("rows.jsonl", LINE),
    "null bytes": _file("rows.jsonl", bytes(1000)),
    "null bytes, csv": _file("rows.csv", HEADER.encode() + bytes(1000)),
    "null bytes, txt": _file("rows.txt", bytes(1000)),
    "random bytes": _file("rows.jsonl", bytes(range(256)) * 10),
    "random bytes, csv": _file("rows.csv", bytes(range(256)) * 10),
    "random bytes, txt": _file("rows.txt", bytes(range(256)) * 10),
    "random bytes, parquet": _file("rows.parquet", bytes(range(256)) * 10),
    "UTF-16": _file("rows.jsonl", LINES.encode("utf-16")),
    "UTF-16, csv": _file("rows.csv", (HEADER + CELLS).encode("utf-16")),
    "Latin-1": _file("rows.jsonl", LINES.replace("Oslo", "Århus").encode("latin-1")),
    "Latin-1, txt": _file("rows.txt", "Århus\n".encode("latin-1")),
    "cut JSON": _file("rows.jsonl", LINES[:-30]),
    "one JSON list": _file("rows.json", json.dumps([ROW] * 40)),
    "one JSON object over lines": _file("rows.json", json.dumps(ROW, indent=1)),
    "lists, not objects": _file("rows.jsonl", "[1, 2]\n" * 40),
    "numbers, not objects": _file("rows.jsonl", "1\n" * 40),
    "strings, not objects": _file("rows.jsonl", '"a"\n' * 40),
    "null, not objects": _file("rows.jsonl", "null\n" * 40),
    "Python's dicts": _file("rows.jsonl", f"{ROW}\n" * 40),
    "JSON nested 100000 deep": _file("rows.jsonl", LINES + '{"article": ' + "[" * 100_000 + "\n"),
    "objects nested 100000 deep": _file("rows.jsonl", LINES + '{"article":' * 100_000 + "\n"),
    "a number of 10000 digits": _file("rows.jsonl", LINES + '{"article": ' + "9" * 10_000 + ', "highlights": "x"}\n'),
    "no source column": _file("rows.jsonl", _without("article")),
    "no target column": _file("rows.jsonl", _without("highlights")),
    "no column at all": _file("rows.jsonl", "{}\n" * 40),
    "a source that is null": _file("rows.jsonl", _changed(article=None)),
    "a source that is a number": _file("rows.jsonl", _changed(article=7)),
    "a source that is an object": _file("rows.jsonl", _changed(article={"text": "x"})),
    "a source that is a list": _file("rows.jsonl", _changed(article=["a", "b"])),
    "a source that is true": _file("rows.jsonl", _changed(article=True)),
    "a source that is NaN": _file("rows.jsonl", _changed(article=float("nan"))),
    "a source that is empty": _file("rows.jsonl", _changed(article="")),
    "a target that is null": _file("rows.jsonl", _changed(highlights=None)),
    "a target that is a list": _file("rows.jsonl", _changed(highlights=["a"])),
    "targets that are empty": _file("rows.jsonl", "".join(
        json.dumps(ROW | {"id": str(i), "highlights": " "}) + "\n" for i in range(40))),
    "an id that is an object": _file("rows.jsonl", _changed(id={"a": 1})),
    "an id that is null": _file("rows.jsonl", _changed(id=None)),
    "half an emoji": _file("rows.jsonl", _changed(article="x \ud83d")),
    "a line of 3 MB": _file("rows.jsonl", _changed(article="word " * 600_000)),
    "one word of 1 MB": _file("rows.jsonl", _changed(article="w" * 1_000_000)),
    "control characters": _file("rows.jsonl", _changed(article="\x1b[31m \x00 \x07")),
    "end of text alone": _file("rows.jsonl", "".join(
        json.dumps(ROW | {"id": str(i), "highlights": "<|endoftext|>"}) + "\n" for i in range(40))),
    "csv: header alone": _file("rows.csv", HEADER),
    "csv: no header": _file("rows.csv", CELLS),
    "csv: semicolons": _file("rows.csv", (HEADER + CELLS).replace(",", ";")),
    "csv: tabs": _file("rows.tsv", (HEADER + CELLS).replace(",", "\t")),
    "csv: too many cells": _file("rows.csv", HEADER + CELLS + "1,2,3,4\n"),
    "csv: too few cells": _file("rows.csv", HEADER + CELLS + "1,2\n"),
    "csv: a quote never closed": _file("rows.csv", HEADER + '0,"open,x\n' + CELLS),
    "csv: a quote inside a cell": _file("rows.csv", HEADER + CELLS + '1,"a "b" c",x\n'),
    "csv: a cell of 1 MB": _file("rows.csv", HEADER + CELLS + f"1,{'x ' * 500_000},y\n"),
    "csv: a column twice": _file("rows.csv", "article,article,highlights\n" + "a,b,c\n" * 40),
    "csv: an empty column name": _file("rows.csv", ",,\n" + CELLS),
    "csv: line ends of old Macs": _file("rows.csv", (HEADER + CELLS).replace("\n", "\r")),
    "jsonl called csv": _file("rows.csv", LINES),
    "csv called jsonl": _file("rows.jsonl", HEADER + CELLS),
    "csv called parquet": _file("rows.parquet", HEADER + CELLS),
    "parquet: cut": partial(_parquet, columns={"article": ["a"] * 40, "highlights": ["b"] * 40}, cut=True),
    "parquet: other columns": partial(_parquet, columns={"x": ["a"] * 40}),
    "parquet: no rows": partial(_parquet, columns={"article": [], "highlights": []}),
    "parquet: numbers": partial(_parquet, columns={"article": [1.5] * 40, "highlights": [2] * 40}),
    "parquet: lists": partial(_parquet, columns={"article": [["a"]] * 40, "highlights": [["b"]] * 40}),
    "parquet: null": partial(_parquet, columns={"article": [None] * 40, "highlights": ["b"] * 40}),
    "parquet: bytes": partial(_parquet, columns={"article": [b"\xff"] * 40, "highlights": ["b"] * 40}),
}  # fmt: skip

GOOD = "model_name_or_path: {base}\ndataset_name: synthetic_news\nmax_train_samples: 8\nrun_name: mine\n"
PRESETS: dict[str, Writer] = {
    name: _file("mine.yaml", content)
    for name, content in {
        "empty": "",
        "a comment alone": "# nothing\n",
        "a list": "- a\n- b\n",
        "a word": "word\n",
        "a number": "7\n",
        "null": "null\n",
        "tabs": "run_name: x\n\tseed: 1\n",
        "a bracket never closed": "measures: [all\n",
        "a quote never closed": 'run_name: "x\n',
        "two documents": "run_name: x\n---\nrun_name: y\n",
        "an unknown key": GOOD + "lerning_rate: 1\n",
        "a key written as a flag": GOOD + "--seed: 1\n",
        "a key that is a number": GOOD + "1: 2\n",
        "a key that is null": GOOD + "null: 2\n",
        "a key that is a list": GOOD + "? [a, b]\n: 1\n",
        "a key twice": GOOD + "seed: 1\nseed: 2\n",
        "an object for a number": GOOD + "seed: {a: 1}\n",
        "a list for a number": GOOD + "seed: [1, 2]\n",
        "an empty list": GOOD + "measures: []\n",
        "lists of lists": GOOD + "measures: [[all]]\n",
        "a list with null": GOOD + "measures: [null]\n",
        "a date for a name": GOOD.replace("mine", "2024-01-01"),
        "a number for a name": GOOD.replace("mine", "123"),
        "a list for a name": GOOD.replace("mine", "[a]"),
        "an empty name": GOOD.replace("mine", "''"),
        "a name with a slash": GOOD.replace("mine", "a/b"),
        "a name of 300 letters": GOOD.replace("mine", "x" * 300),
        "a number that is no number": GOOD + "learning_rate: .nan\n",
        "an infinite number": GOOD + "learning_rate: .inf\n",
        "a number of 1000 digits": GOOD + f"max_steps: {'9' * 1000}\n",
        "true for a number": GOOD + "max_steps: true\n",
        "a word for true": GOOD + "null_targets: perhaps\n",
        "Python objects": GOOD + "seed: !!python/object/apply:os.getcwd []\n",
        "an unknown tag": GOOD + "seed: !mine 1\n",
        "a list that holds itself": GOOD + "measures: &a [*a]\n",
        "an object that holds itself": "&a {run_name: *a}\n",
        "an alias of nothing": GOOD + "seed: *a\n",
        "nested 3000 deep": GOOD + "measures: " + "[" * 3000 + "\n",
        "aliases that grow": "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a value that is a flag": GOOD + "text_column: --overwrite\n",
        "a value of several lines": GOOD + "text_column: |\n  a\n  b\n",
        "null bytes": bytes(100),
        "Latin-1": GOOD.encode() + "text_column: Å\n".encode("latin-1"),
        "UTF-16": GOOD.encode("utf-16"),
    }.items()
}
PRESETS["a folder"] = lambda folder: (folder / "mine.yaml").mkdir() or folder / "mine.yaml"
PRESETS["not there"] = lambda folder: folder / "mine.yaml"


# --- model folders -----------------------------------------------------------------------------------------------


def _model(change: Callable[[Path], object], folder: Path, base: Path) -> Path:
    """A copy of the base, changed."""
    path = folder / "model"
    shutil.copytree(base, path)
    change(path)
    return path


def _settings(file: str = "config.json", **values) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        settings = json.loads((path / file).read_text())
        (path / file).write_text(json.dumps({**settings, **values}))

    return change


def _cut(file: str, share: float = 0.5) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        data = (path / file).read_bytes()
        (path / file).write_bytes(data[: int(share * len(data))])

    return change


def _write(file: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda path: (path / file).write_bytes(content.encode() if isinstance(content, str) else content)


def _remove(*files: str) -> Callable[[Path], object]:
    return lambda path: [(path / file).unlink() for file in files]


def _tensors(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    return write


def _empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def _directory(path: Path) -> None:
    (path / "config.json").unlink()
    (path / "config.json").mkdir()


def _pickled(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({"transformer.wte.weight": 1}))


MODELS: dict[str, Callable[[Path, Path], Path]] = {
    name: partial(_model, change)
    for name, change in {
        "empty": _empty,
        "no config": _remove("config.json"),
        "config: cut": _cut("config.json"),
        "config: empty": _write("config.json", ""),
        "config: a list": _write("config.json", "[]"),
        "config: null": _write("config.json", "null"),
        "config: a folder": _directory,
        "config: Latin-1": _write("config.json", '{"model_type": "gpt2", "x": "Å"}'.encode("latin-1")),
        "config: another architecture": _settings(model_type="bert", architectures=["BertForMaskedLM"]),
        "config: an unknown architecture": _settings(model_type="mine"),
        "config: no architecture": _settings(model_type=None),
        "config: layers -1": _settings(n_layer=-1),
        "config: layers 0": _settings(n_layer=0),
        "config: layers 'x'": _settings(n_layer="x"),
        "config: layers null": _settings(n_layer=None),
        "config: more layers": _settings(n_layer=9),
        "config: fewer layers": _settings(n_layer=1),
        "config: heads 5": _settings(n_head=5),
        "config: heads 0": _settings(n_head=0),
        "config: width 7": _settings(n_embd=7),
        "config: another vocabulary": _settings(vocab_size=7),
        "config: another context": _settings(n_positions=7),
        "config: context 0": _settings(n_positions=0),
        "config: an unknown activation": _settings(activation_function="mine"),
        "config: dropout 7": _settings(resid_pdrop=7),
        "config: an unknown dtype": _settings(dtype="float7"),
        "weights: none": _remove("model.safetensors"),
        "weights: empty": _write("model.safetensors", b""),
        "weights: cut": _cut("model.safetensors"),
        "weights: header cut": _cut("model.safetensors", 0.001),
        "weights: random bytes": _write("model.safetensors", bytes(range(256)) * 10),
        "weights: pickled": _pickled,
        "weights: an index of nothing": lambda path: (
            _remove("model.safetensors")(path),
            _write("model.safetensors.index.json", '{"weight_map": {"a": "nothing.safetensors"}}')(path),
        ),
        "weights: one missing": _tensors(lambda tensors: tensors.pop("transformer.h.0.attn.c_attn.weight")),
        "weights: one too many": _tensors(lambda tensors: tensors.update(mine=tensors["transformer.ln_f.bias"] + 0)),
        "weights: another shape": _tensors(lambda tensors: tensors.update(
            {"transformer.ln_f.bias": tensors["transformer.ln_f.bias"][:5].clone()})),
        "weights: NaN": _tensors(lambda tensors: tensors["transformer.wte.weight"].fill_(float("nan"))),
        "tokenizer: none": _remove("tokenizer.json", "tokenizer_config.json"),
        "tokenizer: cut": _cut("tokenizer.json"),
        "tokenizer: empty": _write("tokenizer.json", ""),
        "tokenizer: a list": _write("tokenizer.json", "[]"),
        "tokenizer: nothing in it": _write("tokenizer.json", "{}"),
        "tokenizer: its config cut": _cut("tokenizer_config.json"),
        "tokenizer: an unknown class": _settings("tokenizer_config.json", tokenizer_class="Mine"),
        "generation config: cut": _cut("generation_config.json"),
        "generation config: a list": _write("generation_config.json", "[]"),
        "generation config: odd": _settings("generation_config.json", eos_token_id="x", max_length=-5),
        "task: cut": _write("task.json", '{"task": '),
        "task: a list": _write("task.json", "[]"),
        "task: odd": _write("task.json", '{"task": "text", "max_source_length": -1, "max_target_length": "x"}'),
        "adapter: config cut": _write("adapter_config.json", '{"peft'),
        "adapter: empty config": _write("adapter_config.json", "{}"),
        "adapter: no base": _write("adapter_config.json", '{"peft_type": "LORA", "task_type": "CAUSAL_LM"}'),
        "adapter: base that is gone": _write("adapter_config.json", json.dumps(
            {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "gone/base", "r": 2})),
        "adapter: an unknown kind": _write("adapter_config.json", json.dumps(
            {"peft_type": "MINE", "task_type": "CAUSAL_LM", "base_model_name_or_path": "gone"})),
    }.items()
}  # fmt: skip
