"""Familiar and new rows: both splits of the probes, and their difference."""

import json

import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.familiar import familiar_and_new
from gpt2_interp.statistics.intervals import difference_band
from tests.fake_store import write_fake_run


def test_both_splits_and_their_difference(tmp_path):
    m = Measurements(write_fake_run(tmp_path).paths)
    panels = {panel.title: panel for panel in familiar_and_new(m).panels}
    steps, values = m.stack("probe_loss")
    split = np.array([entry["split"] for entry in m.probe_set["example"]])
    familiar, new = (values[:, split == name].mean(axis=1) for name in ("validation", "test"))
    lines = panels["Loss"].lines
    np.testing.assert_allclose([line.y for line in lines], [familiar, new])
    assert [str((split == name).sum()) in line.label for name, line in zip(("validation", "test"), lines, strict=True)]
    difference = panels["Loss: new - familiar"].lines[0]
    np.testing.assert_allclose(difference.y, new - familiar, atol=1e-6)
    assert (difference.low <= difference.y + 1e-9).all() and (difference.y <= difference.high + 1e-9).all()


def test_a_run_of_one_split_says_what_is_missing(tmp_path):
    store = write_fake_run(tmp_path)
    described = store.probe_set()
    for entry in described["example"]:
        del entry["split"]  # as earlier versions stored them
    store.probe_file.write_text(json.dumps(described))
    with pytest.raises(InputError, match="both splits"):
        familiar_and_new(Measurements(store.paths))


def test_the_band_of_a_difference_holds_a_planted_one():
    random = np.random.default_rng(1)
    clusters = [f"cluster {k % 15}" for k in range(60)]
    shared = random.normal(size=15)[np.arange(60) % 15]
    held = 0
    for _ in range(40):
        first, second = (shared + random.normal(size=(1, 60)) for _ in range(2))
        _, low, high = difference_band(first + 0.7, clusters, second, clusters)
        held += low[0] <= 0.7 <= high[0]
    assert held >= 34
    mean, low, high = difference_band(first + 5, clusters[:8] * 7 + clusters[:4], second, ["one"] * 60)
    assert low[0] > 3 and abs(mean[0] - (first.mean() + 5 - second.mean())) < 1e-9
