import subprocess
import sys

import pytest

from gpt2_interp.cli.parser import parse_arguments
from gpt2_interp.cli.presets import read_command
from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import REPOSITORY

NEWS = "config_name: gpt2\ndataset_name: synthetic_news\n"


def printed(*argv):
    """What run_experiment.sh gets: exit status, lines, and the last line of stderr."""
    result = subprocess.run(
        [sys.executable, "-m", "gpt2_interp.cli.presets", *map(str, argv)],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout.split("\n")[:-1], result.stderr.strip()


@pytest.mark.parametrize(
    ("file", "lines", "flags", "name", "root"),
    [
        ("mine.yml", "", [], "mine", "."),
        ("mine.yaml", 'run_name: "quoted"\n', [], "quoted", "."),
        ("mine.yaml", "run_name: other  # first try\n", [], "other", "."),
        ("mine.yaml", "run_name: 7\n", [], "7", "."),
        ("mine.yaml", "run_name:\n", [], "mine", "."),
        ("two words.yaml", "run_name: x\nroot: 'a b'\n", [], "x", "a b"),
        ("mine.yaml", "run_name: other\n", ["--run_name=x"], "x", "."),
        ("mine.yaml", "", ["--run-name", "x", "--root=some 'where'"], "x", "some 'where'"),
        ("mine.yaml", "", ["--run_name", "x", "--run-name=y", "--root", "a", "--root", "b"], "y", "b"),
        ("mine.yaml", "", ["--lora_target_modules", "a", "run_name=z", "--learning_rate", "1"], "mine", "."),
    ],
)
def test_the_shell_and_the_training_find_the_same_name_and_root(tmp_path, file, lines, flags, name, root):
    path = tmp_path / file
    path.write_text(NEWS + lines)
    command = read_command([str(path), *flags])
    assert (command.run_name, str(command.root)) == (name, root)
    assert printed(path, *flags) == (0, [name, root], "")
    if "run_name=z" not in flags:
        _, _, experiment, training = parse_arguments([str(path), *flags])
        assert (training.run_name, experiment.root) == (name, root)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no_such_preset"], ["no_such_preset", "quickstart"]),
        (["--learning_rate", "1"], ["--run_name"]),
        (["quickstart", "--run_name"], ["--run_name"]),
        (["quickstart", "--run_name", "a/b"], ["--run_name", "a/b"]),
        (["quickstart", "--run_name", "two words"], ["--run_name", "two words"]),
    ],
)
def test_the_shell_gets_a_sentence_and_no_name(argv, words):
    status, lines, message = printed(*argv)
    assert status == 2 and not lines and "\n" not in message
    assert all(word in message for word in words), message


def test_names_on_the_hub_are_found_in_preset_and_flags(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text('task: summarization\nmodel_name_or_path: "gpt2"  # base\ndataset_name: a/b\n')
    assert read_command([str(path)]).hub_names == {"--model_name_or_path": "gpt2", "--dataset_name": "a/b"}
    flags = ["--model-name-or-path=x", "--dataset_name", "y", "--run_name", "z"]
    assert read_command([str(path), *flags]).hub_names == {"--model_name_or_path": "x", "--dataset_name": "y"}
    assert read_command(["--run_name", "r"]).hub_names == {}


def test_names_that_the_flags_replace_are_not_looked_for(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("model_name_or_path: gpt2\ndataset_name: a/b\n")
    local = ["--config-name=gpt2", "--tokenizer_name", "folder", "--train_file", "a.jsonl"]
    assert read_command([str(path), *local]).hub_names == {"--tokenizer_name": "folder"}
    assert read_command([str(path), "--mixture", "wikitext=1"]).hub_names == {"--model_name_or_path": "gpt2"}
    assert read_command([str(path), "--dataset_name", "c/d"]).hub_names["--dataset_name"] == "c/d"


@pytest.mark.parametrize(
    "content",
    [
        b"run_name: \xff",
        b"\x00",
        b"- a",
        b"3",
        b"a: [",
        b"seed: !!int x",
        b"[" * 5000,
        b"!!python/object/apply:os.getcwd []",
    ],
)
def test_a_preset_that_cannot_be_read_is_named(content, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="p.yaml") as error:
        read_command([str(path)])
    assert "\n" not in str(error.value)
