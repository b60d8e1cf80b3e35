"""The changes in docs/add_a_measure.md, made to a copy of the package: they fit, they are small, and they work.

As a script, on a copy: `python -m tests.test_add_a_measure ROOT` records a small run there and draws it.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "add_a_measure.md"
MOST_FILES, MOST_LINES = 4, 40
ADDED = ("attn_max", "participation_ratio", "probe_entropy", "norm_gain")


# --- the page ----------------------------------------------------------------------------------------------------


def changes(text: str) -> list[tuple[str, list[str]]]:
    """[(file, lines of the change, each with " ", "+" or "-" before it)]"""
    blocks = re.findall(r"^```diff\n--- (\S+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(file, [line or " " for line in body.splitlines()]) for file, body in blocks]


def example(letter: str) -> list[tuple[str, list[str]]]:
    """The changes below the heading of one of the four examples."""
    _, behind = re.split(rf"^## {letter}: ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return changes(behind.split("\n#")[0])


def apply(text: str, folder: Path) -> None:
    """Make every change of the page's `text` to the files in `folder`."""
    for file, lines in changes(text):
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kinds) for kinds in (" -", " +"))
        path = folder / file
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        fits = old.count(before) if before else int(not old)
        assert fits == 1, f"the change of {file} fits {fits} places: {before}"
        path.write_text(old.replace(before, after) if before else after, encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A folder with a changed copy of the package and of the presets."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("gpt2_interp", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    apply(PAGE.read_text(encoding="utf-8"), folder)
    return folder


def python(copy: Path, *arguments: str) -> str:
    """What a Python process prints that imports the changed package, and the tests of this one."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(copy), str(REPOSITORY))), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=copy, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("letter", "ABCD")
def test_a_measure_takes_few_files_and_lines_as_the_page_counts_them(letter):
    found = example(letter)
    files = {file for file, _ in found}
    lines = sum(line[0] == "+" for _, change in found for line in change)
    assert 0 < len(files) <= MOST_FILES and 0 < lines <= MOST_LINES
    row = re.search(rf"^\| {letter} \|.*\| (\d+) \| (\d+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert (len(files), lines) == (int(row[1]), int(row[2]))


def test_the_changes_fit_and_are_formatted(copy):
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([*ruff, *command, "gpt2_interp"], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_definitions_and_the_list_of_pictures_follow(copy):
    page = python(copy, "-m", "gpt2_interp.report.metrics_page")
    assert all(f"### {name}\n" in page for name in ADDED) and "`control_attn_max` [" in page
    assert "- pictures: norm_gains\n" in page


# --- a source, a preset, a setting -------------------------------------------------------------------------------

OTHERS = """
import torch
from gpt2_interp.cli.presets import preset_names, read_command
from gpt2_interp.data.mixture import SOURCES, mixture_shares
from gpt2_interp.generation.generate import generate
from gpt2_interp.generation.settings import DecodingSettings
from tests.toy import make_toy_base
from transformers import AutoModelForCausalLM, AutoTokenizer
import json, pathlib, sys

base = make_toy_base(pathlib.Path(sys.argv[1]))
model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
def text(**settings):
    drawn = DecodingSettings(max_new_tokens=8, **settings).resolve()
    return generate(model, tokenizer, [[5, 6, 7]], drawn)[0][0].ids
print(json.dumps({
    "source": SOURCES["tinystories"].read({"text": "Once " * 30}).target[:9],
    "weights": list(mixture_shares(["tinystories=1"])),
    "presets": preset_names(),
    "steps": read_command(["quick_stories"]).values("--max_steps"),
    "likeliest": text(decoding="sampling", min_p=1.0),
    "greedy": text(decoding="greedy"),
    "drawn": text(decoding="sampling"),
}))
"""


@pytest.mark.slow
def test_a_source_a_preset_and_a_setting(copy, tmp_path):
    found = json.loads(python(copy, "-c", OTHERS, str(tmp_path / "base")))
    assert found["source"] == "Once Once" and found["weights"] == ["tinystories"]
    assert "quick_stories" in found["presets"] and found["steps"] == {"--max_steps": "50"}
    assert found["likeliest"] == found["greedy"] != found["drawn"]


# --- the four measures -------------------------------------------------------------------------------------------


def record(root: Path) -> None:
    """Train a small GPT-2 for two steps with snapshots, test the changes, draw two pictures, write report and page."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from gpt2_interp.analysis.claims import write_claims
    from gpt2_interp.analysis.measurements import Measurements
    from gpt2_interp.data.examples import Example, collate
    from gpt2_interp.figures.draw import write_picture
    from gpt2_interp.figures.registry import PICTURE
    from gpt2_interp.probes.choose import choose_probes
    from gpt2_interp.recording.recorder import SnapshotRecorder
    from gpt2_interp.report.page import write_run_report
    from gpt2_interp.run_paths import RunPaths
    from gpt2_interp.snapshots.store import SnapshotStore

    rng = random.Random(0)
    rows = [tuple(rng.randrange(1, 40) for _ in range(rng.randint(20, 33))) for _ in range(32)]
    examples = [Example(f"row {k}", f"cluster {k}", row[:-8], row[-8:-6], row[-6:]) for k, row in enumerate(rows)]
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=40, n_positions=48, bos_token_id=0, eos_token_id=0)
    )
    model.save_pretrained(root / "base")
    probes = choose_probes(examples[:12], control=examples[24:], n_positions=48)
    recorder = SnapshotRecorder(SnapshotStore(RunPaths("toy", root)), probes)
    arguments = TrainingArguments(
        str(root / "checkpoints"), max_steps=2, save_steps=1, learning_rate=1e-2, use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, report_to="none",
    )  # fmt: skip
    trainer = Trainer(
        model,
        arguments,
        train_dataset=[{"example": example} for example in examples[12:24]],
        data_collator=lambda items: collate([item["example"] for item in items], 0),
        callbacks=[recorder],
    )
    trainer.train()
    m = Measurements(RunPaths("toy", root))
    write_claims(m)
    for name in ("drift_map", "norm_gains", "head_changes", "learning_timeline"):
        write_picture(PICTURE[name], m)
    write_run_report(m)


@pytest.fixture(scope="module")
def root(copy, tmp_path_factory) -> Path:
    """The folder of a run recorded by the changed copy."""
    root = tmp_path_factory.mktemp("recorded")
    python(copy, "-m", "tests.test_add_a_measure", str(root))
    return root


def stored(root: Path, step: int) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    folders = ("attention_analysis", "latent_space_evolution", "interpretability_metrics")
    found: dict[str, np.ndarray] = {}
    for folder in folders:
        found |= load_file(next((root / folder / "toy").glob(f"step_*{step}.safetensors")))
    return found


@pytest.mark.slow
def test_they_are_stored_and_right(root):
    import torch
    from transformers import GPT2LMHeadModel

    arrays = stored(root, 0)
    assert {*ADDED, "control_attn_max", "control_probe_entropy"} <= set(arrays)
    probes = json.loads((root / "interpretability_metrics" / "toy" / "probe_set.json").read_text(encoding="utf-8"))
    model = GPT2LMHeadModel.from_pretrained(root / "base", attn_implementation="eager").eval()
    for k, probe in enumerate(probes["example"]):
        ids = torch.tensor(probe["token_ids"])
        first = probe["n_source"] + probe["n_template"] - 1
        with torch.no_grad():
            output = model(ids[None], output_attentions=True)
        p = output.logits[0, first:-1].softmax(-1)
        assert arrays["probe_entropy"][k] == pytest.approx(float(-(p * p.log2()).sum(-1).mean()), rel=1e-4)
        largest = torch.stack(output.attentions)[:, 0, :, first:-1].amax(-1).mean(-1)  # [layer, head]
        np.testing.assert_allclose(arrays["attn_max"][k, 0], largest, rtol=1e-4)
    pooled = arrays["hidden_pooled"][:, 1, 2].astype(np.float64)  # target_mean after the last block
    spread = np.linalg.eigvalsh(np.cov(pooled.T))
    assert arrays["participation_ratio"][1, 2] == pytest.approx(spread.sum() ** 2 / (spread**2).sum(), rel=1e-2)
    assert np.isnan(arrays["norm_gain"][0]) and (arrays["norm_gain"][1:] == 1).all()  # before training
    assert (stored(root, 2)["norm_gain"][1:] != 1).all()


@pytest.mark.slow
def test_the_claimed_ones_have_band_and_control(root):
    bands = stored(root, 2)
    claims = json.loads((root / "interpretability_metrics" / "toy" / "claims.json").read_text(encoding="utf-8"))
    for name, units in (("probe_entropy", 1), ("attn_max", 4)):
        assert np.isfinite(bands[f"band_{name}"]).all() and np.abs(bands[f"band_{name}"]).max() > 0
        entry = claims["measures"][name]
        assert (entry["n_units"], entry["n_probes"]) == (units, 12) and entry["band"] > 0
        changes = [change for change in claims["changes"] if change["measure"] == name]
        assert len(changes) == units and all(change["general_text"] is not None for change in changes)


@pytest.mark.slow
def test_they_are_in_pictures_and_report(root):
    pictures = root / "visualizations" / "toy"
    assert {"norm_gains.png", "norm_gains.html", "drift_map.png"} <= {path.name for path in pictures.iterdir()}
    report = (pictures / "interpretability_report.html").read_text(encoding="utf-8")
    assert 'id="norm_gains"' in report and 'id="figure-norm_gains"' in report
    assert all(name in report for name in ADDED)
    assert "Directions" in (pictures / "drift_map.html").read_text(encoding="utf-8")
    assert "Entropy of the prediction" in (pictures / "learning_timeline.html").read_text(encoding="utf-8")
    assert "Attention to one token" in (pictures / "head_changes.html").read_text(encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
