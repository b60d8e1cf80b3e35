"""How a script ends: Ctrl-C at any moment, and files that can't be used."""

import os
import subprocess
import sys

import pytest

from gpt2_interp.errors import InputError, run_script
from tests.conftest import REPOSITORY

# Presses Ctrl-C when a module is looked for. A background job ignores it, and so would its children.
PRESS_AT_IMPORT = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
module, program, *sys.argv[1:] = sys.argv[1:]
class Press:
    def find_spec(name, path, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press)
sys.path[0] = os.getcwd()
if program.endswith(".py"):
    runpy.run_path(program, run_name="__main__")
else:
    runpy.run_module(program, run_name="__main__", alter_sys=True)
"""
PRESS_BETWEEN_IMPORTS = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from gpt2_interp import startup
startup.begin()
{before}
os.kill(os.getpid(), signal.SIGINT)
print("went on")
"""


def python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "program", "flags"),
    [
        ("argparse", "gpt2_summarization.py", ["quickstart"]),
        ("transformers", "gpt2_summarization.py", ["quickstart"]),
        ("argparse", "visualize_metrics.py", ["--all"]),
        ("argparse", "analyze_latent_space.py", ["--run_name=x"]),
        ("numpy", "analyze_latent_space.py", ["--run_name=x"]),
        ("argparse", "generate_text.py", ["--model_path=assets/tiny_gpt2"]),
        ("torch", "generate_text.py", ["--model_path=assets/tiny_gpt2"]),
        ("argparse", "examples/attention_maps.py", ["--help"]),
        ("argparse", "examples/train_from_scratch.py", ["--help"]),
        ("argparse", "gpt2_interp.audit", ["--help"]),
        ("argparse", "gpt2_interp.cli.presets", ["quickstart"]),
        ("jinja2", "gpt2_interp.report.metrics_page", []),
    ],
)
def test_ctrl_c_in_an_import_ends_without_a_traceback(module, program, flags):
    result = python(PRESS_AT_IMPORT, module, program, *flags)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_between_imports_ends_without_a_traceback():
    result = python(PRESS_BETWEEN_IMPORTS.format(before="print('so far')"))
    assert (result.returncode, result.stdout, result.stderr) == (130, "so far\n", "interrupted\n")


def test_ctrl_c_that_is_ignored_stays_ignored():
    """As nohup, or a background job, starts a program."""
    code = PRESS_BETWEEN_IMPORTS.replace("signal.default_int_handler", "signal.SIG_IGN")
    assert python(code.format(before="")).stdout == "went on\n"


def test_ctrl_c_in_main_is_an_exception_as_always():
    code = """
from gpt2_interp.errors import InputError, run_script
def main():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("cleaned up")
run_script(main)
"""
    result = python(PRESS_BETWEEN_IMPORTS.format(before=code))
    assert (result.returncode, result.stdout, result.stderr) == (130, "cleaned up\n", "interrupted\n")


def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / "missing" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(SystemExit) as exit_:
            run_script(lambda path=path: path.mkdir())
        message = capsys.readouterr().err
        assert exit_.value.code == 2 and message.startswith(f"error: {path}") and message.count("\n") == 1


def test_a_message_cannot_change_the_terminal(capsys):
    def main():
        raise InputError("row \x1b[2J\x9b1m\r caf\u00e9 is empty.")

    with pytest.raises(SystemExit):
        run_script(main)
    assert capsys.readouterr().err == "error: row \\x1b[2J\\x9b1m\\x0d caf\u00e9 is empty.\n"
