"""The data that the figures draw, and that both libraries draw them."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.draw_html import draw_html, figure_page
from gpt2_interp.figures.draw_png import draw_figure, draw_png
from gpt2_interp.figures.over_time import drift_panel, temporal, temporal_panels
from gpt2_interp.figures.panels import NO_VALUE, StepAxis, highest
from gpt2_interp.figures.weights import (
    gradient_panels,
    gradients,
    matrix_panels,
    weight_changes,
    weight_panels,
)
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.statistics.intervals import bootstrap_band
from tests.fake_store import CHANGED_HEAD, STEPS, write_fake_run


def test_steps_run_as_numbers_on_every_panel(measurements):
    panels = temporal_panels(measurements)
    assert panels and not any(panel.note for panel in panels)
    for panel in panels[1:]:
        for line in panel.lines:
            np.testing.assert_array_equal(line.x, STEPS)


def test_each_head_has_its_line_and_the_planted_one_a_name_and_a_band(measurements):
    panel = temporal_panels(measurements)[2]
    assert len(panel.lines) == 12 + 1 and all(abs(line.y[0]) < 1e-9 for line in panel.lines)  # all heads, and half
    (moved,) = [line for line in panel.lines if abs(line.y[-1]) > 0.1]
    assert moved.label == "L{}·H{}".format(*CHANGED_HEAD) and (moved.low <= moved.y).all()
    assert 0 < (moved.high - moved.low)[-1] < 0.05  # of the paired change: levels differ far more between probes
    assert "at step 0" in panel.remark


def test_a_model_without_a_sink_has_a_sentence_there(tmp_path, measurements):
    assert temporal_panels(measurements)[5].lines
    store = write_fake_run(tmp_path, steps=(0, 10))
    for step in store.steps():
        arrays = store.load(step)
        arrays["attn_sink"] = np.full_like(arrays["attn_sink"], 0.002 + 0.001 * (step > 0))
        store.write(step, arrays)
    panel = temporal_panels(Measurements(store.paths))[5]
    assert not panel.lines and "no attention sink" in panel.note and "0.003" in panel.note


def test_steps_stand_at_ticks_of_snapshots_and_doubling_is_one_pace():
    axis = StepAxis([0, 1, 2, 4, 8, 200])
    np.testing.assert_allclose(axis.place(np.array([0, 0.5, 1, 2, 4, 8])), [0, 0.5, 1, 2, 3, 4])
    steps = np.array([0, 0.3, 1, 3, 200])
    np.testing.assert_allclose(axis.step(axis.place(steps)), steps)
    assert axis.labelled(3) == [0, 8, 200] and axis.labelled(99) == [0, 1, 2, 4, 8, 200]
    assert StepAxis([0, 100, 200]).place(100) == 1


def test_ticks_are_snapshots(measurements):
    figure = draw_figure(temporal(measurements), measurements)
    for ax in figure.axes:
        assert set(ax.get_xticks()) | set(ax.get_xticks(minor=True)) == set(STEPS)


def test_deeper_layers_drift_more_and_step_0_does_not(measurements):
    lines = drift_panel(measurements, "displacement", "D").lines
    np.testing.assert_allclose([line.y[0] for line in lines], 0)
    assert (np.diff([line.y[-1] for line in lines]) > 0).all()
    alike = drift_panel(measurements, "cka_debiased", "C").lines
    np.testing.assert_allclose([line.y[0] for line in alike], 1)


def test_drift_is_read_at_the_target(tmp_path):
    write_fake_run(tmp_path, steps=(0, 10), without_source=True)
    m = Measurements(RunPaths("fake", tmp_path))
    assert np.isnan(m.stack("displacement")[1][:, 0]).all()
    assert all(np.isfinite(line.y).all() for line in drift_panel(m, "displacement", "D").lines)


def test_headline_takes_the_region_and_the_pooling_that_are_claimed(measurements):
    _, whole = measurements.stack("attn_sink")  # [step, example, region, layer, head]
    np.testing.assert_array_equal(measurements.headline("attn_sink")[1], whole[:, :, 0])
    _, whole = measurements.stack("cka_debiased")  # [step, pooling, hidden_layer, reference]
    np.testing.assert_array_equal(measurements.headline("cka_debiased")[1], whole[:, 1])
    _, whole = measurements.stack("neuron_mean")  # [step, half, region, layer, d_mlp]
    np.testing.assert_array_equal(measurements.headline("neuron_mean")[1], whole[:, :, 0])


def test_bootstrap_band_covers_the_mean_and_is_wider_for_clustered_probes():
    random = np.random.default_rng(0)
    cluster = np.repeat(np.arange(20), 10)
    values = (random.normal(size=20)[cluster] + 0.1 * random.normal(size=200))[None]
    mean, low, high, name = bootstrap_band(values, [str(c) for c in cluster])
    assert low[0] < mean[0] < high[0] and name == "95% bootstrap over 20 clusters of probes"
    _, low_single, high_single, name = bootstrap_band(values, ["one"] * 200)
    assert name == "95% bootstrap over 200 probes"
    assert (high - low)[0] > 2 * (high_single - low_single)[0]
    expected = 2 * 1.96 * values[0].reshape(20, 10).mean(axis=1).std() / np.sqrt(20)
    assert abs((high - low)[0] / expected - 1) < 0.15


def test_undefined_probes_are_left_out_of_the_band():
    values = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan]])
    mean, low, high, _ = bootstrap_band(values, ["a", "b", "c"])
    assert mean[0] == 2 and 1 <= low[0] <= high[0] <= 3
    assert np.isnan([mean[1], low[1], high[1]]).all()


def test_weight_panels_put_every_matrix_in_its_place(measurements):
    panels = {panel.title: panel for panel in weight_panels(measurements)}
    assert list(panels)[-1] == "outside the layers"
    assert panels["outside the layers"].rows == ["wte", "wpe"]
    assert panels["mlp.c_fc"].columns == [str(step) for step in STEPS]
    assert panels["mlp.c_fc"].values[1, -1] == pytest.approx(highest(list(panels.values())))  # the planted matrix


def test_layers_are_rows_in_order_even_if_names_are_not():
    values = np.arange(6.0).reshape(2, 3)  # [step, matrix]
    panels = matrix_panels(["h.0.mlp.c_fc", "wte", "h.1.mlp.c_fc"], [0, 10], values)
    np.testing.assert_array_equal(panels[0].values, [[0, 3], [2, 5]])
    np.testing.assert_array_equal(panels[1].values, [[1, 4]])


def test_gradient_panels_keep_step_0_undefined(measurements):
    norm, shares = gradient_panels(measurements)
    assert len(norm.lines[0].x) == 100 and "clipped above 1" in norm.lines[1].label
    for panel in shares:
        assert np.isnan(panel.values[:, 0]).all() and np.isfinite(panel.values[:, 1:]).all()


def test_undefined_cells_are_grey_in_plotly(measurements):
    grey = [
        trace
        for trace in draw_html(gradients(measurements), measurements).data
        if trace.type == "heatmap" and trace.showscale is False
    ]
    assert grey and grey[0].colorscale[0][1] == NO_VALUE and np.isfinite(np.array(grey[0].z, dtype=float)[:, 0]).all()


def test_one_colour_range_for_all_panels(measurements):
    figure = draw_html(weight_changes(measurements), measurements)
    shown = [trace for trace in figure.data if trace.showscale is not False]
    assert {trace.coloraxis for trace in shown} == {"coloraxis"} and figure.layout.coloraxis.cmin == 0
    assert figure.layout.coloraxis.colorbar.title.text == "how far the weights moved [ratio]"


@pytest.mark.parametrize("layout", [temporal, weight_changes, gradients])
def test_png(measurements, layout):
    data = draw_png(layout(measurements), measurements)
    image = Image.open(BytesIO(data))
    image.verify()
    assert image.format == "PNG" and image.size[0] > 1000
    assert draw_png(layout(measurements), measurements) == data  # equal data, equal bytes


@pytest.mark.parametrize("layout", [temporal, weight_changes, gradients])
def test_plotly_pages_are_self_contained_and_repeatable(measurements, layout):
    page = figure_page(draw_html(layout(measurements), measurements), "name")
    assert b'<script src="' not in page and page == figure_page(draw_html(layout(measurements), measurements), "name")


def test_one_snapshot_says_so(tmp_path):
    write_fake_run(tmp_path, steps=(0,), scores=False)
    m = Measurements(RunPaths("fake", tmp_path))
    assert temporal_panels(m)[0].note == "No loss has been logged yet."
    for layout in (temporal, weight_changes, gradients):
        assert draw_png(layout(m), m)
    assert "Only one snapshot" in draw_html(weight_changes(m), m).layout.title.subtitle.text


def test_a_measure_that_is_missing_becomes_a_note(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    for step in store.steps():
        arrays = store.load(step)
        store.write(step, {name: arrays[name] for name in ("attn_entropy_norm_ns", "weight_change_relative")})
    panels = temporal_panels(Measurements(store.paths))
    assert panels[1].note and panels[3].note and panels[6].note and not panels[2].note


def test_a_damaged_snapshot_is_skipped_and_named(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10, 20))
    path = store.array_file("latent", 10)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.warns(UserWarning, match="step 10 is skipped"):
        assert list(drift_panel(Measurements(store.paths), "displacement", "D").lines[0].x) == [0, 20]


def test_an_axis_without_probes_is_not_measured(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10), control=False)
    for step in store.steps():
        store.write(step, {"control_probe_loss": np.zeros(0), "probe_loss": np.zeros(24)})
    m = Measurements(store.paths)
    with pytest.raises(InputError, match="no probes for control_probe_loss"):
        m.stack("control_probe_loss")
    assert m.has("probe_loss") and not m.has("attn_sink")


def test_no_snapshot_is_one_sentence(tmp_path):
    store = write_fake_run(tmp_path)
    for step in store.steps():
        store.manifest_file(step).unlink()
    with pytest.raises(InputError, match="no snapshot yet"):
        Measurements(store.paths)
