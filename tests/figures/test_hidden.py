"""Maps over layers and steps: drift from the base, and the lens."""

import matplotlib
import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.draw_html import draw_html
from gpt2_interp.figures.draw_png import draw_png
from gpt2_interp.figures.hidden import DRIFT_MAPS, LENS_MAPS, drift, drift_panels, lens, lens_panels
from gpt2_interp.snapshots.table import POOLINGS
from tests.fake_store import STEPS, write_fake_run


def by_name(maps: list, panels: list) -> dict:
    """{measure: panel}, the maps at the target; {measure: panel} of the lens"""
    pairs = [(each, "target_mean") if isinstance(each, str) else each for each in maps]
    return {name: panel for (name, place), panel in zip(pairs, panels, strict=True) if place == "target_mean"}


def test_layers_are_rows_and_snapshots_columns(measurements):
    for panel in drift_panels(measurements):
        assert panel.rows == ["embedding", "layer 0", "layer 1", "layer 2"] and panel.columns == [
            str(step) for step in STEPS
        ]
        assert panel.values.shape == (4, len(STEPS)) and not panel.note.endswith("measured.")


def test_drift_grows_with_depth_and_likeness_falls(measurements):
    panels = by_name(DRIFT_MAPS, drift_panels(measurements))
    for name in ("displacement", "procrustes"):
        assert (np.diff(panels[name].values[:, -1]) > 0).all() and (panels[name].values[:, 0] == 0).all()
    for name in ("cka_debiased", "cka_within_clusters", "cka_scaled", "rsa", "knn_overlap"):
        assert (np.diff(panels[name].values[:, -1]) < 0).all() and panels[name].limits == (0, 1)
        np.testing.assert_allclose(panels[name].values[:, 0], 1)


def test_procrustes_has_its_chance_above_it_and_on_its_scale(measurements):
    panel = by_name(DRIFT_MAPS, drift_panels(measurements))["procrustes"]
    assert panel.limits == (0, pytest.approx(0.9)) and "chance 0.90" in panel.note


def test_a_colour_means_one_thing_in_all_maps(measurements):
    """Dark is as in the base, bright is far from it."""
    for name, panel in by_name(DRIFT_MAPS, drift_panels(measurements)).items():
        if name != "anisotropy":
            colors = matplotlib.colormaps[panel.colors]
            low, high = panel.limits
            first, last = (colors((value - low) / (high - low))[1] for value in panel.values[-1, [0, -1]])  # green part
            assert first == colors(colors.N - 1 if panel.colors.endswith("_r") else 0)[1] < last, name


def test_the_end_of_the_prompt_stands_below_the_target(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    arrays = store.load(10)
    arrays["cka_within_clusters"][POOLINGS.index("prompt_last")] = 0.07
    store.write(10, arrays)
    panels = dict(zip(DRIFT_MAPS, drift_panels(Measurements(store.paths)), strict=True))
    at_end, at_target = panels["cka_within_clusters", "prompt_last"], panels["cka_within_clusters", "target_mean"]
    assert at_end.values[:, -1] == pytest.approx(0.07) and at_target.values[:, -1].min() > 0.4
    assert "prompt" in at_end.note and "target" in at_target.note
    names = [name for name, _ in DRIFT_MAPS]
    assert names[:3] == names[3:6]


def test_half_samples_are_told_where_there_are_some(measurements):
    panels = by_name(DRIFT_MAPS, drift_panels(measurements))
    cka = panels["cka_debiased"].hover[3][-1]
    assert cka.startswith("layer 2, step 1000: 0.55") and "half-samples 0.5 to 0.6" in cka
    assert "half-samples" not in panels["displacement"].hover[3][-1]
    assert "chance 0.43" in panels["knn_overlap"].note  # 10 / 23


def test_the_reference_is_step_0_and_not_the_snapshot_before(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    for step in store.steps():
        arrays = store.load(step)
        arrays["cka_debiased"][..., 1] = -5
        store.write(step, arrays)
    assert drift_panels(Measurements(store.paths))[1].values.min() > 0


def test_what_is_missing_is_said(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    for step in store.steps():
        arrays = store.load(step)
        store.write(step, {name: arrays[name] for name in ("cka_debiased", "lens_kl")})
    m = Measurements(store.paths)
    panels = by_name(DRIFT_MAPS, drift_panels(m))
    assert panels["rsa"].note == "rsa was not measured." and not panels["rsa"].values.size
    assert "half-samples" not in panels["cka_debiased"].hover[0][0]
    assert draw_png(drift(m), m) and draw_html(drift(m), m) and draw_png(lens(m), m)
    store.write(0, {"probe_loss": np.zeros(24)})
    store.write(10, {"probe_loss": np.zeros(24)})
    for panels_of in (drift_panels, lens_panels):
        with pytest.raises(InputError, match="did not measure"):
            panels_of(Measurements(store.paths))


def test_the_lens_and_the_bases_are_on_one_scale(measurements):
    panels = by_name(LENS_MAPS, lens_panels(measurements))
    for name in ("logprob", "kl"):
        assert panels[f"lens_{name}"].limits == panels[f"lens_base_{name}"].limits
    for name, planted in (("lens_logprob", 2), ("lens_base_logprob", 1)):
        values = panels[name].values
        np.testing.assert_allclose(values[:, -1] - values[:, 0], planted, atol=0.02)
    assert panels["lens_kl"].limits[0] == 0
