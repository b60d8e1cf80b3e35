import os

import pytest

from gpt2_interp.cli.script_parser import ScriptParser
from gpt2_interp.errors import InputError

NOT_UTF8 = os.fsdecode(b"caf\xe9")


def parsed(*argv):
    parser = ScriptParser()
    parser.add_argument("--root")
    return parser.parse_args(argv).root


def test_words_of_any_language_are_taken():
    assert parsed("--root", "caf\u00e9 \U0001f600 'a' \u0416") == "caf\u00e9 \U0001f600 'a' \u0416"


def test_a_path_that_no_run_could_record_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"caf.*UTF-8"):
        parsed("--root", NOT_UTF8)
    (tmp_path / NOT_UTF8).mkdir()
    monkeypatch.chdir(tmp_path / NOT_UTF8)
    with pytest.raises(InputError, match=r"caf.*UTF-8"):
        parsed()


def test_a_folder_that_was_deleted_is_no_place_to_start(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="does not exist any more"):
        parsed()
