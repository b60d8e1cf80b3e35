import pytest

from gpt2_interp.data.local_files import records

TEXT = "\ufeffFirst line\nof one.\n\n\n  Second.  \n<|endoftext|>\nThird\n\n<|endoftext|>\n"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("line", ["First line", "of one.", "Second.", "<|endoftext|>", "Third", "<|endoftext|>"]),
        ("paragraph", ["First line\nof one.", "Second.  \n<|endoftext|>\nThird", "<|endoftext|>"]),
        ("document", ["First line\nof one.\n\n\n  Second.", "Third"]),
    ],
)
def test_units_of_plain_text(tmp_path, unit, expected):
    path = tmp_path / "t.txt"
    path.write_text(TEXT, encoding="utf-8")
    found = list(records(path, unit))
    assert [record for _, record in found] == [{"text": text} for text in expected]
    assert found[0][0] == f"{path}, {'document' if unit == 'document' else 'line'} 1"


def test_a_file_without_marks_is_one_document(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("One.\n\nTwo.\n")
    assert [record["text"] for _, record in records(path, "document")] == ["One.\n\nTwo."]


def test_a_cell_may_be_long(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"text\n{'x' * 200_000}\n")
    assert [len(record["text"]) for _, record in records(path)] == [200_000]
