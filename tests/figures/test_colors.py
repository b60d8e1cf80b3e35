"""Colours that stand for things can be told apart, also by those who don't see red and green."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw import layout_of
from gpt2_interp.figures.kinds import COLORS
from gpt2_interp.figures.latent import MOST_CLUSTERS, color_groups
from gpt2_interp.figures.panels import CATEGORIES, GREY, Lines, depth_colors
from gpt2_interp.figures.registry import PICTURES

# Machado, Oliveira & Fernandes 2009: deuteranopia, of linear RGB
DEUTERANOPE = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]  # sRGB, D65
WHITE = np.array([0.9505, 1.0, 1.089])


def lab(color: str, sight: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as it looks to a sight, a matrix on linear RGB."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = np.array(TO_XYZ) @ np.clip(sight @ linear, 0, 1) / WHITE
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def smallest_distance(colors, sight) -> float:
    """CIE76 Delta E of the two colours that are most alike."""
    places = [lab(color, np.array(sight)) for color in colors]
    return min(np.linalg.norm(a - b) for a, b in combinations(places, 2))


def test_the_distance_is_that_of_known_colours():
    assert np.linalg.norm(lab("#ffffff", np.eye(3)) - lab("#000000", np.eye(3))) == pytest.approx(100, abs=0.1)
    assert smallest_distance(["#ff0000", "#00ff00"], np.eye(3)) == pytest.approx(170.6, abs=0.5)
    assert smallest_distance(["#d65f5f", "#8c8c3f"], DEUTERANOPE) < smallest_distance(["#d65f5f", "#8c8c3f"], np.eye(3))


@pytest.mark.parametrize("sight", [np.eye(3), DEUTERANOPE], ids=["normal", "deuteranope"])
@pytest.mark.parametrize("palette", [CATEGORIES, (*COLORS, GREY), depth_colors(4)], ids=["all", "kinds", "layers"])
def test_any_two_colours_can_be_told_apart(palette, sight):
    assert smallest_distance(palette, sight) >= 10


def test_no_two_clusters_look_alike():
    clusters = [str(i) for i in range(MOST_CLUSTERS)]
    groups = color_groups(clusters, np.ones(MOST_CLUSTERS, bool))
    assert len({(group.color, group.shape) for group in groups}) == len(groups) == MOST_CLUSTERS


def test_layers_have_names_at_their_lines(measurements: Measurements):
    """More than a few steps of a colour scale can't be told apart."""
    found = 0
    for picture in PICTURES:
        if ".png" in picture.formats:
            layout = layout_of(picture, measurements)
            panels = layout.panels if isinstance(layout, Lines) else getattr(layout, "spectra", [])  # else: no lines
            of_layers = [p for p in panels if any("layer " in line.label for line in p.lines)]
            assert all(panel.end_labels for panel in of_layers)
            found += len(of_layers)
    assert found > 8
