"""The timeline: what was learned, from the planted losses, gains, twins and movements."""

import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw_html import draw_html
from gpt2_interp.figures.draw_png import draw_png
from gpt2_interp.figures.learning import general_text, timeline, timeline_panels
from tests.fake_store import STEPS, write_fake_run


def test_every_loss_is_there_and_goes_where_it_was_planted(measurements):
    lines = {line.label.split(" (")[0]: line for line in timeline_panels(measurements)[0].lines}
    assert list(lines) == ["train", "evaluation", "probes", "rows trained on", "general text"]
    change = {name: line.y[-1] - line.y[0] for name, line in lines.items()}
    assert change["probes"] == pytest.approx(-2, abs=0.02) and change["rows trained on"] < change["probes"]
    assert change["general text"] == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(lines["probes"].x, STEPS)


def test_gain_is_larger_for_copied_tokens_and_has_a_band(measurements):
    panel = timeline_panels(measurements)[2]
    gain, copied, new, none = panel.lines
    assert copied.y[-1] > gain.y[-1] > new.y[-1] > none.y[-1] == 0 and none.dashed
    for line in (gain, copied, new):
        assert (line.low <= line.y).all() and (line.y <= line.high).all()
    assert "12 clusters" in panel.remark


@pytest.mark.parametrize(("change", "word"), [(4.2, "forgotten"), (0.01, "kept"), (-0.5, "better")])
def test_what_became_of_general_text_is_named(tmp_path, change, word):
    store = write_fake_run(tmp_path, steps=(0, 10))
    for step in store.steps():
        arrays = store.load(step)
        arrays["control_probe_loss"] = 0.44 + (step > 0) * change + 0 * arrays["control_probe_loss"]
        store.write(step, arrays)
    said = general_text(Measurements(store.paths))
    assert said == f"general text: 0.44 to {0.44 + change:.2f} nats/token: {word}"
    assert said in timeline_panels(Measurements(store.paths))[0].remark


def test_general_text_that_was_measured_once_is_not_judged(tmp_path):
    assert general_text(Measurements(write_fake_run(tmp_path, steps=(0,)).paths)) == ""


def test_twins_start_at_chance(measurements):
    effect, accuracy = timeline_panels(measurements)[4:6]
    assert effect.lines[0].y[-1] == pytest.approx(3, abs=0.02)
    assert accuracy.lines[0].y[0] == 0.25 and accuracy.lines[0].y[-1] == 0.75
    assert (accuracy.lines[1].y == 0.25).all() and accuracy.lines[1].label == "chance 0.25"


def test_general_text_moves_less_on_the_same_scale(measurements):
    probes, general = timeline_panels(measurements)[6:]
    assert probes.y_limits == general.y_limits
    assert general.lines[-1].y[-1] == pytest.approx(probes.lines[-1].y[-1] / 4, abs=0.02)


def test_without_twins_and_general_text_it_says_so(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10), control=False, twins=False)
    m = Measurements(store.paths)
    losses, _, gain, _, effect, accuracy, probes, general = timeline_panels(m)
    assert not any("general text" in line.label for line in losses.lines)
    assert [panel.note for panel in (gain, probes)] == ["", ""]
    assert effect.note == "twin_effect was not measured." and accuracy.note == "twin_right was not measured."
    assert general.note == "control_hidden_displacement was not measured." and not general.lines
    assert (
        draw_png(timeline(m), m) and len(draw_html(timeline(m), m).layout.annotations) == 11
    )  # eight titles, three notes


def test_one_snapshot_draws(tmp_path):
    m = Measurements(write_fake_run(tmp_path, steps=(0,)).paths)
    assert draw_png(timeline(m), m) and draw_html(timeline(m), m)
