"""The reports: self-contained, escaped, complete, and calm about what is missing."""

import copy
import re

import pytest

from gpt2_interp import figures
from gpt2_interp.figures import Measurements
from gpt2_interp.projection import project, save_projection
from gpt2_interp.report import (
    CHAPTERS,
    interval,
    number,
    overlap,
    plain,
    read_scores,
    score_table,
    settings,
    summary,
    write_overview,
    write_run_report,
)
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots import MEASURE, write_atomically
from tests.fake_store import HOSTILE, STEPS, write_fake_run

# what a browser would fetch by itself or on a click
LINK_OUT = re.compile(
    r"""(?:src|href|action|poster)\s*=\s*["']?\s*(?:https?:)?//|<link\b|@import|url\(\s*["']?https?:"""
)


def without_plotly(page: str) -> str:
    from plotly.offline import get_plotlyjs

    assert page.count(get_plotlyjs()) <= 1
    return page.replace(get_plotlyjs(), "")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    write_fake_run(root, "full")
    write_fake_run(root, "adapter", tuning="lora")
    write_fake_run(root, "stories", task="creative_writing")
    write_fake_run(root, "running", scores=False)
    m = Measurements(RunPaths("full", root))
    states = m.stack("hidden_pooled")[1][:, :, 1, -1]
    projection = project(states, list(STEPS), "pca")
    projection.info.update(layer="block 3", pooling="target_mean")
    save_projection(m.paths.latent / "projection.safetensors", projection)
    write_atomically(m.paths.visualizations / "weight_changes_evolution.png", figures.weight_png(m))
    return root


@pytest.fixture(scope="module")
def page(root):
    return write_run_report(Measurements(RunPaths("full", root))).read_text(encoding="utf-8")


def test_self_contained_with_plotly_once(page):
    from plotly.offline import get_plotlyjs

    assert page.count(get_plotlyjs()) == 1 and len(page.encode()) < 15_000_000
    assert not LINK_OUT.search(without_plotly(page))
    assert "data:image/png;base64," in page


def test_hostile_text_is_shown_and_not_run(page):
    own = without_plotly(page)
    assert HOSTILE not in own and "&lt;/script&gt;" in own
    assert own.count("<script") == own.count("</script>")


def test_every_chapter_with_the_measure_tables_own_words(page):
    for chapter in CHAPTERS:
        assert f'id="{chapter.name}"' in page
        for name in chapter.measures:
            assert MEASURE[name].name in page and str(MEASURE[name].meaning.split("'")[0]) in page
    interactive = [chapter for chapter in CHAPTERS if chapter.plotly]
    assert all(f'id="figure-{chapter.name}"' in page for chapter in interactive)


def test_scores_with_intervals_and_what_they_allow(page):
    assert "40.0 (38.0 to 42.0)" in page and "do not overlap" in page and "Scored on 100 rows." in page


def test_pictures_that_are_not_there_get_a_sentence(page):
    assert "neuron_activations_evolution.gif has not been drawn yet" in page
    assert "run analyze_latent_space.py --run_name full" in page


def test_same_bytes_again(root, page):
    assert write_run_report(Measurements(RunPaths("full", root))).read_text(encoding="utf-8") == page


def test_a_run_still_training(root):
    page = write_run_report(Measurements(RunPaths("running", root))).read_text(encoding="utf-8")
    assert "No scores yet" in page and "No samples yet" in page
    assert "projection.safetensors does not exist yet" in page


def test_one_snapshot(tmp_path):
    write_fake_run(tmp_path, steps=(0,), scores=False)
    page = write_run_report(Measurements(RunPaths("fake", tmp_path))).read_text(encoding="utf-8")
    assert "There is only one snapshot (step 0)" in page


def test_too_large_a_picture_is_left_out(root, monkeypatch):
    from plotly.offline import get_plotlyjs

    monkeypatch.setattr("gpt2_interp.report.LARGEST_REPORT", len(get_plotlyjs()) + 500_000 + 30_000)
    page = write_run_report(Measurements(RunPaths("full", root))).read_text(encoding="utf-8")
    assert "too large for this page" in page and len(page) < len(get_plotlyjs()) + 530_000


def test_overview_compares_runs(root):
    write_run_report(Measurements(RunPaths("full", root)))
    page = write_overview(root).read_text(encoding="utf-8")
    assert 'href="full/interpretability_report.html"' in page and 'href="stories/' not in page
    assert "All weights against LoRA: full, adapter" in page and "learning_rate" in page
    assert "creative writing" in page and "adapter" in page and "running" in page
    assert not LINK_OUT.search(page) and HOSTILE not in page


def test_overview_survives_a_run_it_cannot_read(tmp_path):
    write_fake_run(tmp_path, "good")
    bad = write_fake_run(tmp_path, "bad")
    bad.run_file.write_text('{"schema_version": 99, "axes": {}}')
    page = write_overview(tmp_path).read_text(encoding="utf-8")
    assert "schema version 99" in page and "good" in page


def test_overview_without_runs(tmp_path):
    assert write_overview(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"base": 3}', '{"base": {"rouge1": null}, "tuned": "x"}', "{}"])
def test_unknown_shapes_of_metrics_are_survived(tmp_path, text):
    write_fake_run(tmp_path)
    paths = RunPaths("fake", tmp_path)
    (paths.model_outputs / "metrics.json").write_text(text)
    scores, note = read_scores(paths)
    assert score_table(scores) is None and (note or scores)
    page = write_run_report(Measurements(paths)).read_text(encoding="utf-8")
    assert "no scores that this report knows" in page or "not readable" in page
    assert write_overview(tmp_path)


def test_numbers():
    assert number(3.14159) == "3.142" and number(123456.7) == "123,457" and plain({"a": [1, None]}) == "a: 1, –"
    assert interval({"rouge1": 40}, "rouge1") == "40.0" and interval({"rouge1": None}, "rouge1") == "–"
    a, b = {"x_low": 1, "x_high": 2}, {"x_low": 2, "x_high": 3}
    assert overlap(a, b, "x").endswith("intervals overlap") and overlap(a, {}, "x") == ""


def test_the_score_table_has_a_column_for_each_source_of_a_mixture():
    scores = {"perplexity": 3.0, "perplexity_wikitext": 2.0, "perplexity_wikitext_low": 1.0, "n": 4}
    table = score_table({"base": scores, "tuned": scores, "test": {"counts": {"wikitext": 4}}})
    assert table["columns"] == ["perplexity", "perplexity, wikitext", "rows scored"]
    assert score_table({"base": scores, "test": {"counts": 3}})["columns"] == ["perplexity", "rows scored"]


def test_fingerprints_of_the_data_are_folded_away(measurements):
    data = {"train": {"source": "mine.jsonl", "rows": 5, "sha256": "f00dcafe", "counts": {"wiki": 5}}}
    m = copy.copy(measurements)
    m.info = {**measurements.info, "data": data}
    shown = dict(summary(m, {}))
    assert "mine.jsonl" in shown["data: train"] and "f00dcafe" not in str(shown)
    assert "f00dcafe" in str(dict(settings(m.info))["Data"])
