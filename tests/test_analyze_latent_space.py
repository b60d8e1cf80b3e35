"""The script as its users run it; PCA where UMAP's compile time is not the point."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import analyze_latent_space
from gpt2_interp.analysis.projection import load_projection
from gpt2_interp.errors import run_script
from tests.fake_store import STEPS, write_fake_run


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["analyze_latent_space.py", *map(str, arguments)])
    run_script(analyze_latent_space.main)


def check_files(root: Path, n_step: int) -> None:
    projection = load_projection(root / "latent_space_evolution/fake/projection.safetensors")
    assert projection.coordinates.shape[0] == len(projection.steps) == n_step and projection.steps[-1] == STEPS[-1]
    folder = root / "visualizations/fake"
    assert {p.name for p in folder.iterdir()} == {"latent_space_3d_evolution.html", "latent_space_3d_rotation.gif"}
    assert Image.open(folder / "latent_space_3d_rotation.gif").n_frames >= n_step
    assert '<script src="' not in (folder / "latent_space_3d_evolution.html").read_text(encoding="utf-8")


def test_pca_of_some_steps_of_an_inner_layer(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2_interp.figures.latent.TURN_FRAMES", 6)
    store = write_fake_run(tmp_path)
    run(monkeypatch, "--run_name", "fake", "--root", tmp_path, "--method", "pca", "--layer", 1, "--max_steps", 3)
    check_files(tmp_path, 3)
    projection = load_projection(store.paths.latent / "projection.safetensors")
    assert projection.info["layer"] == "block 1" and projection.info["pooling"] == "target_mean"
    assert np.isfinite(projection.trustworthiness).all() and len(projection.info["variance_explained"]) == 3


def test_a_damaged_step_is_named_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gpt2_interp.figures.latent.TURN_FRAMES", 4)
    store = write_fake_run(tmp_path)
    store.array_file("latent", 50).write_bytes(b"damaged")
    run(monkeypatch, "--run_name", "fake", "--root", tmp_path, "--method", "pca")
    assert "step 50 is left out" in capsys.readouterr().err
    check_files(tmp_path, len(STEPS) - 1)


@pytest.mark.slow
def test_aligned_umap_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gpt2_interp.figures.latent.TURN_FRAMES", 6)
    write_fake_run(tmp_path)
    run(monkeypatch, "--run_name", "fake", "--root", tmp_path)
    assert "aligned_umap took" in capsys.readouterr().out
    check_files(tmp_path, len(STEPS))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--run_name", "nobody"), "has no measurements"),
        (("--run_name", "fake", "--layer", "9"), "0 (embedding) to 3"),
        (("--run_name", "fake", "--pooling", "source_mean", "--method", "pca"), "choose another --pooling"),
        (("--run_name", "fake", "--n_neighbors", "1"), "at least 2"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    write_fake_run(tmp_path, without_source=True)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments, "--root", tmp_path)
    errors = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in errors and errors.count("\n") == 1
    assert not (tmp_path / "visualizations").exists()
