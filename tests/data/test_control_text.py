import json

import datasets
import pandas
import pytest

from gpt2_interp.data import control_text
from gpt2_interp.data.control_text import N_TEXTS, load_control
from gpt2_interp.data.corpora import load_corpus
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.synthetic.rows import story_rows

LOCAL = {"train_file": "mine.jsonl"}


def control_of(path, training=(), count=64, seed=0, **flags):
    return load_control(DataArguments(control_file=str(path), **LOCAL, **flags), seed, training, count)


def test_web_pages_as_control_file(real_data):
    path = real_data / "webtext" / "train.jsonl"
    pages = [json.loads(line)["text"].strip() for line in path.read_text().splitlines()]
    rows, where, notes = control_of(path)
    assert len(rows) == len({row["id"] for row in rows}) == 64 and (where, notes) == (str(path), [])
    for row in rows:
        assert row["target"] in pages and len(row["target"]) >= 100
        assert (row["source"], row["cluster"]) == ("", row["id"])
    assert control_of(path) == (rows, where, notes) and control_of(path, seed=1)[0] != rows


def test_texts_that_are_trained_on_are_left_out(real_data):
    path = real_data / "webtext" / "train.jsonl"
    pages = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    training = [{"source": "\n " + page.upper().replace(" ", "  ", 5), "target": "summary"} for page in pages[::2]]
    training += [{"source": "", "target": page} for page in pages[1::4]]
    rows, _, notes = control_of(path, training, count=3000)
    left = {" ".join(page.split()).casefold() for page in pages[3::4] if len(page.strip()) >= 100}
    trained = {" ".join((row["source"] or row["target"]).split()).casefold() for row in training}
    assert {" ".join(row["target"].split()).casefold() for row in rows} == left - trained
    assert len(rows) > 600 and "are training rows" in notes[0]


def test_texts_that_begin_alike_are_others(tmp_path):
    begin = "The same hundred characters at the beginning. " * 5
    (tmp_path / "t.txt").write_text(f"{begin} One.\n\n{begin} Two.\n")
    rows, _, _ = control_of(tmp_path / "t.txt", [{"source": f"{begin} Two.", "target": "x"}])
    assert [row["target"] for row in rows] == [f"{begin} One."]


def test_every_kind_of_file_and_its_column(tmp_path):
    texts = [f"Text {i}. " + "More words about it. " * 8 for i in range(5)]
    expected = [text.strip() for text in texts]
    frame = pandas.DataFrame({"id": range(5), "page": texts, "year": 1999})
    frame.to_parquet(tmp_path / "one.parquet")
    frame[["id", "page"]].to_csv(tmp_path / "one.csv", index=False)
    frame.rename(columns={"page": "text"}).assign(other="words").to_json(
        tmp_path / "one.jsonl", orient="records", lines=True
    )
    (tmp_path / "one.txt").write_text("\n\n".join(texts))
    for suffix in ("parquet", "csv", "jsonl", "txt"):
        assert [row["target"] for row in control_of(tmp_path / f"one.{suffix}")[0]] == expected, suffix
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    assert [row["target"] for row in control_of(tmp_path / "lines.txt", text_unit="line")[0]] == expected


def test_short_texts_only_where_there_are_no_longer_ones(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("Caption.\n\n" + "Words. " * 20)
    assert [row["target"] for row in control_of(path)[0]] == [("Words. " * 20).strip()]
    path.write_text("Caption.\n\nStub.")
    assert [row["target"] for row in control_of(path)[0]] == ["Caption.", "Stub."]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, ["none.txt does not exist", "--control_file"]),
        ("empty.txt", " \n", ["empty.txt has no text", "--control_file"]),
        (
            "two.jsonl",
            '{"title": "a", "body": "b"}',
            ["two.jsonl, line 1", "'title', 'body'", "--control_file", "'text'"],
        ),
        ("number.jsonl", '{"text": 3}', ["number.jsonl, line 1", "'text'", "--control_file"]),
        ("broken.jsonl", "{", ["broken.jsonl, line 1", "not valid JSON"]),
    ],
)
def test_a_bad_control_file_is_one_sentence(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        control_of(tmp_path / name)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_embedded_sources_are_held_against_each_other():
    small = {"max_train_samples": 30, "max_eval_samples": 3, "max_predict_samples": 3}
    news = load_corpus(DataArguments(dataset_name="synthetic_news", **small), 8, seed=2)
    stories = [row["story"] for row in story_rows(N_TEXTS, 2, "validation")]
    assert [row["target"] for row in news.control] == stories and {row["source"] for row in news.control} == {""}
    entry = news.provenance["control"]
    assert entry["rows"] == N_TEXTS and len(entry["sha256"]) == 64 and "synthetic_stories (seed 2" in entry["source"]
    for name in ("synthetic_stories", "synthetic_text"):
        corpus = load_corpus(DataArguments(task="creative_writing", dataset_name=name, **small), 8, seed=2)
        assert len(corpus.control) == N_TEXTS and "synthetic_news" in corpus.provenance["control"]["source"]
        assert len({row["cluster"] for row in corpus.control}) > 3
        trained = {row["target"] for row in corpus.train}
        assert not any(row["target"] in trained for row in corpus.control)


def test_beside_local_rows_there_is_none_and_the_flag_is_named():
    rows, where, (note,) = load_control(DataArguments(train_file="a.jsonl"), 0, [])
    assert rows == [] and "--control_file" in note
    mixture = DataArguments(mixture=["wikitext=1", "rocstories=1"], source_files=["wikitext=a", "rocstories=b"])
    assert load_control(mixture, 0, []) == ([], "", [note])


# --- WikiText, beside rows from the Hub ---

HUB_DATA = DataArguments(dataset_name="abisee/cnn_dailymail")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "gpt2_interp" / "samples"


@pytest.fixture
def hub(monkeypatch, cache, real_data):
    """The Hub gives real records of WikiText; how it was asked stands in the list."""
    calls, path = [], real_data / "wikitext" / "train.jsonl"

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return [json.loads(line) for line in path.read_text().splitlines()[:400]]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(control_text, "is_offline", lambda: False)
    return calls


def test_paragraphs_of_wikitext_beside_rows_from_the_hub(hub, cache, monkeypatch):
    rows, where, notes = load_control(HUB_DATA, 0, [])
    assert len(rows) == N_TEXTS and notes == [] and where.endswith("wikitext-103-raw-v1 test")
    (args, kwargs) = hub[0]
    assert args == ("Salesforce/wikitext", "wikitext-103-raw-v1")
    assert kwargs == {"split": "test", "revision": control_text.SOURCES["wikitext"].revision, "streaming": True}
    assert all(len(row["target"]) >= 100 and " @-@ " not in row["target"] for row in rows)
    monkeypatch.setattr(control_text, "is_offline", lambda: True)
    assert load_control(HUB_DATA, 0, []) == (rows, where, notes) and len(hub) == 1  # kept for the next time
    streamed = DataArguments(mixture=["wikitext=1", "rocstories=1"], source_files=["wikitext=a"])
    trained = [{"source": "", "target": rows[0]["target"]}]
    others, _, (note,) = load_control(streamed, 0, trained)
    assert (
        len(others) == N_TEXTS
        and rows[0]["target"] not in {row["target"] for row in others}
        and note.startswith("1 texts")
    )


def test_where_wikitext_can_not_be_had_it_is_said(hub, cache, monkeypatch):
    def broken(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    rows, _, (note,) = load_control(HUB_DATA, 0, [])
    assert rows == [] and "ConnectionError: no route);" in note and "--control_file" in note
    monkeypatch.setattr(control_text, "is_offline", lambda: True)
    rows, _, (note,) = load_control(HUB_DATA, 0, [])
    assert rows == [] and "can't be reached" in note and not cache.exists()
