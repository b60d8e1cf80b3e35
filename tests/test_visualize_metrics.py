"""The script as its users run it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import visualize_metrics
from gpt2_interp.errors import run_script
from gpt2_interp.snapshots.table import MEASURE
from tests.fake_store import CHANGED_HEAD, STYLE_HEAD, write_fake_run

REPOSITORY = Path(__file__).parent.parent
DRAWN = visualize_metrics.DRAWN_HERE
FILES = {"interpretability_report.html", *(name for picture in DRAWN.values() for name in picture.files)}
STEPS = (0, 50, 1000)


def run(monkeypatch, *arguments: object) -> None:
    """The script in this process: its imports take longer than its work on a small run."""
    monkeypatch.setattr(sys, "argv", ["visualize_metrics.py", *map(str, arguments)])
    run_script(visualize_metrics.main)


def test_writes_every_picture_and_both_reports(tmp_path, monkeypatch, capsys):
    store = write_fake_run(tmp_path, steps=STEPS, claims=False)
    run(monkeypatch, "--run_name", "fake", "--root", tmp_path)
    output = capsys.readouterr()
    folder = tmp_path / "visualizations"
    assert {path.name for path in (folder / "fake").iterdir()} == FILES  # and nothing half-written
    assert (folder / "interpretability_report.html").is_file()
    assert output.out.count("wrote ") == len(FILES) + 2 and "not drawn" not in output.out  # the overview, claims.json
    assert f"{len(DRAWN) + 1}/{len(DRAWN) + 1}" in output.err  # the progress bar

    changes = json.loads((store.paths.metrics / "claims.json").read_text())["changes"]
    counted = {(c["measure"], *c["unit"].values()) for c in changes if c["counted"] and "head" in c["unit"]}
    assert ("attn_source_ns", *map(str, CHANGED_HEAD)) in counted and ("attn_sink", *map(str, STYLE_HEAD)) in counted
    assert {unit[1:] for unit in counted} == {tuple(map(str, head)) for head in (CHANGED_HEAD, STYLE_HEAD)}


def test_help_lists_the_pictures_and_draws_nothing():
    program = (
        f"import sys, runpy; sys.argv = ['x', '--help']; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        f"try: runpy.run_path({str(REPOSITORY / 'visualize_metrics.py')!r}, run_name='__main__')\n"
        "except SystemExit: print([name for name in ('numpy', 'matplotlib', 'plotly') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert all(name in done.stdout and picture.shows in done.stdout for name, picture in DRAWN.items())
    assert "claims.json" in done.stdout and done.stdout.endswith("[]\n"), done.stdout[-200:] + done.stderr


def test_a_wrong_name_gets_the_nearest(tmp_path, monkeypatch, capsys):
    write_fake_run(tmp_path, "good", steps=(0,))
    for arguments, near in (
        (("--run_name", "goood"), "good"),
        (("--run_name", "good", "--only", "head_change"), "head_changes"),
        (("--run_name", "good", "--onyl=report"), "--only"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, *arguments, "--root", tmp_path)
        assert f"did you mean {near}?" in capsys.readouterr().err


def test_the_same_bytes_again(tmp_path, monkeypatch):
    write_fake_run(tmp_path, steps=(0, 1000), claims=False)
    names = ("head_changes", "attention_weights_evolution", "report")
    written = []
    for _ in range(2):
        run(monkeypatch, "--run_name", "fake", "--root", tmp_path, "--only", *names)
        files = [path for path in (tmp_path / "visualizations").rglob("*.*") if path.is_file()]
        files.append(tmp_path / "interpretability_metrics/fake/claims.json")
        written.append({path.name: path.read_bytes() for path in files})
    assert len(written[0]) == 5 and written[0] == written[1]


def test_only_what_was_asked_for_and_no_torch(tmp_path):
    write_fake_run(tmp_path, steps=STEPS)
    arguments = ["x", "--run_name", "fake", "--root", str(tmp_path), "--only", "attention_head_evolution", "report"]
    program = (
        f"import sys, runpy; sys.argv = {arguments!r}; sys.path.insert(0, {str(REPOSITORY)!r}); "
        f"runpy.run_path({str(REPOSITORY / 'visualize_metrics.py')!r}, run_name='__main__'); "
        "print('torch' in sys.modules, 'umap' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("False False")
    names = {path.name for path in (tmp_path / "visualizations" / "fake").iterdir()}
    assert names == {"attention_head_evolution.gif", "attention_head_evolution.html", "interpretability_report.html"}


def test_all_runs_go_on_past_one_that_fails(tmp_path, monkeypatch, capsys):
    write_fake_run(tmp_path, "good")
    bad = write_fake_run(tmp_path, "bad", steps=(0,), scores=False)
    bad.manifest_file(0).unlink()
    run(monkeypatch, "--all", "--root", tmp_path, "--only", "weight_changes_evolution", "report")
    output = capsys.readouterr().out
    assert "good/weight_changes_evolution.png" in output
    assert "not drawn: run 'bad' has no snapshot yet" in output


def test_a_missing_measure_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    store = write_fake_run(tmp_path, steps=(0, 10))
    for step in store.steps():
        store.write(step, {"weight_change_relative": store.load(step)["weight_change_relative"]})
    run(monkeypatch, "--run_name", "fake", "--root", tmp_path)
    output = capsys.readouterr().out
    assert "weight_changes_evolution.png" in output and "interpretability_report.html" in output
    assert "not drawn: attention_head_evolution" in output and "not drawn: neuron_activations_evolution" in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--run_name", "nobody"), "has no measurements"),
        (("--run_name", "../x"), "can't name a folder"),
        (("--all",), "no run under"),
        (("--run_name", "empty"), "no snapshot yet"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    if "empty" in arguments:
        store = write_fake_run(tmp_path, "empty", steps=(0,), scores=False)
        store.manifest_file(0).unlink()
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments, "--root", tmp_path)
    errors = capsys.readouterr().err
    assert stopped.value.code == 2
    assert errors.startswith("error: ") and sentence in errors and errors.count("\n") == 1
    assert not (tmp_path / "visualizations").exists()


def test_probes_of_one_cluster_are_drawn_as_far_as_they_go(tmp_path, monkeypatch, capsys):
    """Rows that all have one id: half of the probes is empty."""
    store = write_fake_run(tmp_path, steps=(0, 50), n_cluster=1, claims=False)
    for step in store.steps():
        arrays = store.load(step)
        for name in ("neuron_mean", "neuron_sd", "neuron_active"):
            arrays[name][1] = np.nan
        store.write(step, arrays)
    run(monkeypatch, "--run_name", "fake", "--root", tmp_path)
    output = capsys.readouterr().out
    left_out = {line.split(": ")[1] for line in output.splitlines() if line.startswith("not drawn")}
    assert left_out == {"changed_neurons", "neuron_activations_evolution"} and "one cluster" in output
    claims = json.loads((store.paths.metrics / "claims.json").read_text())
    assert any("one cluster" in note for note in claims["notes"])
    assert all(c["change_by_half"] is None for c in claims["changes"] if MEASURE[c["measure"]].axes[0] == "example")
