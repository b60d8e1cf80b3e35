"""The reports: self-contained, escaped, complete, and calm about what is missing."""

import copy
import re

import pytest
from markupsafe import escape

from gpt2_interp.analysis.claim_words import WORDS
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.outputs import read_scores
from gpt2_interp.analysis.projection import project, save_projection
from gpt2_interp.figures.changes import head_changes_layout
from gpt2_interp.figures.draw_png import draw_png
from gpt2_interp.figures.numbers import number
from gpt2_interp.figures.registry import PICTURES, SECTIONS
from gpt2_interp.figures.weights import weight_changes
from gpt2_interp.files import write_atomically
from gpt2_interp.report.all_runs import write_overview
from gpt2_interp.report.claims_tables import (
    _choice,
    ablation_section,
    change_row,
    claims_section,
    costs_section,
    counted_heads,
    unit_name,
)
from gpt2_interp.report.page import FOR_TEXT, _probes_shown, run_facts, settings, write_run_report
from gpt2_interp.report.score_tables import overlap, score_cell, score_table, setting_text
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.table import CLAIMED, MEASURE
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
    states = m.stack("hidden_pooled")[1][:, :, 1, -1].astype("float32")
    projection = project(states, list(STEPS), "pca")
    projection.info.update(layer="block 3", pooling="target_mean")
    save_projection(m.paths.latent / "projection.safetensors", projection)
    write_atomically(m.paths.visualizations / "weight_changes_evolution.png", draw_png(weight_changes(m), m))
    write_atomically(m.paths.visualizations / "head_changes.png", draw_png(head_changes_layout(m), m))
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
    for picture in PICTURES:
        assert f'id="{picture.name}"' in page or not picture.measures
        for name in picture.measures:
            assert MEASURE[name].name in page and str(MEASURE[name].meaning.split("'")[0]) in page
    interactive = [picture for picture in PICTURES if ".html" in picture.formats]
    assert all(f'id="figure-{picture.name}"' in page for picture in interactive)


def test_sections_in_the_order_of_the_questions(page):
    names = [section.name for section in SECTIONS]
    places = [page.index(f'<h2 id="{name}">') for name in names]
    assert places == sorted(places)
    assert all(f'<a href="#{name}">' in page for name in names)


def claim_row(page: str, measure: str) -> str:
    return re.search(rf'<tr><th scope="row"><code>{measure}</code><small>.*?</tr>', page, re.DOTALL)[0]


def test_changes_of_the_planted_heads(page):
    row = claim_row(page, "attn_source_ns")
    assert "layer 1, head 2" in row and "+0.35" in row and "beyond noise, counted" in row and "the head matters" in row
    row = claim_row(page, "attn_sink")
    assert "layer 0, head 1" in row and "beyond noise, counted" in row
    assert "1 of 12 heads" in page and "0 of 12 heads" in page and "--null_training 3" in page
    for word, sentence in WORDS.items():
        assert f"<dt>{word}</dt><dd>{escape(sentence)}</dd>" in page


def test_the_summary_has_a_row_for_every_tested_measure(measurements):
    section = claims_section(measurements)
    assert [row["name"] for row in section["summary"]] == [measure.name for measure in CLAIMED]
    rows = {row["name"]: row for row in section["summary"]}
    assert rows["attn_sink"]["found"] == "1 of 12 heads" and "1 counted over measures" in rows["attn_sink"]["more"]
    assert rows["probe_loss"]["found"] == "yes" and rows["attn_gold_lift"]["smallest"] == "x 1.5"
    assert section["why"] == [] and f"{len(section['all'])} are beyond noise" in section["sentence"]
    assert counted_heads(measurements.claims) == "2 of 12"


def test_the_strongest_are_chosen_on_one_half_and_shown_on_the_other():
    def change(name, halves, times):
        return {"change_by_half": halves, "times_noise": times, "change": 0.5, "unit": {"head": name}}

    lucky, steady = change("lucky", [0.9, 0.1], 5.0), change("steady", [0.5, 0.5], 5.0)
    assert sorted([steady, lucky], key=_choice) == [lucky, steady]  # by the first half alone
    assert _choice(change("whole", None, 5.0)) == 0 == _choice(change("no band", [1, 1], None))


def test_nothing_beyond_noise_says_why(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10), tiers=("light",), scores=False)
    m = Measurements(store.paths)
    section = claims_section(m)
    assert section["sentence"].startswith("None of ") and not section["all"]
    assert len(section["why"]) == 1 and "no band to exceed" in section["why"][0]
    page = write_run_report(m).read_text(encoding="utf-8")
    assert section["why"][0] in page and "Not measured in this run: ablation_exact" in page
    assert "Not measured in this run: stable_rank, weight_spectrum, intruder_cosine." in page
    assert "Not measured in this run: graft_necessity, graft_sufficiency" in page
    (store.paths.metrics / "claims.json").unlink()
    page = write_run_report(Measurements(store.paths)).read_text(encoding="utf-8")
    assert "claims.json is missing" in page


def test_why_a_group_was_left_out_is_told(tmp_path):
    m = Measurements(write_fake_run(tmp_path, steps=(0, 10), tiers=("light",), scores=False).paths)
    m.info["measures"] = {"left_out": {"graft": "it would cost 40% of the training's time"}}
    page = write_run_report(m).read_text(encoding="utf-8")
    assert "(graft: it would cost 40% of the training&#39;s time): graft_necessity" in page


def test_a_change_as_a_row():
    change = {
        "measure": "attn_sink",
        "unit": {"layer": "0", "head": "1"},
        **{"before": 0.6, "after": 0.4, "change": -0.2, "low": -0.25, "high": None, "times_noise": 4.04},
        "change_by_half": [-0.3, -0.1],
        "half_change": {"step": 8, "low": 4, "high": 16},
        "general_text": None,
        "other_article": {"change": -0.05, "low": -0.1, "high": 0.01},
        "ablation": {"before": 0.1, "after": 0.3, "low": 0.2, "high": 0.4},
        "restoration": {"kind": "value_first", "needed": 0.5, "low": 0.4, "high": 0.6},
        "words": ["beyond noise", "format"],
    }
    row = change_row(change)
    assert row["levels"] == "0.6 → 0.4" and str(row["change"]) == "-0.2 (no interval)" and str(row["general"]) == "–"
    assert str(row["ablation"]) == "+0.3 (+0.2 to +0.4)" and str(row["other"]) == "-0.05 (-0.1 to +0.01)"
    assert str(row["restored"]) == "+0.5 (+0.4 to +0.6)" and row["restored_kind"] == "value first"
    assert (row["words"], row["half"], row["second_half"]) == ("beyond noise, format", "step 8 (4 to 16)", "-0.1")
    assert row["times_noise"] == "4.0" and change_row(change | {"restoration": None})["restored_kind"] == ""
    assert unit_name({"hidden_layer": "block 2"}) == "block 2" and unit_name({}) == "all probes"


def test_ablated_heads(measurements):
    section = ablation_section(measurements)
    assert section["n_heads"] == 12 and section["n_cost"] == section["n_changed"] == 1
    assert section["rows"][0]["head"] == "layer 1, head 2" and "attn_source_ns" in section["rows"][0]["changed"]


def test_costs_come_from_the_manifests(measurements):
    costs = costs_section(measurements)
    rows = {row["group"]: row for row in costs["rows"]}
    assert [rows["attention"][key] for key in ("snapshots", "each", "total")] == [5, "0.50", "2.5"]
    assert rows["spectra"]["snapshots"] == 3 and rows["graft"]["snapshots"] == 1
    assert costs["tiers"][1] == (50, "light") and costs["tiers"][-1] == (1000, "ends, final, heavy, light")
    total = sum(measurements.store.manifest(step)["seconds"] for step in STEPS)
    assert costs["seconds"] == f"{total:,.1f}"


def test_scores_with_intervals_and_what_they_allow(page):
    assert "40.0 (38.0 to 42.0)" in page and "row by row: 28.0" in page and "Scored on 100 rows." in page


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
    assert "None of 0 changes" in page and "There is only one snapshot: nothing can have changed yet." in page


def test_too_large_a_picture_is_left_out(root, monkeypatch):
    from plotly.offline import get_plotlyjs

    monkeypatch.setattr("gpt2_interp.report.page.LARGEST_REPORT", len(get_plotlyjs()) + FOR_TEXT + 30_000)
    page = write_run_report(Measurements(RunPaths("full", root))).read_text(encoding="utf-8")
    assert "too large for this page" in page and len(page) < len(get_plotlyjs()) + FOR_TEXT + 30_000


def test_overview_compares_runs(root):
    write_run_report(Measurements(RunPaths("full", root)))
    page = write_overview(root).read_text(encoding="utf-8")
    assert 'href="full/interpretability_report.html"' in page and 'href="stories/' not in page
    assert "All weights against LoRA: full, adapter" in page and "learning_rate" in page
    assert "creative writing" in page and "adapter" in page and "running" in page
    assert "<td>2 of 12</td>" in page and "<td>75% <small>(" in page and "<td>0.80 <small>(" in page
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
    write_fake_run(tmp_path, steps=(0,))
    paths = RunPaths("fake", tmp_path)
    (paths.model_outputs / "metrics.json").write_text(text)
    scores, note = read_scores(paths)
    assert score_table(scores) is None and (note or scores)
    page = write_run_report(Measurements(paths)).read_text(encoding="utf-8")
    assert "no scores that this report knows" in page or "not readable" in page
    assert write_overview(tmp_path)


def test_numbers():
    assert number(3.14159) == "3.142" and number(123456.7) == "123,457" and setting_text({"a": [1, None]}) == "a: 1, –"
    assert str(score_cell({"rouge1": 40}, "rouge1")) == "40.0" and score_cell({"rouge1": None}, "rouge1").text == "–"
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
    shown = dict(run_facts(m, {}))
    assert "mine.jsonl" in shown["data: train"] and "f00dcafe" not in str(shown)
    assert "f00dcafe" in str(dict(settings(m.info))["Data"])


def test_the_quality_of_the_texts_stands_beside_the_references(page):
    table = re.search(r'<h2 id="quality">.*?<h2 id="samples">', page, re.DOTALL)[0]
    assert ">references</th>" in table and "Of 16 texts each" in table
    assert re.search(r"perplexity under the fine-tuned model.*?<td>6</td><td>2</td><td>1</td>", table, re.DOTALL)
    assert "<td>0.600 <small>(0.550 to 0.650)</small></td>" in table
    assert "<code>distinct_&lt;n&gt;</code>" in table and "Caution: " in table
    assert 'id="figure-sample_quality"' in table
    assert "sample_quality.png has not been drawn yet" in table


def test_runs_without_these_numbers_say_so(tmp_path):
    paths = write_fake_run(tmp_path, steps=(0, 10)).paths
    (paths.model_outputs / "metrics.json").write_text('{"base": {"n": 6, "loss": 2}, "tuned": {"n": 6, "texts": 6}}')
    (paths.model_outputs / "samples.jsonl").write_text('{"step": 1, "id": "a", "generated": "b"}\n')
    page = write_run_report(Measurements(paths)).read_text(encoding="utf-8")
    assert "No table: fewer than 8 texts were scored" in page
    assert "No picture: 1 text(s) a checkpoint say nothing" in page


def test_a_picture_names_the_probes_that_it_shows(root):
    m = Measurements(RunPaths("full", root))
    shown = {picture.name: _probes_shown(m, picture) for picture in PICTURES}
    entries = m.probe_set["example"]
    of = {split: sum(entry["split"] == split for entry in entries) for split in ("validation", "test")}
    assert f"{len(entries)} held-out probes ({of['validation']} of the validation split" in shown["learning_timeline"]
    assert (
        f"{of['test']} of the test split" in shown["learning_timeline"]
        and "general texts" in shown["learning_timeline"]
    )
    assert shown["weight_changes_evolution"] == ""  # weights have no probes
