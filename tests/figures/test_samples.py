"""The samples' quality over the checkpoints, from the planted texts: they begin as one phrase over and over."""

import copy
import json

import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.draw_html import draw_html
from gpt2_interp.figures.draw_png import draw_png
from gpt2_interp.figures.samples import BASE, REFERENCES, SAMPLES, UNRECORDED, sample_panels, sample_quality
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.statistics.texts import distinct_n, equal_size, n_words, repetition, self_bleu
from tests.fake_store import N_SAMPLES, STEPS, fake_samples

NAMES = ("perplexity", "distinct", "self_bleu", "repetition", "words", "finished")


@pytest.fixture
def with_samples(measurements, tmp_path):
    """with_samples(lines): the fake run with other samples."""

    def make(lines) -> Measurements:
        m = copy.copy(measurements)
        m.paths = RunPaths("fake", tmp_path)
        m.paths.model_outputs.mkdir(parents=True)
        (m.paths.model_outputs / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return m

    return make


def lines_of(panel):
    return {line.label: line for line in panel.lines}


def test_every_panel_has_samples_base_and_references(measurements):
    panels, n = sample_panels(measurements)
    assert n == N_SAMPLES and len(panels) == len(NAMES) and not any(panel.note for panel in panels)
    for panel in panels:
        lines = lines_of(panel)
        assert list(lines) == [SAMPLES, BASE, REFERENCES]
        samples = lines[SAMPLES]
        np.testing.assert_array_equal(samples.x, STEPS)
        assert (samples.low <= samples.y).all() and (samples.y <= samples.high).all()
        assert (lines[BASE].y == samples.y[0]).all() and lines[BASE].dashed and lines[REFERENCES].dashed


def test_the_numbers_are_those_of_the_texts(measurements):
    panels = dict(zip(NAMES, sample_panels(measurements)[0], strict=True))
    rows = {step: fake_samples(step, step / STEPS[-1]) for step in STEPS}
    texts = [[row["generated"] for row in rows[step]] for step in STEPS]
    human = [row["reference_cut"] for row in rows[0]]
    size = equal_size([*texts, human], 2)
    assert str(size) in panels["distinct"].y_label
    expected = {
        "distinct": lambda found: distinct_n(found, 2, size),
        "self_bleu": self_bleu,
        "repetition": lambda found: np.mean([repetition(text) for text in found]),
        "words": lambda found: np.mean([n_words(text) for text in found]),
    }
    for name, number in expected.items():
        lines = lines_of(panels[name])
        assert lines[SAMPLES].y == pytest.approx([number(found) for found in texts])
        assert lines[REFERENCES].y == pytest.approx([number(human)] * 2)
    perplexity, finished = lines_of(panels["perplexity"]), lines_of(panels["finished"])
    nll = [sum(row["nll"] for row in rows[step]) / sum(row["tokens"] for row in rows[step]) for step in STEPS]
    assert perplexity[SAMPLES].y == pytest.approx(np.exp(nll))
    assert perplexity[REFERENCES].y == pytest.approx([np.exp(6 - 4 * step / STEPS[-1]) for step in STEPS])
    assert panels["perplexity"].log_y  # from e^6 to e
    assert finished[SAMPLES].y[[0, -1]].tolist() == [0, 1] and finished[SAMPLES].high[0] > 0.1
    assert finished[REFERENCES].y[0] == 15 / 16


def test_what_was_planted_shows(measurements):
    panels = dict(zip(NAMES, sample_panels(measurements)[0], strict=True))
    for name, sign in (("distinct", 1), ("self_bleu", -1), ("repetition", -1), ("finished", 1)):
        samples = lines_of(panels[name])[SAMPLES]
        assert sign * (samples.y[-1] - samples.y[0]) > 0.3
        first, last = (samples.low, samples.high) if sign < 0 else (samples.high, samples.low)
        assert sign * (last[-1] - first[0]) > 0  # bounds apart


def test_drawn_by_both_libraries_with_the_number_of_texts(measurements):
    layout = sample_quality(measurements)
    assert draw_png(layout, measurements).startswith(b"\x89PNG")
    assert draw_png(layout, measurements) == draw_png(sample_quality(measurements), measurements)
    figure = draw_html(sample_quality(measurements), measurements)
    assert f"{N_SAMPLES} texts a checkpoint" in figure.layout.title.text
    assert sum(bool(trace.showlegend) for trace in figure.data) == 3


def test_too_few_texts_draw_nothing_and_say_so(with_samples):
    lines = [line for step in (0, 50) for line in fake_samples(step, 0.5, n=7)]
    with pytest.raises(InputError, match=r"^7 text\(s\) a checkpoint say nothing .* --samples_per_checkpoint 8"):
        sample_panels(with_samples(lines))


def test_no_samples_yet(with_samples):
    with pytest.raises(InputError, match="no samples yet"):
        sample_panels(with_samples([]))


def test_files_of_earlier_versions_are_readable(with_samples):
    old = ("step", "id", "prompt", "reference", "generated")
    lines = [{key: line[key] for key in old} for step in (50, 100) for line in fake_samples(step, step / 100)]
    panels, _ = sample_panels(with_samples(lines))
    notes = dict(zip(NAMES, (panel.note for panel in panels), strict=True))
    assert notes["perplexity"] == notes["finished"] == UNRECORDED
    for name, panel in zip(NAMES, panels, strict=True):
        assert list(lines_of(panel)) == ([] if notes[name] else [SAMPLES])  # no base, and references of another length


def test_a_checkpoint_that_is_being_written_is_left_out(with_samples):
    lines = [*fake_samples(0, 0), *fake_samples(50, 1), *fake_samples(100, 1)[:9]]
    panels, _ = sample_panels(with_samples([*lines, {"step": 50, "generated": None}, {"step": "x"}, {}]))
    assert all(line.x.max() == 50 for panel in panels for line in panel.lines)


def test_empty_texts(with_samples):
    lines = [{**line, "generated": "" if step == 0 else line["generated"]} for step in (0, 50) for line in
             fake_samples(step, 1)]  # fmt: skip
    m = with_samples(lines)
    panels = dict(zip(NAMES, sample_panels(m)[0], strict=True))
    assert lines_of(panels["words"])[SAMPLES].y[0] == 0
    for name in ("distinct", "self_bleu", "repetition"):
        samples = lines_of(panels[name])[SAMPLES]
        assert np.isnan(samples.y[0]) and np.isfinite(samples.y[1]) and BASE not in lines_of(panels[name])
    assert draw_png(sample_quality(m), m) and draw_html(sample_quality(m), m)


def test_facts_of_the_samples_have_a_panel_where_they_are_known(with_samples):
    lines = [
        row | {"facts": 4, "facts_stated": step // 250, "values_written": 3 * (step > 0), "values_right": step // 250}
        for step in (0, 250, 500)
        for row in fake_samples(step, step / 500)
    ]
    panels, _ = sample_panels(with_samples(lines))
    assert len(panels) == len(NAMES) + 1
    recall, precision = panels[-1].lines
    assert recall.y.tolist() == [0, 25, 50]
    assert np.isnan(precision.y[0]) and precision.y[1:] == pytest.approx([100 / 3, 200 / 3])
