"""Changed neurons: chosen on one half of the probes, reported on the other."""

import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw_html import draw_html
from gpt2_interp.figures.neurons import changed_neurons, neuron_evolution, neuron_panels
from tests.fake_store import CHANGED_NEURON, HOSTILE, STEPS, write_fake_run


def test_the_planted_neuron_comes_first(measurements):
    data = neuron_evolution(measurements, per_layer=5)
    layer, neuron = CHANGED_NEURON
    assert data.neurons[layer, 0] == neuron and data.z.shape == (len(STEPS), 3, 5)
    mean, sd = (measurements.stack(name)[1][:, 1, 0] for name in ("neuron_mean", "neuron_sd"))  # second half, region Q
    scale = max(sd[0, layer, neuron], np.percentile(sd[0, layer], 5))
    expected = (mean[-1, layer, neuron] - mean[0, layer, neuron]) / scale
    assert data.z[-1, layer, 0] == pytest.approx(expected, rel=1e-4) == data.z_range


def test_chance_on_the_first_half_is_not_reported(tmp_path):
    """A neuron that only moved on the half it was chosen by is shown with the change that the other half has: none."""
    store = write_fake_run(tmp_path, steps=(0, 10))
    arrays = store.load(10)
    arrays["neuron_mean"][0, :, 2, 5] += 50
    arrays["neuron_mean"][1, :, 1, 3] += 50
    store.write(10, arrays)
    data = neuron_evolution(Measurements(store.paths), per_layer=4)
    assert data.neurons[2, 0] == 5 and abs(data.z[-1, 2, 0]) < 1 < 20 < data.z_first[-1, 2, 0]
    assert data.neurons[1, 0] != 3


def test_a_neuron_without_spread_does_not_explode(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    for step in store.steps():
        arrays = store.load(step)
        arrays["neuron_sd"][:, :, 0, 7] = 0
        store.write(step, arrays)
    m = Measurements(store.paths)
    floor = np.percentile(m.stack("neuron_sd")[1][0, 1, 0, 0], 5)
    mean = m.stack("neuron_mean")[1][:, 1, 0, 0, 7]
    assert floor > 0 and neuron_evolution(m).z[-1, 0, 0] == pytest.approx((mean[1] - mean[0]) / floor, rel=1e-4)


def test_the_table_names_the_token_and_escapes_it(measurements):
    (panel,) = neuron_panels(measurements)
    assert panel.texts[0][0].startswith("#7  +") and panel.texts[0][0].endswith(HOSTILE[:11] + "…")
    assert "on the second half" in panel.hover[0][0] and "&lt;/script&gt;" in panel.hover[0][0]
    written = draw_html(changed_neurons(measurements), measurements).data[-1].text
    assert not any("<script" in text for text in written) and any("&lt;/script&gt;" in text for text in written)


def test_without_texts_of_tokens_their_ids_are_shown(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    (store.paths.metrics / "tokens.json").unlink()
    (panel,) = neuron_panels(Measurements(store.paths))
    assert panel.texts[0][0].endswith("\nid 7")


def test_one_snapshot_has_no_change(tmp_path):
    (panel,) = neuron_panels(Measurements(write_fake_run(tmp_path, steps=(0,)).paths))
    assert not panel.values.any() and panel.limits == (-1, 1)
