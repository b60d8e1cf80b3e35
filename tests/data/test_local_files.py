import pytest

from gpt2_interp.data.local_files import records
from gpt2_interp.errors import InputError

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


def test_a_quote_that_is_never_closed_is_named_with_its_row(tmp_path):
    """Python's csv would make one cell of all that follows, and say nothing."""
    path = tmp_path / "t.csv"
    path.write_text('text,n\n"two\nlines",1\n"stray,2\nx,3\n')
    found = records(path)
    assert next(found)[1] == {"text": "two\nlines", "n": "1"}
    with pytest.raises(InputError, match="t.csv.* line 4"):
        next(found)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path, name):
    path = tmp_path / name
    path.write_text("text\nx\n" if name.endswith("csv") else '{"text": "x"}\n', encoding="utf-8-sig")
    assert [record for _, record in records(path)] == [{"text": "x"}]


def test_half_a_character_is_named_with_its_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "whole \\ud83d\\ude00"}\n{"text": "half \\ud83d"}\n')
    found = records(path)
    assert next(found)[1] == {"text": "whole \U0001f600"}
    with pytest.raises(InputError, match="line 2"):
        next(found)


@pytest.mark.parametrize("line", ["{", "3", "[]", "NaN", "[" * 100_000, '{"a":' * 50_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_line_that_is_no_row_is_named(line, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"a": "b"}}\n{line}\n')
    with pytest.raises(InputError, match=r"t\.jsonl, line 2 is not"):
        list(records(path, "line"))
