"""examples/record_any_trainer.py runs as its reader would run it."""

import subprocess
import sys

from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots import SnapshotStore
from tests.conftest import REPOSITORY


def test_the_documented_example_runs(tmp_path):
    command = [
        sys.executable,
        REPOSITORY / "examples" / "record_any_trainer.py",
        "--root",
        tmp_path,
        "--max_steps",
        "20",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "snapshots: 2 to come after step 0, at each checkpoint" in done.stdout + done.stderr
    store = SnapshotStore(RunPaths("my_trainer", tmp_path))
    assert store.steps() == [0, 10, 20]
    assert store.manifest(20)["tier"] == ["ends", "final", "heavy", "light"]
    last = store.load(20)
    assert {"attn_entropy", "hidden_pooled", "weight_change", "induction", "ablation_exact", "band_attn_sink"} <= set(
        last
    )
    assert last["probe_loss"].mean() < store.load(0)["probe_loss"].mean()
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "SnapshotRecorder(store, choose_probes(held_out_examples), tokenizer=tokenizer)" in readme
