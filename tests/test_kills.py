"""benchmarks/kills.py with a handful of kills: the whole experiment ends as if nothing had happened."""

import kills  # of benchmarks/, which pytest has on its path
import pytest

from tests.runs import Run


@pytest.mark.slow
def test_an_experiment_killed_in_every_stage_ends_like_an_undisturbed_one(toy_base, tmp_path):
    experiment = kills.Experiment(Run(tmp_path / "toy", toy_base))
    experiment.undisturbed()
    assert all(count > 5 for count in experiment.events.values())
    kill, stop = kills.signal.SIGKILL, kills.signal.SIGINT
    early = kills.Moment("gpt2_summarization", kill, "file", 0.1)  # before the first checkpoint
    late = kills.Moment("gpt2_summarization", stop, "file", 0.6)
    others = [kills.Moment(stage, kill, "file", 0.5) for stage in list(kills.STAGES)[1:]]
    done = experiment.killed([early, late, *others])
    assert experiment.problems == [] and done.total() == 4


def test_what_differs_is_a_problem(toy_base, tmp_path, monkeypatch):
    experiment = kills.Experiment(Run(tmp_path / "toy", toy_base), expected={"checkpoints/x": b"1"})
    monkeypatch.setattr(kills, "STAGES", {})
    (tmp_path / "toy" / "checkpoints").mkdir(parents=True)
    (tmp_path / "toy" / "checkpoints" / ".toy.lock").touch()
    (tmp_path / "toy" / "checkpoints" / "x").write_bytes(b"2")
    (tmp_path / "toy" / "logs" / "toy").mkdir(parents=True)
    monkeypatch.setattr("tests.runs.tensorboard", lambda paths: {})
    experiment.killed([])
    assert experiment.problems == ["checkpoints/x differs"]
