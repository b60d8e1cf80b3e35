"""What the moving pictures show: planted effects, fixed colour ranges, frames in step order."""

from io import BytesIO

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.projection import project
from gpt2_interp.figures.attention_patterns import pattern_evolution, readable
from gpt2_interp.figures.draw_html import draw_html
from gpt2_interp.figures.gif import draw_gif, gif_bytes
from gpt2_interp.figures.heads import head_evolution
from gpt2_interp.figures.latent import MOST_CLUSTERS, LatentSpace, color_groups, equal_ranges
from gpt2_interp.figures.neurons import neuron_evolution
from gpt2_interp.run_paths import RunPaths
from tests.fake_store import CHANGED_HEAD, STEPS, TOKENS, write_fake_run


@pytest.fixture(scope="module")
def projection(measurements):
    states = measurements.stack("hidden_pooled")[1][:, :, 1, -1].astype(np.float32)
    states[:, 3] = np.nan
    return project(states, list(STEPS), "pca")


def check_gif(data: bytes, frames: int) -> Image.Image:
    image = Image.open(BytesIO(data))
    assert image.format == "GIF" and image.n_frames == frames and image.info["loop"] == 0
    return image


def test_gif_keeps_frames_colours_and_milliseconds():
    frames = [np.full((20, 30, 3), value, dtype=np.uint8) for value in (0, 120, 240)]
    data = gif_bytes(frames, [300, 400, 500])
    image = check_gif(data, 3)
    durations = []
    for i in range(3):
        image.seek(i)
        durations.append(image.info["duration"])
    assert durations == [300, 400, 500]
    np.testing.assert_array_equal(imageio.imread(data, index=None, extension=".gif")[:, 0, 0, 0], [0, 120, 240])


def test_a_colour_means_the_same_in_every_frame():
    ramp = np.linspace(0, 255, 256, dtype=np.uint8)
    bar = np.stack([ramp, 255 - ramp, np.full(256, 90, dtype=np.uint8)], axis=-1)  # a colour bar on a large background
    frames = [np.full((80, 256, 3), 255, dtype=np.uint8) for _ in range(4)]
    for i, frame in enumerate(frames):
        frame[:2] = bar
        frame[10 : 20 + 10 * i] = (200, 30, 30)
    read = imageio.imread(gif_bytes(frames, [500] * 4), index=None, extension=".gif")[..., :3].astype(int)
    np.testing.assert_array_equal(read[0, :2], read[3, :2])
    assert np.abs(read - np.stack(frames)).max() <= 10


def test_the_planted_head_is_the_one_that_changed(measurements):
    data = head_evolution(measurements)
    assert data.steps == list(STEPS)
    assert np.unravel_index(np.abs(data.change[-1]).argmax(), data.change.shape[1:]) == CHANGED_HEAD
    assert data.change[-1][CHANGED_HEAD] == pytest.approx(-2, abs=0.02) and not data.change[0].any()
    assert data.change_range == pytest.approx(2, abs=0.02)
    assert data.entropy_range == (pytest.approx(data.entropy.min()), pytest.approx(data.entropy.max()))


def test_head_gif(measurements):
    check_gif(draw_gif(head_evolution(measurements), measurements), len(STEPS))


def test_head_page_has_equal_colour_ranges_and_steps_in_order(measurements):
    figure = draw_html(head_evolution(measurements), measurements)
    assert [frame.name for frame in figure.frames] == [str(step) for step in STEPS]
    assert [step.label for step in figure.layout.sliders[0].steps] == [str(step) for step in STEPS]
    for column in (0, 1):
        assert len({(frame.data[column].zmin, frame.data[column].zmax) for frame in figure.frames}) == 1
    assert figure.data[1].zmin == -figure.data[1].zmax


def test_patterns_show_the_heads_that_changed_most(measurements):
    data = pattern_evolution(measurements)
    assert data.heads[0] == CHANGED_HEAD and len(data.heads) == 4 and data.probe_id == "p0"  # the shortest probe
    n = len(TOKENS)
    assert data.patterns.shape == (len(STEPS), 4, n, n)
    np.testing.assert_allclose(np.diagonal(data.patterns[-1, 0]), 1, atol=1e-3)
    np.testing.assert_allclose(data.patterns[0, 0, 4, :5], 0.2, atol=1e-3)
    assert np.isnan(data.patterns[..., 0, 1:]).all()  # later keys have no value


def test_pattern_gif(measurements):
    check_gif(draw_gif(pattern_evolution(measurements), measurements), len(STEPS))


def test_readable_tokens():
    assert readable("ĠOslo") == "Oslo" and readable(" Oslo") == "Oslo" and readable("Ċ") == "⏎"
    assert readable(" ") == "·" and len(readable("x" * 40)) == 12 and readable("$x_1$") == "$x_1$"


def test_neuron_gif(measurements):
    check_gif(draw_gif(neuron_evolution(measurements), measurements), len(STEPS))


def test_latent_page(measurements, projection):
    ids = measurements.probe_ids(24)
    figure = draw_html(LatentSpace(projection, ids, measurements.clusters(24)), measurements)
    assert [frame.name for frame in figure.frames] == [str(step) for step in STEPS]
    assert len(figure.data) == 12
    last = np.concatenate([[*zip(t.x, t.y, t.z, strict=True)] for t in figure.frames[-1].data])
    shown = [i for group in color_groups(measurements.clusters(24), np.arange(24) != 3) for i in group.members]
    np.testing.assert_allclose(last, projection.coordinates[-1, shown], atol=1e-4)
    assert "probe-0" in figure.data[0].text[0]
    scene = figure.layout.scene
    lengths = {round(axis.range[1] - axis.range[0], 4) for axis in (scene.xaxis, scene.yaxis, scene.zaxis)}
    assert len(lengths) == 1 and "% of variance" in scene.xaxis.title.text
    assert "trustworthiness" in figure.layout.title.subtitle.text


def test_ranges_hold_every_step(projection):
    for axis, (low, high) in enumerate(equal_ranges(projection.coordinates)):
        assert low < np.nanmin(projection.coordinates[..., axis]) < np.nanmax(projection.coordinates[..., axis]) < high


def test_latent_gif_turns_while_steps_advance(measurements, projection, monkeypatch):
    monkeypatch.setattr("gpt2_interp.figures.latent.TURN_FRAMES", 10)
    image = check_gif(draw_gif(LatentSpace(projection, [], measurements.clusters(24)), measurements), 5 * 2)
    assert image.size[0] > 400


def test_colours_are_given_up_where_they_can_not_be_told_apart():
    n = MOST_CLUSTERS + 1
    assert len(color_groups([str(i) for i in range(n)], np.ones(n, dtype=bool))) == 1
    groups = color_groups(["e 10", "e 2", "e 2"], np.ones(3, dtype=bool))
    assert [(group.label, group.members) for group in groups] == [("e 2", [1, 2]), ("e 10", [0])]


def test_one_snapshot_draws(tmp_path):
    write_fake_run(tmp_path, steps=(0,))
    m = Measurements(RunPaths("fake", tmp_path))
    for data in (head_evolution(m), neuron_evolution(m)):
        check_gif(draw_gif(data, m), 1)
    assert "only one snapshot" in draw_html(head_evolution(m), m).layout.title.subtitle.text
