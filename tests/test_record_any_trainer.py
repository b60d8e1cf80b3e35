"""examples/record_any_trainer.py runs as its reader would run it."""

import runpy
import sys

from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from tests.conftest import REPOSITORY
from tests.toy import measure_fewer


def test_the_documented_example_runs(tmp_path, monkeypatch, capsys):
    program = str(REPOSITORY / "examples" / "record_any_trainer.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [program, "--root", str(tmp_path), "--max_steps", "20"])
    monkeypatch.setattr(sys, "path", list(sys.path))  # the example puts the repository in front
    measure_fewer(monkeypatch)
    runpy.run_path(program, run_name="__main__")
    assert "snapshots: 2 to come after step 0, at each checkpoint" in "".join(capsys.readouterr())
    store = SnapshotStore(RunPaths("my_trainer", tmp_path))
    assert store.steps() == [0, 10, 20]
    assert store.manifest(20)["tier"] == ["ends", "final", "heavy", "light"]
    last = store.load(20)
    assert {"attn_entropy", "hidden_pooled", "weight_change", "induction", "ablation_exact", "band_attn_sink"} <= set(
        last
    )
    assert last["probe_loss"].mean() < store.load(0)["probe_loss"].mean()
    readme = (REPOSITORY / "docs" / "use_your_data.md").read_text(encoding="utf-8")
    assert "SnapshotRecorder(store, choose_probes(held_out_examples), tokenizer=tokenizer)" in readme
