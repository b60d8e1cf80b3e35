"""The shell scripts: what they print when something is wrong, and the whole experiment on a toy model."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_interp.figures.registry import PICTURES

REPOSITORY = Path(__file__).resolve().parents[1]


def bash(script, *arguments, cwd=REPOSITORY, **environment):
    return subprocess.run(
        ["bash", str(cwd / script), *arguments], cwd=cwd, env={**os.environ, **environment},
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path):
    """A checkout without environment, and the variables under which none is active."""
    for name in ("setup_environment.sh", "requirements.txt", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path, {"VIRTUAL_ENV": "", "CONDA_PREFIX": ""}


def one_line(result):
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_an_old_python_is_refused(bare):
    folder, environment = bare
    old = executable(folder / "old", '#!/bin/sh\ncase $1 in --version) echo "Python 3.9.2";; *) exit 1;; esac\n')
    message = one_line(bash("setup_environment.sh", cwd=folder, PYTHON=str(old), **environment))
    assert "Python 3.9.2" in message and "3.11 or newer is needed" in message
    assert not (folder / ".venv").exists()


def test_a_missing_python_is_said(bare):
    folder, environment = bare
    message = one_line(bash("setup_environment.sh", cwd=folder, PYTHON="python-that-is-not", **environment))
    assert "no python-that-is-not found" in message


def test_a_full_disk_is_said_before_anything_is_written(bare):
    folder, environment = bare
    (folder / "bin").mkdir()
    executable(
        folder / "bin" / "df", '#!/bin/sh\necho "Filesystem 1M Used Avail Use% On"\necho "/dev/x 9 9 12 99% /"\n'
    )
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    message = one_line(bash("setup_environment.sh", cwd=folder, PATH=path, **environment))
    assert "only 12 MB are free" in message
    assert not (folder / ".venv").exists()


def test_a_notebooks_backend_does_not_fail_the_check_of_the_imports(bare):
    folder, environment = bare
    (folder / "env" / "bin").mkdir(parents=True)
    executable(
        folder / "env" / "bin" / "python", '#!/bin/sh\ncase $1 in -W) cat >/dev/null; echo "$MPLBACKEND";; esac\n'
    )
    environment |= {"PATH": f"{folder / 'env' / 'bin'}:{os.environ['PATH']}"}
    environment |= {"VIRTUAL_ENV": str(folder / "env"), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    result = bash("setup_environment.sh", cwd=folder, **environment)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "agg", result.stderr


@pytest.mark.slow
def test_no_package_index_is_said(bare):
    folder, environment = bare
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_RETRIES": "0"}
    empty = {"PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    message = one_line(bash("setup_environment.sh", cwd=folder, **environment, **nowhere, **empty))
    assert "could not get the packages" in message and "package index" in message


def test_an_unknown_preset_lists_the_known_ones():
    result = bash("run_experiment.sh", "no_such_preset")
    assert "no preset 'no_such_preset'" in result.stderr and "quickstart" in result.stderr
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_help_shows_usage_and_presets():
    result = bash("run_experiment.sh", "--help")
    assert result.returncode == 0
    assert "./run_experiment.sh quickstart_lora" in result.stdout and "pretrain_tiny" in result.stdout


PROGRAMS = (
    *("gpt2_summarization.py", "generate_text.py", "analyze_latent_space.py", "visualize_metrics.py"),
    *(f"examples/{path.name}" for path in sorted((REPOSITORY / "examples").glob("*.py")) if path.stem != "read_a_run"),
    *(
        f"benchmarks/{path.name}"
        for path in sorted((REPOSITORY / "benchmarks").glob("*.py"))
        if path.name not in ("common.py", "strangers_inputs.py")  # parts of others
    ),
    "-m gpt2_interp.audit",
)


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_has_a_help_that_waits_for_no_library(program):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *program.split(), "--help"],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0 and "usage:" in result.stdout, result.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "datasets", "pandas", "sklearn", "matplotlib", "plotly"}


@pytest.fixture
def dry(tmp_path):
    """run_experiment.sh with a python that only writes down what it would run, except for the names of the run."""
    shutil.copy(REPOSITORY / "run_experiment.sh", tmp_path)
    executable(tmp_path / "setup_environment.sh", "#!/bin/sh\n")
    for name in ("gpt2_interp", "configs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    executable(
        tmp_path / ".venv" / "bin" / "python",
        f'#!/bin/bash\n[ "$1" = -m ] && exec {sys.executable} "$@"\nprintf "<%s>" "$@" >> calls; echo >> calls\n',
    )
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "trained", "name", "root"),
    [
        ([], ["quickstart"], "quickstart", "."),
        (["--run-name=x"], ["quickstart", "--run-name=x"], "x", "."),
        (["quickstart_lora", "--root", "a 'b'"], ["quickstart_lora", "--root", "a 'b'"], "quickstart_lora", "a 'b'"),
        (["my own.yml"], ["my own.yml"], "quoted", "out put"),
    ],
)
def test_later_stages_get_the_names_that_training_uses(dry, arguments, trained, name, root):
    (dry / "my own.yml").write_text('run_name: "quoted"  # first try\nroot: out put\n')
    result = bash("run_experiment.sh", *arguments, cwd=dry, VIRTUAL_ENV="", CONDA_PREFIX="")
    assert result.returncode == 0, result.stderr
    places = ["--run_name", name, "--root", root]
    scripts = (
        [f"{dry}/gpt2_summarization.py", *trained],
        [f"{dry}/analyze_latent_space.py", *places],
        [f"{dry}/visualize_metrics.py", *places],
    )
    assert (dry / "calls").read_text() == "".join("".join(f"<{word}>" for word in one) + "\n" for one in scripts)
    assert f"{root}/visualizations/{name}/interpretability_report.html" in result.stdout


def test_files_and_outputs_are_where_the_user_stands(dry, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("else where")
    (elsewhere / "mine.yml").write_text("run_name: x\n")
    result = subprocess.run(
        ["bash", str(dry / "run_experiment.sh"), "mine.yml"], cwd=elsewhere, capture_output=True, text=True,
        env={**os.environ, "VIRTUAL_ENV": "", "CONDA_PREFIX": "", "PYTHONPATH": ""},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"<{dry}/gpt2_summarization.py><mine.yml>" in (elsewhere / "calls").read_text()


@pytest.mark.parametrize("arguments", [["--run_name", "a/b"], ["no_such_preset"], ["quickstart", "--root"]])
def test_a_wrong_name_stops_before_training(dry, arguments):
    result = bash("run_experiment.sh", *arguments, cwd=dry, VIRTUAL_ENV="", CONDA_PREFIX="")
    assert result.returncode == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (dry / "calls").exists()


@pytest.mark.slow
def test_the_whole_experiment_on_a_toy_model(toy_base, tmp_path):
    preset = tmp_path / "toy_experiment.yaml"
    preset.write_text(
        f"model_name_or_path: {toy_base}\ndataset_name: synthetic_news\nmax_train_samples: 16\nmax_eval_samples: 8\n"
        "max_predict_samples: 4\nprobe_samples: 12\nmax_source_length: 200\nmax_target_length: 24\nmax_steps: 2\n"
        "save_steps: 2\nlogging_steps: 1\nper_device_train_batch_size: 2\nuse_cpu: true\n"
    )
    result = bash("run_experiment.sh", str(preset), "--root", str(tmp_path), "--run_name=toy")
    assert result.returncode == 0, result.stderr
    pictures = {path.name for path in (tmp_path / "visualizations" / "toy").iterdir()}
    drawn = {name for picture in PICTURES for name in picture.files if picture.measures}  # too few samples for theirs
    assert pictures == drawn | {"interpretability_report.html"}
    assert (tmp_path / "latent_space_evolution" / "toy" / "projection.safetensors").is_file()
    report = tmp_path / "visualizations" / "toy" / "interpretability_report.html"
    assert f"report:      {report}" in result.stdout
    assert (tmp_path / "visualizations" / "interpretability_report.html").is_file()
