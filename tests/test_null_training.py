"""--null_training, end to end on a toy model."""

import json
import shutil

import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.other_runs import null_run, seed_runs, trained_on_base_text
from gpt2_interp.run_paths import OUTPUT_FOLDERS, RunPaths, measured_runs
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import CLAIMED, MEASURE
from gpt2_interp.synthetic.running_text import pretraining_texts
from tests.test_gpt2_summarization import NEWS, SMALL, run

NULLS = ["news-null-1", "news-null-2"]


@pytest.fixture(scope="module")
def flags(toy_base, tmp_path_factory):
    general = tmp_path_factory.mktemp("general") / "general.txt"
    general.write_text("\n\n".join(text.replace("\n", " ") for text in pretraining_texts(260, 5)))
    measures = ["--measures", "attention", "loss", "context_gain", "weights"]
    return [
        f"--model_name_or_path={toy_base}",
        *NEWS,
        *SMALL,
        f"--control_file={general}",
        "--run_name=news",
        *measures,
    ]


@pytest.fixture(scope="module")
def root(flags, tmp_path_factory):
    """A run with two null runs; nothing may be written to it."""
    root = tmp_path_factory.mktemp("outputs")
    assert run(*flags, f"--root={root}", "--null_training=2") == 0
    return root


def stored(root, name) -> SnapshotStore:
    return SnapshotStore(RunPaths(name, root))


def test_each_null_run_is_a_run_of_two_snapshots_on_the_same_probes(root):
    assert measured_runs(root) == ["news", *NULLS]
    main = stored(root, "news")
    whole = main.stack("weight_change")[1][-1] / main.stack("weight_change_relative")[1][-1]
    target = np.sqrt((main.stack("weight_change")[1][-1] ** 2).sum() / (whole**2).sum())
    for number, name in enumerate(NULLS, 1):
        null = stored(root, name)
        info = null.run_info()
        reached = info["null_training"]
        assert info["null_training_of"] == "news" and info["arguments"]["seed"] == 42 + 1000 + number
        assert info["arguments"]["learning_rate"] == main.run_info()["arguments"]["learning_rate"]
        assert "general.txt" in info["data"]["train"]["source"] and info["data"]["train"]["rows"] > 1
        assert reached["wanted_weight_change"] == pytest.approx(target, rel=1e-4)
        assert reached["weight_change"] >= target or reached["steps"] == 4 * 6
        assert null.steps() == [0, reached["steps"]]
        assert null.probe_set() == main.probe_set()
        assert info["measures"]["groups"] == ["attention", "loss", "context_gain"]  # of which a change is tested
        assert not {MEASURE[array].group for array in null.load(0)} & {"band", "graft", "ablation", "spectra"}
        claimed = [m.name for m in CLAIMED if m.group in info["measures"]["groups"] and m.name in main.load(0)]
        for array in claimed:
            np.testing.assert_array_equal(null.load(0)[array], main.load(0)[array])
            assert array in null.load(reached["steps"])
        assert null.read_log()[0]["step"] == 1
    changed = [stored(root, name).stack("probe_loss")[1][-1] for name in NULLS]
    assert not np.array_equal(*changed)


def test_no_model_checkpoint_or_score_is_kept(root):
    found = {folder for folder in OUTPUT_FOLDERS for name in NULLS if (root / folder / name).exists()}
    assert found == {"interpretability_metrics", "attention_analysis", "latent_space_evolution"} & found
    assert "interpretability_metrics" in found and not (root / "checkpoints" / "news" / "null_training").exists()


def test_only_the_comparison_with_base_text_reads_them(root):
    m = Measurements(RunPaths("news", root))
    assert [other.paths.run_name for other in trained_on_base_text(m)] == NULLS
    assert seed_runs(m) == [] and null_run(m) is None


def test_a_resumed_run_makes_the_missing_null_run(root, flags, tmp_path):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model_outputs" / "news" / "metrics.json").unlink()  # killed in the second null run
    for folder in OUTPUT_FOLDERS:
        shutil.rmtree(tmp_path / folder / NULLS[1], ignore_errors=True)
    left = tmp_path / "checkpoints" / "news" / "null_training" / "interpretability_metrics" / NULLS[1]
    left.mkdir(parents=True)
    (left / "step_00000099.json").write_text("{}")
    kept = stored(tmp_path, NULLS[0]).run_file.stat().st_mtime_ns
    assert run(*flags, f"--root={tmp_path}", "--null_training=2", "--resume") == 0
    assert stored(tmp_path, NULLS[0]).run_file.stat().st_mtime_ns == kept
    ours, theirs = stored(tmp_path, NULLS[1]), stored(root, NULLS[1])
    assert ours.steps() == theirs.steps()
    for name, array in theirs.load(theirs.steps()[-1]).items():
        np.testing.assert_array_equal(array, ours.load(ours.steps()[-1])[name])
    scores = [(folder / "model_outputs" / "news" / "metrics.json").read_text() for folder in (root, tmp_path)]
    assert json.loads(scores[0])["tuned"] == json.loads(scores[1])["tuned"]


def test_overwrite_removes_them_and_nothing_else_may_have_their_name(root, flags, tmp_path, capsys):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    for folder in OUTPUT_FOLDERS:
        shutil.rmtree(tmp_path / folder / "news", ignore_errors=True)
    assert run(*flags, f"--root={tmp_path}") == 2 and "'news'" in capsys.readouterr().err
    assert run(*flags, f"--root={tmp_path}", "--overwrite", "--max_steps=1") == 0
    assert measured_runs(tmp_path) == ["news"]
    stored(tmp_path, NULLS[0]).create({"axes": {}})
    assert run(*flags, f"--root={tmp_path}", "--overwrite", "--null_training=1") == 2
    assert NULLS[0] in capsys.readouterr().err and measured_runs(tmp_path) == ["news", NULLS[0]]


def test_adapters_are_trained_on_base_text_too(flags, tmp_path):
    lora = ["--tuning=lora", "--max_steps=2", "--null_training=1"]
    assert run(*flags, f"--root={tmp_path}", *lora) == 0
    info = stored(tmp_path, NULLS[0]).run_info()
    assert info["tuning"] == "lora" and info["null_training"]["weight_change"] > 0
    assert info["model"]["trainable_parameters"] < info["model"]["parameters"] / 2


def test_what_cannot_be_is_refused_before_data_are_read(flags, tmp_path, capsys):
    without = [flag for flag in flags if not flag.startswith("--control_file")]
    assert run(*without, f"--root={tmp_path}", "--null_training=3") == 2
    assert "--control_file" in capsys.readouterr().err
    assert run(*flags, f"--root={tmp_path}", "--null_training=-1") == 2
    assert "--null_training" in capsys.readouterr().err
    shape = ["--config_name=gpt2", "--null_training=3", "--run_name=random", *NEWS]
    assert run(*shape, f"--root={tmp_path}") == 2
    assert "--config_name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
