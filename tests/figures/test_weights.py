"""Spectra of the weight change: the planted matrix changed in 2 directions and has 3 intruders."""

import numpy as np
import pytest

from gpt2_interp.analysis.derived import CURVE
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.draw_html import draw_html
from gpt2_interp.figures.draw_png import draw_png
from gpt2_interp.figures.weights import intruder_panels, rank_panels, spectra, spectrum_panels
from tests.fake_store import write_fake_run


def test_stable_rank_at_the_heavy_snapshots_only(measurements):
    panels = {panel.title: panel for panel in rank_panels(measurements)}
    assert panels["mlp.c_fc"].columns == ["0", "100", "1000"]
    assert np.isnan(panels["mlp.c_fc"].values[:, 0]).all()
    np.testing.assert_array_equal(panels["mlp.c_fc"].values[:, -1], [8, 2, 8])


def test_spectra_are_of_the_last_heavy_snapshot(measurements):
    panels = {panel.title: panel for panel in spectrum_panels(measurements)}
    panel = panels["mlp.c_fc, step 1000"]
    assert panel.log_y and [line.label for line in panel.lines] == ["layer 0", "layer 1", "layer 2"]
    planted, other = panel.lines[1].y, panel.lines[0].y
    assert list(panel.lines[1].x[:3]) == [1, 2, 3] and planted[1] > 10 * planted[2] and other[1] < 2 * other[2]
    assert [line.label for line in panels["outside the layers, step 1000"].lines] == ["wte", "wpe"]


def test_planted_intruders(measurements):
    table, curve = intruder_panels(measurements)
    expected = np.zeros((3, 6))
    expected[1, table.columns.index("mlp.c_fc")] = 3
    np.testing.assert_array_equal(table.values, expected)
    assert table.texts[1][table.columns.index("mlp.c_fc")] == "3" and table.limits == (0, 3)
    line = next(line for line in curve.lines if line.label == "mlp.c_fc")
    assert line.y[np.searchsorted(CURVE, 0.5)] == pytest.approx(1)  # 3 of one of three matrices
    assert line.y[-1] == 10 and (np.diff(line.y) >= 0).all()


def test_light_snapshots_have_no_spectra(tmp_path):
    m = Measurements(write_fake_run(tmp_path, steps=(0, 10), tiers=("light",)).paths)
    with pytest.raises(InputError, match="stable_rank"):
        draw_png(spectra(m), m)


def test_one_snapshot_has_nothing_on_a_logarithmic_axis(tmp_path):
    m = Measurements(write_fake_run(tmp_path, steps=(0,)).paths)
    assert all(panel.note == "These matrices have not changed." for panel in spectrum_panels(m))
    assert draw_png(spectra(m), m) and draw_html(spectra(m), m)


def test_without_intruders_the_ranks_are_drawn(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    for step in store.steps():
        store.write(step, {"stable_rank": store.load(step)["stable_rank"]})
    m = Measurements(store.paths)
    assert intruder_panels(m)[0].note == "intruder_cosine was not measured." and spectrum_panels(m) == []
    assert draw_png(spectra(m), m) and draw_html(spectra(m), m)
