import numpy as np
import pytest
import torch

from gpt2_interp.analysis.derived import most_changed, neuron_change
from gpt2_interp.measures.neurons import NeuronStatistics
from gpt2_interp.snapshots.table import NEURONS


def test_equals_loops_over_several_batches():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(6, 9, 4, generator=g)  # [example, seq, d_mlp]
    ids = torch.randint(0, 100, (6, 9), generator=g)
    spans = [[(2, 5), (0, 9)], [(4, 5), (1, 3)], [(0, 0), (8, 9)], [(1, 8), (1, 8)], [(3, 3), (0, 9)], [(6, 9), (2, 2)]]
    halves = [0, 1, 1, 0, 0, 1]
    statistics = NeuronStatistics(n_region=2, n_layer=3, d_mlp=4)
    for rows in (slice(0, 2), slice(2, 6)):
        statistics.update(1, a[rows], spans[rows], ids[rows], halves[rows])
    result = statistics.result()
    for region in range(2):
        parts = [
            (half, a[e, start:stop].double().numpy(), ids[e, start:stop].numpy())
            for e, (regions, half) in enumerate(zip(spans, halves, strict=True))
            for start, stop in [regions[region]]
            if stop > start
        ]
        for half in range(2):
            own = [x for h, x, _ in parts if h == half]
            mean = np.mean([x.mean(0) for x in own], axis=0)
            square = np.mean([(x**2).mean(0) for x in own], axis=0)
            active = np.mean([(x > 0).mean(0) for x in own], axis=0)
            np.testing.assert_allclose(result["neuron_mean"][half, region, 1], mean, atol=1e-6)
            np.testing.assert_allclose(result["neuron_sd"][half, region, 1], np.sqrt(square - mean**2), atol=1e-6)
            np.testing.assert_allclose(result["neuron_active"][half, region, 1], active, atol=1e-6)
        every, tokens = np.concatenate([x for _, x, _ in parts]), np.concatenate([t for *_, t in parts])
        np.testing.assert_allclose(result["neuron_max"][region, 1], every.max(0), atol=1e-6)
        np.testing.assert_array_equal(result["neuron_max_token"][region, 1], tokens[every.argmax(0)])


def test_every_row_of_the_table_with_its_axes():
    sizes = {"half": 2, "region": 2, "layer": 3, "d_mlp": 4}
    result = NeuronStatistics(n_region=2, n_layer=3, d_mlp=4).result()
    assert {name: values.shape for name, values in result.items()} == {
        row.name: tuple(sizes[axis] for axis in row.axes) for row in NEURONS
    }


def test_a_region_or_half_without_tokens_is_undefined():
    statistics = NeuronStatistics(n_region=1, n_layer=1, d_mlp=2)
    statistics.update(0, torch.ones(1, 3, 2), [[(1, 1)]], torch.zeros(1, 3, dtype=torch.long), [0])
    result = statistics.result()
    assert (result.pop("neuron_max_token") == -1).all()
    assert all(np.isnan(values).all() for values in result.values())
    statistics.update(0, torch.ones(1, 3, 2), [[(1, 3)]], torch.zeros(1, 3, dtype=torch.long), [1])
    mean = statistics.result()["neuron_mean"]
    assert np.isnan(mean[0]).all() and (mean[1] == 1).all()


# --- change ------------------------------------------------------------------------------------------------------


def test_change_in_standard_deviations_with_a_floor():
    rng = np.random.default_rng(0)
    mean_0, mean_t = rng.normal(size=(2, 3, 200))  # [layer, d_mlp]
    sd_0 = rng.uniform(size=(3, 200)) * [[1], [10], [0]]
    sd_0[1, 5] = 1e-9
    z = neuron_change(mean_t, mean_0, sd_0)
    for layer in range(2):
        ordered = sorted(sd_0[layer])
        floor = ordered[9] + 0.95 * (ordered[10] - ordered[9])  # between the 10th and the 11th of 200
        for neuron in (5, 17):
            expected = (mean_t[layer, neuron] - mean_0[layer, neuron]) / max(sd_0[layer, neuron], floor)
            assert z[layer, neuron] == pytest.approx(expected)
    assert abs(z[1, 5]) < 100
    assert np.isnan(z[2]).all()
    np.testing.assert_array_equal(neuron_change(mean_0, mean_0, sd_0)[:2], 0)


def test_most_changed_are_the_largest_of_each_layer():
    z = np.array([[0.1, -3, np.nan, 2], [np.nan, 0, 1, -1]])
    assert most_changed(z, 2).tolist() == [[1, 3], [2, 3]]
    assert most_changed(z, 9).tolist() == [[1, 3, 0, 2], [2, 3, 1, 0]]


def test_neurons_chosen_in_noise_have_not_changed_on_the_other_half():
    """Regression to the mean: what was chosen for being large is large on the half that it was chosen on alone."""
    rng = np.random.default_rng(0)
    mean_0, mean_t = rng.normal(size=(2, 2, 4, 3072)) / 10  # [half, layer, d_mlp], noise of the mean over tokens
    z = neuron_change(mean_t, mean_0, np.ones((2, 4, 3072)))
    chosen = most_changed(z[0], 50)
    rows = np.arange(4)[:, None]
    direction = np.sign(z[0][rows, chosen])
    assert (z[0][rows, chosen] * direction).mean() > 0.3
    assert abs((z[1][rows, chosen] * direction).mean()) < 3 * np.sqrt(2) / 10 / np.sqrt(200)
