"""The rows of the registry against what they name."""

from importlib import import_module

from gpt2_interp.figures.registry import PICTURES, SECTIONS
from gpt2_interp.snapshots.table import CLAIMED, MEASURE


def test_each_row_names_what_exists():
    files = [name for picture in PICTURES for name in picture.files]
    assert len(files) == len(set(files))
    for picture in PICTURES:
        module, function = picture.layout.split(":")
        assert callable(getattr(import_module(f"gpt2_interp.figures.{module}"), function))
        assert picture.section in [section.name for section in SECTIONS]
        assert set(picture.measures) <= set(MEASURE) and set(picture.needs) <= set(picture.measures)
        assert picture.still in picture.files


def test_each_measure_that_a_picture_shows_has_its_plain_name():
    shown = {name for picture in PICTURES for name in picture.measures}
    for name in shown | {measure.name for measure in CLAIMED}:
        label = MEASURE[name].label
        assert label and "_" not in label, name
