import numpy as np
import torch

from gpt2_interp.measures.neurons import NeuronStatistics


def test_equals_loops_over_several_batches():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(6, 9, 4, generator=g)  # [example, seq, d_mlp]
    ids = torch.randint(0, 100, (6, 9), generator=g)
    spans = [[(2, 5), (0, 9)], [(4, 5), (1, 3)], [(0, 0), (8, 9)], [(1, 8), (1, 8)], [(3, 3), (0, 9)], [(6, 9), (2, 2)]]
    statistics = NeuronStatistics(n_region=2, n_layer=3, d_mlp=4)
    for rows in (slice(0, 2), slice(2, 6)):
        statistics.update(1, a[rows], spans[rows], ids[rows])
    result = statistics.result()
    for region in range(2):
        parts = [
            (a[e, start:stop].double().numpy(), ids[e, start:stop].numpy())
            for e, regions in enumerate(spans)
            for start, stop in [regions[region]]
            if stop > start
        ]
        mean = np.mean([x.mean(0) for x, _ in parts], axis=0)
        square = np.mean([(x**2).mean(0) for x, _ in parts], axis=0)
        every, tokens = np.concatenate([x for x, _ in parts]), np.concatenate([t for _, t in parts])
        np.testing.assert_allclose(result["neuron_mean"][region, 1], mean, atol=1e-6)
        np.testing.assert_allclose(result["neuron_sd"][region, 1], np.sqrt(square - mean**2), atol=1e-6)
        np.testing.assert_allclose(
            result["neuron_active"][region, 1], np.mean([(x > 0).mean(0) for x, _ in parts], axis=0), atol=1e-6
        )
        np.testing.assert_allclose(result["neuron_max"][region, 1], every.max(0), atol=1e-6)
        np.testing.assert_array_equal(result["neuron_max_token"][region, 1], tokens[every.argmax(0)])


def test_a_region_without_tokens_is_undefined():
    statistics = NeuronStatistics(n_region=1, n_layer=1, d_mlp=2)
    statistics.update(0, torch.ones(1, 3, 2), [[(1, 1)]], torch.zeros(1, 3, dtype=torch.long))
    result = statistics.result()
    assert (result.pop("neuron_max_token") == -1).all()
    assert all(np.isnan(values).all() for values in result.values())
