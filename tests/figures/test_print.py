"""Pictures in print: as wide as a page's text, no text too small to read there, and vectors on demand."""

import pytest
from matplotlib.text import Text

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.projection import project, save_projection
from gpt2_interp.figures.draw import layout_of, write_picture
from gpt2_interp.figures.draw_png import draw_figure
from gpt2_interp.figures.gif import draw_film
from gpt2_interp.figures.registry import PICTURE
from tests.fake_store import STEPS, write_fake_run

PAGE, SMALLEST = 16 / 2.54, 7  # inches, points


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Measurements:
    """A planted run with a projection."""
    m = Measurements(write_fake_run(tmp_path_factory.mktemp("print")).paths)
    states = m.stack("hidden_pooled")[1][:, :, 1, -1].astype("float32")
    save_projection(m.paths.latent / "projection.safetensors", project(states, list(STEPS), "pca"))
    return m


@pytest.mark.parametrize("name", list(PICTURE))
def test_all_text_can_be_read_on_a_page(run, name):
    layout = layout_of(PICTURE[name], run)
    figure = draw_film(layout, run).last() if ".gif" in PICTURE[name].formats else draw_figure(layout, run)
    figure.draw_without_rendering()
    scale = PAGE / figure.get_figwidth()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    small = {text.get_text(): text.get_fontsize() * scale for text in texts if text.get_fontsize() * scale < SMALLEST}
    assert texts and not small


@pytest.mark.parametrize("name", ["drift_map", "attention_head_evolution"])
def test_a_vector_stands_beside_the_picture(run, name):
    files = {path.suffix: path for path in write_picture(PICTURE[name], run, vector=True)}
    assert set(files) == {*PICTURE[name].formats, ".pdf"}
    first = files[".pdf"].read_bytes()
    assert first.startswith(b"%PDF")
    write_picture(PICTURE[name], run, vector=True)
    assert files[".pdf"].read_bytes() == first  # equal data, equal bytes
