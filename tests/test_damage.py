"""Damaged files of a run: each is named by what reads it, or changes nothing; never a traceback.

benchmarks/damage.py tries every file, damage and script on a real run.
"""

import warnings

import damage  # of benchmarks/, which pytest has on its path
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.outputs import read_rows, read_scores
from gpt2_interp.errors import InputError
from gpt2_interp.report.claims_tables import costs_section
from gpt2_interp.run_paths import RunPaths
from tests.fake_store import write_fake_run
from tests.runs import Run


def read_everything(paths):
    """Everything that a report reads, and the names of what is damaged."""
    found, named = {}, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            m = Measurements(paths)
            m.stack("attn_entropy")
            found = {
                "probes": m.probe_set, "log": m.log, "tokens": m.tokens, "costs": costs_section(m)["megabytes"],
                "reference": sorted(m.store.reference_names()), "scores": read_scores(paths),
                "rows": [read_rows(paths.model_outputs / name) for name in ("samples.jsonl", "predictions.jsonl")],
            }  # fmt: skip
        except InputError as error:
            named.append(str(error))
    return found, " ".join([*named, *(str(warning.message) for warning in caught), str(found.get("scores"))])


@pytest.mark.parametrize("how", [d for d in damage.DAMAGES if d is not damage.flip], ids=lambda d: d.__name__)
def test_each_text_file_that_is_unreadable_or_gone_is_named(how, tmp_path):
    write_fake_run(tmp_path)
    paths = RunPaths("fake", tmp_path)
    before, _ = read_everything(paths)
    files = [*paths.metrics.glob("*.json"), *paths.metrics.glob("*.jsonl"), *paths.model_outputs.glob("*.json*")]
    last = max(paths.metrics.glob("step_*.json"))
    read = {path for path in files if path.name != "claims.json" and not path.name.startswith("step_")} | {last}
    assert len(read) >= 5
    for path in sorted(read):
        if how is damage.delete and (path == last or path.name == "reference.json"):
            continue  # the sign that the step was taken: without it, it was not
        content = path.read_bytes()
        how(path)
        found, said = read_everything(paths)
        assert path.stem in said or path.name in said or found == before, path
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(content)


def test_a_damaged_line_is_left_out_and_named(tmp_path):
    write_fake_run(tmp_path)
    log = RunPaths("fake", tmp_path).metrics / "training_log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b'\xff{"step": 3\n', *lines[1:], b'{"step"']))
    with pytest.warns(UserWarning) as caught:
        found = Measurements(RunPaths("fake", tmp_path)).log
    assert len(found) == len(lines)
    assert [f"line {k}" in str(w.message) for k, w in zip((2, len(lines) + 2), caught, strict=True)] == [True, True]


@pytest.mark.slow
def test_scripts_name_what_is_damaged(toy_base, tmp_path):
    run = Run(tmp_path / "run", toy_base)
    assert run() == 0, run.output
    damaged = damage.Damaged(run, tmp_path / "kept", ("space", "text"))
    metrics, model = "interpretability_metrics/toy", "model_outputs/toy/best_model"
    for reader, file, how in (
        ("space", f"{metrics}/step_00000003.json", damage.halve),
        ("space", f"{metrics}/run.json", damage.folder),
        ("space", "latent_space_evolution/toy/step_00000006.safetensors", damage.flip),
        ("text", f"{model}/config.json", damage.empty),
        ("text", f"{model}/model.safetensors", damage.halve),
    ):
        case = damage.Case(reader, file, how)
        assert damaged.verdict(case) == "named", (str(case), run.output)
