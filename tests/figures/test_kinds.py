"""Means taken apart by kind of token: the planted factors, and runs that have no kinds."""

import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.changes import head_changes_layout
from gpt2_interp.figures.draw_html import draw_html
from gpt2_interp.figures.draw_png import draw_png
from gpt2_interp.figures.hidden import lens
from gpt2_interp.figures.kinds import (
    ablation_maps,
    fall_by_kind,
    graft_by_kind,
    kind_name,
    kind_panels,
    lens_maps,
    shares_of_the_fall,
)
from gpt2_interp.figures.learning import timeline, timeline_panels
from gpt2_interp.figures.panels import INSIDE, SHOWN
from tests.fake_store import CARRYING_BLOCK, CHANGED_HEAD, KIND_FACTORS, STEPS, write_fake_run

NAMES = ["first token of a value", "rest of a value", "other words of the source", "template words", "all tokens"]


def relabelled(root, labels: list[str], without: str | tuple[str, ...] = ()) -> Measurements:
    """A run of two steps whose kinds have these labels; without: arrays whose name ends with that are taken out."""
    store = write_fake_run(root, steps=(0, 10))
    run, probes = store.run_info(), store.probe_set()
    store.create({**run, "axes": {**run["axes"], "token_kind": labels}})
    probes["token_kinds"] = [dict(zip(labels, one.values(), strict=True)) for one in probes["token_kinds"]]
    store.write_probe_set(probes)
    for step in store.steps() if without else ():
        arrays = store.load(step)
        store.write(step, {name: array for name, array in arrays.items() if not name.endswith(without)})
    return Measurements(store.paths)


def test_every_kind_has_a_line_with_its_name_at_the_end(measurements):
    for name in ("probe_loss", "context_gain"):
        (panel,) = kind_panels(measurements, name, "Mean")
        assert [line.label for line in panel.lines] == NAMES and panel.end_labels
        over_all = panel.lines[-1]
        np.testing.assert_allclose(over_all.y, measurements.stack(name)[1].mean(axis=1), rtol=1e-5)
        for line, factor in zip(panel.lines, [*KIND_FACTORS[1:], 1.0], strict=True):
            np.testing.assert_allclose(line.y, factor * over_all.y, rtol=1e-4)
            assert (line.low <= line.y).all() and (line.y <= line.high).all()
            assert line.dashed == (line is over_all)
        np.testing.assert_array_equal(over_all.x, STEPS)
    assert [panel.title.split(" (")[0] for panel in timeline_panels(measurements)[1:4:2]] == [
        "Loss by kind of token", "Gain by kind of token",
    ]  # fmt: skip


def test_slots_stand_beside_the_twins(tmp_path):
    m = relabelled(tmp_path, ["all", "value_first", "value_rest", "value_first who", "value_first how_many"])
    panels = timeline_panels(m)
    assert [panel.title.split(" (")[0] for panel in panels[4:8]] == [
        "Twins: effect of one swapped fact", "Loss by slot, first tokens of values",
        "Twins: both orders right", "Gain by slot, first tokens of values",
    ]  # fmt: skip
    assert [line.label for line in panels[5].lines] == ["who", "how many", "all tokens"]
    assert kind_name("value_first how_many") == "first token of how many"
    assert draw_png(timeline(m), m) and draw_html(timeline(m), m)


def test_plain_text_is_divided_twice(tmp_path):
    labels = ["all", "position 0-15", "position 16-63", "frequent", "rare"]
    gains = tuple(f"context_gain{end}" for end in ("", "_copied", "_new", "_by_kind"))
    m = relabelled(tmp_path, labels, without=gains)
    position, frequency = kind_panels(m, "probe_loss", "Loss", log_y=True)
    assert [line.label for line in position.lines] == ["position 0-15", "position 16-63", "all tokens"]
    assert [line.label for line in frequency.lines] == ["frequent words", "rare words", "all tokens"]
    titles = [panel.title.split(" (")[0] for panel in timeline_panels(m)]
    assert titles[1:4:2] == ["Loss by position in the text", "Loss by frequency of the word"] and len(titles) == 8


def test_a_division_without_a_number_is_left_out(tmp_path):
    """A mixture: a text without a source has a loss by position, and no gain."""
    m = relabelled(tmp_path, ["all", "copied", "new", "position 0-15", "rare"])
    steps, values = m.stack("context_gain_by_kind")
    m._stacks["context_gain_by_kind"] = steps, np.where(np.arange(5) < 3, values, np.nan)
    titles = [panel.title.split(" (")[0] for panel in timeline_panels(m)]
    assert titles[1:4:2] == ["Loss by kind of token", "Gain by kind of token"]
    assert titles[8:] == ["Loss by position in the text", "Loss by frequency of the word"]
    m._stacks["context_gain_by_kind"] = steps, np.full_like(values, np.nan)
    assert "undefined" in timeline_panels(m)[3].note


def test_the_parts_of_the_fall_add_up_to_it(measurements):
    of_tokens, of_fall = shares_of_the_fall(measurements)
    np.testing.assert_allclose(of_tokens, [1, 1 / 12, 1 / 12, 4 / 12, 6 / 12])
    expected = of_tokens * KIND_FACTORS
    np.testing.assert_allclose(of_fall[:, 0], expected, rtol=1e-3)
    assert of_fall[1:, 0].sum() == pytest.approx(1, abs=1e-3)
    assert (of_fall[:, 1] <= of_fall[:, 0] + 1e-12).all() and (of_fall[:, 0] <= of_fall[:, 2] + 1e-12).all()
    tokens, fall, first, last = fall_by_kind(measurements).panels
    assert tokens.rows == NAMES[:-1]
    np.testing.assert_allclose(fall.values, 100 * expected[1:], rtol=1e-3)
    loss = measurements.stack("probe_loss")[1].mean(axis=1)
    for panel, mean in ((first, loss[0]), (last, loss[-1])):
        np.testing.assert_allclose(panel.values, mean * np.array(KIND_FACTORS[1:]), rtol=1e-4)
    assert "step 0" in first.title and "step 1000" in last.title


def test_shares_of_the_fall_by_hand(tmp_path):
    """Two probes of which only one has a value; the token at position 0 is no loss of any kind."""
    m = relabelled(tmp_path, ["all", "value_first", "template", "rare", "frequent"])
    falls = np.full((24, 5), np.nan)
    falls[:, [0, 2]] = 2.0
    falls[0, :3] = 3.0, 9.0, 1.0
    labels = m.labels("token_kind")
    whole = dict(zip(labels, ([5, 6, 7, 8], [], [5, 6, 7, 8], [], []), strict=True))
    text = dict(zip(labels, ([0, 1, 2, 3, 4], [1], [0, 2, 3, 4], [0], []), strict=True))
    m.probe_set["token_kinds"] = [text, *[whole] * 23]
    m._stacks["probe_loss_by_kind"] = ([0, 10], np.stack([falls, np.zeros_like(falls)]))
    of_tokens, of_fall = shares_of_the_fall(m)
    np.testing.assert_allclose(of_tokens, [1, 1 / 4 / 24, (23 + 3 / 4) / 24, 0, 0])
    total = 3 + 23 * 2
    np.testing.assert_allclose(of_fall[:, 0], [1, 9 / 4 / total, (3 / 4 + 23 * 2) / total, 0, 0])


def test_a_loss_that_did_not_fall_has_no_shares(tmp_path):
    m = Measurements(write_fake_run(tmp_path, steps=(0,)).paths)
    with pytest.raises(InputError, match="did not fall"):
        fall_by_kind(m)


def test_maps_of_kinds_share_one_scale(measurements):
    maps = lens_maps(measurements)
    assert [panel.title.removeprefix("Log-probability: ") for panel in maps] == NAMES[:-1]
    assert len({panel.limits for panel in maps}) == 1 and maps[0].limits[1] == 0
    _, values = measurements.stack("lens_logprob")
    for panel, factor in zip(maps, KIND_FACTORS[1:], strict=True):
        np.testing.assert_allclose(panel.values, factor * values.mean(axis=1).T, rtol=1e-4)
        assert panel.limits[0] <= panel.values[1:].min()
    heads = ablation_maps(measurements)
    assert len({panel.limits for panel in heads}) == 1
    for panel, factor in zip(heads, KIND_FACTORS[1:], strict=True):
        assert panel.values[CHANGED_HEAD] == pytest.approx(0.4 * factor, abs=0.03)
        assert panel.state[CHANGED_HEAD] == SHOWN and (panel.state == INSIDE).sum() > 6
        assert panel.texts[CHANGED_HEAD[0]][CHANGED_HEAD[1]] == f"{panel.values[CHANGED_HEAD]:.2f}"
    assert head_changes_layout(measurements).panels[-4].title == heads[0].title
    assert draw_png(lens(measurements), measurements)


def test_grafts_of_kinds(measurements):
    layout = graft_by_kind(measurements)
    for panel in layout.panels:
        assert panel.columns == [NAMES[-1], *NAMES[:-1]]
        row = panel.values[panel.rows.index(CARRYING_BLOCK)]
        np.testing.assert_allclose(row, 0.72 * np.array(KIND_FACTORS), atol=0.03)
        assert "-0.00" not in {text for line in panel.texts for text in line}
    assert draw_png(layout, measurements) and draw_html(layout, measurements)


@pytest.mark.parametrize("labels", [["all", "value_first", "value_rest", "copied", "template"], ["all"]])
def test_a_run_without_kinds_has_the_old_pictures_and_a_sentence(tmp_path, labels):
    m = relabelled(tmp_path, ["all", "value_first", "value_rest", "copied", "template"], without="_by_kind")
    if labels == ["all"]:
        del m.info["axes"]["token_kind"]
    for name in ("probe_loss", "context_gain"):
        (panel,) = kind_panels(m, name, "Mean")
        assert not panel.lines and f"{name}_by_kind" in panel.note
    assert "lens_logprob_by_kind" in lens_maps(m)[0].note and "ablation_exact_by_kind" in ablation_maps(m)[0].note
    assert draw_png(timeline(m), m) and draw_png(lens(m), m)
    for layout in (fall_by_kind, graft_by_kind):
        with pytest.raises(InputError, match="did not measure"):
            layout(m)
