import json
import time
from pathlib import Path

import datasets
import pandas
import pytest

from gpt2_interp.data.control_text import N_TEXTS
from gpt2_interp.data.corpora import load_corpus, read_rows
from gpt2_interp.data.rows import fingerprint
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError

NEWS = DataArguments(task="summarization")
STORIES = DataArguments(task="creative_writing")


def write_jsonl(path, records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def article(i):
    return {"id": f"id{i}", "article": f"Article {i}.", "highlights": f"Highlight {i}."}


def test_local_formats_give_the_same_rows(tmp_path):
    records = [article(i) for i in range(3)]
    write_jsonl(tmp_path / "rows.jsonl", records)
    pandas.DataFrame(records).to_csv(tmp_path / "rows.csv", index=False)
    pandas.DataFrame(records).to_parquet(tmp_path / "rows.parquet")
    expected = [
        {"id": f"id{i}", "cluster": f"id{i}", "source": f"Article {i}.", "target": f"Highlight {i}."} for i in range(3)
    ]
    for suffix in ("jsonl", "csv", "parquet"):
        assert read_rows(tmp_path / f"rows.{suffix}", NEWS) == (expected, []), suffix


def test_text_is_one_example_a_paragraph(tmp_path):
    (tmp_path / "t.txt").write_text("First line\nof one.\n\n\n  Second.  \n")
    rows, _ = read_rows(tmp_path / "t.txt", STORIES)
    assert [(r["source"], r["target"]) for r in rows] == [("", "First line\nof one."), ("", "Second.")]


def test_columns_by_flag(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"doc": "D", "tldr": "T"}])
    data = DataArguments(text_column="doc", summary_column="tldr")
    rows, _ = read_rows(path, data)
    assert rows[0] | {"id": 0, "cluster": 0} == {"id": 0, "cluster": 0, "source": "D", "target": "T"}


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([article(0), {"article": "", "highlights": "x"}], ["line 2", "'article'", "empty"]),
        ([article(0), {"article": "x", "highlights": None}], ["line 2", "'highlights'"]),
        ([article(0), "{broken"], ["line 2", "not valid JSON"]),
        ([article(0), "[" * 100_000], ["line 2", "not valid JSON"]),
        ([article(0), ""], ["line 2", "is empty"]),
        ([article(0), "[1, 2]"], ["line 2", "not a JSON object"]),
        ([{"text": "x", "summary": "y"}], ["line 1", "'article'", "'text', 'summary'", "--text_column"]),
        ([{"article": "x", "summary": "y"}], ["'highlights'", "--summary_column"]),
        ([], ["no rows"]),
    ],
)
def test_bad_rows_are_named_with_file_and_line(tmp_path, records, words):
    path = write_jsonl(tmp_path / "rows.jsonl", records)
    with pytest.raises(InputError) as error:
        read_rows(path, NEWS)
    assert all(word in str(error.value) for word in ["rows.jsonl", *words]), error.value


def test_rows_that_repeat_an_id_are_told_apart_and_stay_one_cluster(tmp_path):
    records = [{"id": identity, "article": "A", "highlights": "H"} for identity in ("0", "0 (2)", "0", "1", "0")]
    rows, notes = read_rows(write_jsonl(tmp_path / "rows.jsonl", records), NEWS)
    assert [row["id"] for row in rows] == ["0", "0 (2)", "0 (3)", "1", "0 (4)"]
    assert [row["cluster"] for row in rows] == ["0", "0 (2)", "0", "1", "0"]
    assert len(notes) == 1 and "2 rows" in notes[0] and "rows.jsonl" in notes[0]


def test_a_written_out_end_of_text_is_no_part_of_the_target(tmp_path):
    ends = ("H.<|endoftext|>", "H. <|endoftext|>\n", "H.", "<|endoftext|>")  # the last one has nothing else
    records = [{"article": "A", "highlights": end} for end in ends]
    rows, notes = read_rows(write_jsonl(tmp_path / "rows.jsonl", records), NEWS)
    assert [row["target"] for row in rows] == ["H.", "H.", "H.", "<|endoftext|>"]
    assert len(notes) == 1 and "2 targets" in notes[0] and "<|endoftext|>" in notes[0]


def test_bad_files_get_a_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_rows(tmp_path / "none.jsonl", NEWS)
    (tmp_path / "rows.xyz").write_text("x")
    with pytest.raises(InputError, match=".xyz is not a known kind"):
        read_rows(tmp_path / "rows.xyz", NEWS)
    (tmp_path / "latin.jsonl").write_bytes(b'{"article": "\xe9"}')
    with pytest.raises(InputError, match="not UTF-8"):
        read_rows(tmp_path / "latin.jsonl", NEWS)
    (tmp_path / "short.csv").write_text("article,highlights\nonly one cell\n")
    with pytest.raises(InputError, match="line 2"):
        read_rows(tmp_path / "short.csv", NEWS)
    (tmp_path / "fake.parquet").write_text("not parquet")
    with pytest.raises(InputError, match="not a parquet file"):
        read_rows(tmp_path / "fake.parquet", NEWS)


def local(tmp_path, n_validation, **kwargs):
    train = write_jsonl(tmp_path / "train.jsonl", [article(i) for i in range(5)])
    validation = write_jsonl(tmp_path / "validation.jsonl", [article(100 + i) for i in range(n_validation)])
    return DataArguments(train_file=str(train), validation_file=str(validation), **kwargs)


def test_validation_rows_are_divided_without_overlap(tmp_path):
    corpus = load_corpus(local(tmp_path, 100, max_eval_samples=20, max_predict_samples=10), probe_samples=64, seed=0)
    ids = [{row["id"] for row in rows} for rows in (corpus.train, corpus.validation, corpus.test, corpus.probes)]
    assert [len(group) for group in ids] == [5, 20, 10, 64]
    assert len(set.union(*ids)) == 99
    assert any("no test file" in note for note in corpus.notes)
    assert corpus.provenance["probes"]["rows"] == 64


def test_probes_of_the_test_split_are_never_scored_nor_seen(tmp_path):
    rows = [article(200 + i) for i in range(30)]
    rows[8] = article(203)  # a scored row again
    rows[9] = {**article(9), "article": f" {article(2)['article'].upper()}"}  # the source of a training row
    rows[10] = article(101)  # a validation row
    rows[13] = rows[12]
    data = local(tmp_path, 40, max_eval_samples=20, max_predict_samples=6)
    data.test_file = str(write_jsonl(tmp_path / "test.jsonl", rows))
    corpus = load_corpus(data, probe_samples=16, seed=0)
    assert [row["source"] for row in corpus.test] == [row["article"] for row in rows[:6]]
    expected = [rows[i]["article"] for i in (6, 7, 11, 12, 14, 15, 16, 17)]
    assert [row["source"] for row in corpus.test_probes] == expected
    assert corpus.provenance["test_probes"] == {
        "source": data.test_file, "rows": 8, "sha256": fingerprint(corpus.test_probes)
    }  # fmt: skip
    data.max_predict_samples = 30
    nothing_left = load_corpus(data, probe_samples=16, seed=0)
    assert nothing_left.test_probes == [] and "test_probes" not in nothing_left.provenance


def test_embedded_probes_of_the_test_split_lie_behind_the_scored_rows():
    small = {"max_train_samples": 30, "max_eval_samples": 3, "max_predict_samples": 5}
    for name, task in (("synthetic_news", "summarization"), ("synthetic_stories", "creative_writing")):
        corpus = load_corpus(DataArguments(dataset_name=name, task=task, **small), 8, seed=2)
        ids = [row["id"] for row in (*corpus.test, *corpus.test_probes)]
        assert len(corpus.test) == 5 and len(corpus.test_probes) == 4 and len(set(ids)) == 9
        assert all("-test-" in one for one in ids)


def test_too_few_validation_rows_are_said(tmp_path):
    corpus = load_corpus(local(tmp_path, 12, max_eval_samples=10, max_predict_samples=6), probe_samples=64, seed=0)
    assert len(corpus.test) == 6 and len(corpus.probes) == 12
    text = " ".join(corpus.notes)
    assert "optimistic" in text and "12 probes instead of 64" in text and "choose the best model" in text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"max_train_samples": 6}, ["train.jsonl has only 5 rows", "--max_train_samples asks for 6"]),
        ({"max_eval_samples": 101}, ["validation.jsonl has only 100 rows", "--max_eval_samples"]),
        ({"max_predict_samples": 101}, ["validation.jsonl has only 100 rows", "--max_predict_samples"]),
        ({"max_predict_samples": 6, "test_file": True}, ["train.jsonl has only 5 rows", "--max_predict_samples"]),
    ],
)
def test_fewer_rows_than_asked_for_stop_the_run(tmp_path, asked, words):
    data = local(tmp_path, 100)
    for name, value in asked.items():
        setattr(data, name, data.train_file if value is True else value)
    with pytest.raises(InputError) as error:
        load_corpus(data, probe_samples=8, seed=0)
    assert all(word in str(error.value) for word in words), error.value


def test_the_end_of_a_text_is_held_out(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"Line {i}.\n" for i in range(400)))
    data = DataArguments(task="creative_writing", train_file=str(path), text_unit="line", max_predict_samples=10)
    corpus = load_corpus(data, probe_samples=8, seed=0)
    texts = [[row["target"] for row in rows] for rows in (corpus.train, corpus.validation, corpus.test, corpus.probes)]
    assert [len(t) for t in texts] == [360, 15, 10, 8]
    assert sum(texts, []) == [f"Line {i}." for i in range(393)]
    assert f"the last 10% of {path} (40 rows) are held out" in corpus.notes[0]
    assert corpus.provenance["probes"]["source"] == f"the end of {path}"
    data.max_train_samples = 361
    with pytest.raises(InputError, match="has only 360 rows, and --max_train_samples asks for 361"):
        load_corpus(data, probe_samples=8, seed=0)
    data.max_train_samples, data.text_unit = None, "document"
    with pytest.raises(InputError, match=r"has 1 rows.* 0 of the 19 that .*--validation_split_percentage.*--text_unit"):
        load_corpus(data, probe_samples=8, seed=0)


def test_the_fingerprint_is_of_what_the_rows_say():
    rows = [{"id": str(i), "cluster": "c", "source": "s", "target": f"t{i}"} for i in range(3)]
    assert fingerprint(rows) == fingerprint([{**row, "group": ""} for row in rows])
    others = [rows[::-1], rows[:2], [{**row, "group": "g"} for row in rows], []]
    others += [[{**rows[0], key: "x"}, *rows[1:]] for key in rows[0]]
    assert len({fingerprint(other) for other in (rows, *others)}) == 1 + len(others)


def test_embedded_uses_are_disjoint_and_seeded():
    data = DataArguments(
        dataset_name="synthetic_news", max_train_samples=30, max_eval_samples=10, max_predict_samples=10
    )
    corpus, again = load_corpus(data, 8, seed=1), load_corpus(data, 8, seed=1)
    uses = (corpus.train, corpus.validation, corpus.test, corpus.probes)
    assert [len(rows) for rows in uses] == [30, 10, 10, 8]
    assert len({row["source"] for rows in uses for row in rows}) == 58
    assert corpus.train == again.train
    assert corpus.train != load_corpus(data, 8, seed=2).train
    assert len({row["cluster"] for row in corpus.train}) > 3


def test_general_text_of_a_file_is_part_of_the_corpus(tmp_path):
    data = local(tmp_path, 100)
    assert load_corpus(data, 8, seed=0).control == []
    (tmp_path / "web.txt").write_text("\n\n".join(f"Page {i}. " + "Words of it. " * 9 for i in range(200)))
    data.control_file = str(tmp_path / "web.txt")
    corpus = load_corpus(data, 8, seed=0)
    assert corpus.provenance["control"] == {
        "source": data.control_file, "rows": N_TEXTS, "sha256": fingerprint(corpus.control)
    }  # fmt: skip
    assert load_corpus(data, 8, seed=1).provenance["control"]["sha256"] != fingerprint(corpus.control)
    data.control_file = data.train_file
    with pytest.raises(InputError, match="train.jsonl, line 1 of --control_file"):  # article and highlights: which?
        load_corpus(data, 8, seed=0)


def test_an_embedded_source_wants_its_task():
    with pytest.raises(InputError, match="--task creative_writing"):
        load_corpus(DataArguments(dataset_name="synthetic_stories"), 8, seed=0)


def test_a_hub_dataset_fails_fast_and_clearly_without_network():
    start = time.monotonic()
    with pytest.raises(InputError, match="can't be reached; use --train_file"):
        load_corpus(DataArguments(dataset_name="nobody/nothing"), 8, seed=0)
    assert time.monotonic() - start < 20  # the libraries' own retries take 23 s and more


# --- the Hub, played by local tables ---


@pytest.fixture
def hub(monkeypatch):
    """load_dataset gives the tables that a test puts into `hub`; how it was called stands in `hub["called"]`."""
    tables = {}

    def load_dataset(*args, **kwargs):
        tables["called"] = (args, kwargs)
        return datasets.DatasetDict({k: v for k, v in tables.items() if k != "called"})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return tables


def table(records):
    return datasets.Dataset.from_list(records)


def test_hub_rows_are_as_local_ones_and_stay_on_disk(hub, tmp_path):
    data = local(tmp_path, 30, max_eval_samples=9)
    data.test_file, data.max_predict_samples = data.train_file, 4
    expected = load_corpus(data, 8, seed=0)
    for split, path in (("train", data.train_file), ("validation", data.validation_file), ("test", data.test_file)):
        hub[split] = table([{**json.loads(line), "url": "not needed"} for line in Path(path).read_text().splitlines()])
    names = {"dataset_name": "a/b", "dataset_config_name": "1", "dataset_revision": "abcdef0123456"}
    corpus = load_corpus(DataArguments(**names, max_eval_samples=9, max_predict_samples=4), 8, seed=0)
    assert hub["called"] == (("a/b", "1"), {"revision": "abcdef0123456"})
    for use in ("train", "validation", "test", "probes"):
        rows, local_rows = getattr(corpus, use), getattr(expected, use)
        assert list(rows) == local_rows and [rows[i] for i in range(len(rows))] == local_rows
        assert rows[-1] == local_rows[-1] and list(rows[1:3]) == local_rows[1:3]
        assert "url" not in rows.table.column_names
        assert corpus.provenance[use]["sha256"] == expected.provenance[use]["sha256"]
    assert corpus.provenance["train"]["source"] == "a/b 1 abcdef01 train"
    with pytest.raises(InputError, match="a/b 1 abcdef01 train has only 5 rows, and --max_train_samples asks for 9"):
        load_corpus(DataArguments(**names, max_train_samples=9), 8, seed=0)


def test_a_hub_dataset_with_train_rows_only_has_its_end_held_out(hub):
    hub["train"] = table([{"text": "" if i % 2 else f"Text {i}."} for i in range(400)])
    data = DataArguments(task="creative_writing", dataset_name="a/b", max_predict_samples=5)
    corpus = load_corpus(data, 8, seed=0)
    assert [len(rows) for rows in (corpus.train, corpus.validation, corpus.test, corpus.probes)] == [180, 7, 5, 8]
    assert corpus.validation[0]["target"] == "Text 360." and corpus.validation[0]["id"] == "train-000360"
    ids = [row["id"] for rows in (corpus.train, corpus.validation, corpus.test, corpus.probes) for row in rows]
    assert len(set(ids)) == len(ids) and corpus.probes[-1]["id"] == ids[-1]
    assert [row["target"] for row in corpus.train.select([3, 0])] == ["Text 6.", "Text 0."]
    assert [row["id"] for row in corpus.train.select([3, 0])] == ["train-000006", "train-000000"]
    assert any("200 empty texts" in note for note in corpus.notes) and any("held out" in note for note in corpus.notes)


def test_a_hub_dataset_of_prompts_and_stories(hub):
    hub["train"] = hub["validation"] = table([{"prompt": f"P{i}", "story": f"S{i}"} for i in range(40)])
    corpus = load_corpus(DataArguments(task="creative_writing", dataset_name="a/b"), 8, seed=0)
    assert (corpus.train[7]["source"], corpus.train[7]["target"]) == ("P7", "S7")


def test_a_bad_hub_row_and_missing_splits_and_columns_are_named(hub):
    hub["train"] = hub["validation"] = table([article(0), {"id": "x", "article": "", "highlights": "h"}] * 20)
    with pytest.raises(InputError, match="a/b, train row 1: column 'article' is empty"):
        load_corpus(DataArguments(dataset_name="a/b"), 8, seed=0)
    with pytest.raises(InputError, match="a/b has no column 'doc'"):
        load_corpus(DataArguments(dataset_name="a/b", text_column="doc"), 8, seed=0)
    hub["dev"] = hub.pop("train")
    with pytest.raises(InputError, match="has no split train: it has"):
        load_corpus(DataArguments(dataset_name="a/b"), 8, seed=0)
