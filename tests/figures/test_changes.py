"""Maps of changed heads: coloured beyond noise only, framed where they count."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.changes import HEAD_MEASURES, cell_state, head_change_panels, head_changes_layout
from gpt2_interp.figures.draw_html import draw_html
from gpt2_interp.figures.panels import INSIDE, NO_BAND, SHOWN, WITHIN
from gpt2_interp.snapshots.table import MEASURE
from tests.fake_store import CHANGED_HEAD, STYLE_HEAD, write_fake_run

STILL = ("prev_token", "duplicate")  # measures in which no head was made to change


def by_name(m: Measurements) -> dict:
    panels = head_change_panels(m)
    return dict(zip((*HEAD_MEASURES, "ablation_exact"), panels, strict=True))


def test_one_map_for_each_claimed_measure_of_heads():
    asked = "attn_source_ns attn_gold_lift attn_source_normw head_write attn_entropy_norm_ns attn_distance_ns"
    assert set(HEAD_MEASURES) == {*asked.split(), "attn_sink", "attn_kl0", "induction", "prev_token", "duplicate"}


def test_only_the_planted_heads_are_coloured_and_framed(measurements):
    for name, panel in by_name(measurements).items():
        planted = {"attn_sink": [STYLE_HEAD], **dict.fromkeys(STILL, [])}.get(name, [CHANGED_HEAD])
        assert [tuple(cell) for cell in np.argwhere(panel.state == SHOWN)] == planted, name
        assert [tuple(cell) for cell in np.argwhere(panel.outlined)] == planted, name
        assert np.isfinite(panel.cells(INSIDE)).sum() == 12 - len(planted)
        low, high = panel.limits
        assert panel.diverging == (name != "attn_kl0") and high >= np.abs(panel.values).max() - 1e-9
        assert low == (0 if name == "attn_kl0" else -high)  # what can't be negative has no colours for it


def test_values_hover_and_count(measurements):
    panel = by_name(measurements)["attn_source_ns"]
    assert panel.values[CHANGED_HEAD] == pytest.approx(0.35, abs=0.01)
    assert panel.title == "Attention to the article: 1 of 12"
    layer, head = CHANGED_HEAD
    said = panel.hover[layer][head]
    assert (
        said.startswith("layer 1, head 2<br>+0.35")
        and "times its noise" in said
        and "half of it by step 1000" in said
        and "counted" in said
    )


def test_the_scale_of_a_map_reaches_the_smallest_effect(measurements):
    """So that a tiny change is never dark."""
    panel = by_name(measurements)["prev_token"]
    assert panel.limits[1] >= MEASURE["prev_token"].smallest


@pytest.mark.parametrize(
    ("times_noise", "beyond_noise", "large", "state"),
    [(9.0, True, True, SHOWN), (9.0, True, False, INSIDE), (2.0, False, True, INSIDE), (None, False, True, NO_BAND)],
)
def test_when_a_cell_is_coloured(times_noise, beyond_noise, large, state):
    assert cell_state({"times_noise": times_noise, "beyond_noise": beyond_noise, "large": large}) == state


def test_without_a_band_nothing_is_coloured_or_framed(tmp_path):
    m = Measurements(write_fake_run(tmp_path, steps=(0, 10), tiers=("light",)).paths)
    panels = by_name(m)
    for name in HEAD_MEASURES:
        assert (panels[name].state == NO_BAND).all() and not panels[name].outlined.any()
        assert "no band" in panels[name].note
    assert panels["ablation_exact"].note == "ablation_exact was not measured."
    coloured = [trace for trace in draw_html(head_changes_layout(m), m).data if trace.colorbar.thickness]
    assert len(coloured) == len(HEAD_MEASURES)
    assert not any(np.isfinite(np.array(trace.z, dtype=float)).any() for trace in coloured)


def test_pale_cells_have_no_colour_in_plotly(measurements):
    layout = head_changes_layout(measurements)
    without_kinds = replace(layout, panels=layout.panels[: len(HEAD_MEASURES) + 1])
    maps = [trace for trace in draw_html(without_kinds, measurements).data if trace.type == "heatmap"]
    pale = [trace for trace in maps if trace.colorscale[0][1] == WITHIN]
    assert len(pale) == len(HEAD_MEASURES) + 1
    assert sum(np.isfinite(np.array(trace.z, dtype=float)).sum() for trace in pale) == 12 * 12 - 10


def test_ablation_is_framed_where_the_head_matters(measurements):
    panel = by_name(measurements)["ablation_exact"]
    assert panel.values[CHANGED_HEAD] == pytest.approx(0.4, abs=0.02)
    assert "before training" in panel.hover[1][2] and panel.state[0, 0] == INSIDE
    matters = {
        tuple(int(label) for label in change["unit"].values())
        for change in measurements.claims["changes"]
        if change["head_matters"]
    }
    assert {tuple(cell) for cell in np.argwhere(panel.outlined)} == matters and CHANGED_HEAD in matters


def test_an_undefined_change_has_no_value(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    path = store.paths.metrics / "claims.json"
    claims = json.loads(path.read_text())
    unit = {"layer": "2", "head": "3"}
    change = next(c for c in claims["changes"] if c["measure"] == "attn_sink" and c["unit"] == unit)
    change.update(change=None, low=None, high=None, before=None, after=None)
    path.write_text(json.dumps(claims))
    panel = by_name(Measurements(store.paths))["attn_sink"]
    assert np.argwhere(np.isnan(panel.values)).tolist() == [[2, 3]]


def test_why_there_is_nothing_to_draw(tmp_path):
    store = write_fake_run(tmp_path, steps=(0,))
    with pytest.raises(InputError, match="only one snapshot"):
        head_change_panels(Measurements(store.paths))
    (store.paths.metrics / "claims.json").unlink()
    with pytest.raises(InputError, match="claims.json is missing"):
        head_change_panels(Measurements(store.paths))


def test_a_sign_stands_where_the_change_matters(tmp_path):
    store = write_fake_run(tmp_path, steps=(0, 10))
    path = store.paths.metrics / "claims.json"
    claims = json.loads(path.read_text())
    words = iter(("helps", "no", None))
    for change in claims["changes"]:
        if change["measure"] == "attn_sink" and change["unit"]["layer"] == "0":
            change["change_matters"] = next(words, "hurts")
    path.write_text(json.dumps(claims))
    panel = by_name(Measurements(store.paths))["attn_sink"]
    assert panel.texts == [["+", "", "", "-"], [""] * 4, [""] * 4]
