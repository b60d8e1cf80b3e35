import pytest

from gpt2_interp.data.base_text import EMBEDDED_BASE, base_text
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.synthetic.running_text import pretraining_texts

TEXTS = [
    f"Paragraph number {i} of a file of general text, long enough to be no caption or stub, {i}." for i in range(9)
]


def text_file(tmp_path):
    path = tmp_path / "general.txt"
    path.write_text("\n\n".join(TEXTS))
    return path


def test_the_embedded_base_gets_new_texts_of_its_own_world():
    found = base_text("assets/tiny_gpt2", DataArguments(dataset_name="synthetic_news"))
    assert found == base_text(str(EMBEDDED_BASE), DataArguments(train_file="rows.jsonl"))
    rows = found.rows(5, 1043, [])
    assert [row["target"] for row in rows] == list(pretraining_texts(5, 1043))
    assert {row["source"] for row in rows} == {""} and len({row["id"] for row in rows}) == 5
    assert not {row["target"] for row in rows} & set(pretraining_texts(5, 42))


def test_another_base_gets_the_texts_of_the_file_that_the_run_does_not_use(tmp_path):
    data = DataArguments(train_file="rows.jsonl", control_file=str(text_file(tmp_path)))
    found = base_text("some/other/base", data)
    used = [{"id": str(i), "cluster": str(i), "source": "", "target": text} for i, text in enumerate(TEXTS[:4])]
    rows = found.rows(100, 1, used)
    assert sorted(row["target"] for row in rows) == sorted(TEXTS[4:])
    assert found.rows(3, 1, used) == found.rows(3, 1, used) != found.rows(3, 2, used)
    used = [{**used[0], "target": text} for text in TEXTS]
    with pytest.raises(InputError, match="--control_file"):
        found.rows(3, 1, used)


def test_where_there_is_no_text_the_flag_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2_interp.data.control_text.cache_folder", lambda: tmp_path)
    with pytest.raises(InputError, match="(?s)--null_training.*some/other/base.*--control_file"):
        base_text("some/other/base", DataArguments(train_file="rows.jsonl"))
