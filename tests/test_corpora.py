import json
import time

import pandas
import pytest

from gpt2_interp.arguments import DataArguments
from gpt2_interp.corpora import load_corpus, read_rows
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
        assert read_rows(tmp_path / f"rows.{suffix}", NEWS) == expected, suffix


def test_text_is_one_example_a_paragraph(tmp_path):
    (tmp_path / "t.txt").write_text("First line\nof one.\n\n\n  Second.  \n")
    rows = read_rows(tmp_path / "t.txt", STORIES)
    assert [(r["source"], r["target"]) for r in rows] == [("", "First line\nof one."), ("", "Second.")]


def test_columns_by_flag(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"doc": "D", "tldr": "T"}])
    data = DataArguments(text_column="doc", summary_column="tldr")
    assert read_rows(path, data)[0] | {"id": 0, "cluster": 0} == {"id": 0, "cluster": 0, "source": "D", "target": "T"}


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([article(0), {"article": "", "highlights": "x"}], ["line 2", "'article'", "empty"]),
        ([article(0), {"article": "x", "highlights": None}], ["line 2", "'highlights'"]),
        ([article(0), "{broken"], ["line 2", "not valid JSON"]),
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


def test_too_few_validation_rows_are_said(tmp_path):
    corpus = load_corpus(local(tmp_path, 12, max_eval_samples=10, max_predict_samples=6), probe_samples=64, seed=0)
    assert len(corpus.test) == 6 and len(corpus.probes) == 12
    text = " ".join(corpus.notes)
    assert "optimistic" in text and "12 probes instead of 64" in text and "choose the best model" in text


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


def test_an_embedded_source_wants_its_task():
    with pytest.raises(InputError, match="--task creative_writing"):
        load_corpus(DataArguments(dataset_name="synthetic_stories"), 8, seed=0)


def test_a_hub_dataset_fails_fast_and_clearly_without_network():
    start = time.monotonic()
    with pytest.raises(InputError, match="can't be reached; use --train_file"):
        load_corpus(DataArguments(dataset_name="nobody/nothing"), 8, seed=0)
    assert time.monotonic() - start < 5
