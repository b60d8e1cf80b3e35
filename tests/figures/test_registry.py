"""The rows of the registry against what they name."""

from importlib import import_module

from gpt2_interp.figures.hidden import DRIFT_MAPS, LENS_MAPS
from gpt2_interp.figures.registry import PICTURES, SECTIONS
from gpt2_interp.snapshots.table import MEASURE


def test_each_row_names_what_exists():
    files = [name for picture in PICTURES for name in picture.files]
    assert len(files) == len(set(files))
    for picture in PICTURES:
        module, function = picture.layout.split(":")
        assert callable(getattr(import_module(f"gpt2_interp.figures.{module}"), function))
        assert picture.section in [section.name for section in SECTIONS]
        assert set(picture.measures) <= set(MEASURE) and set(picture.needs) <= set(picture.measures)
        assert picture.still in picture.files


def test_each_map_of_hidden_states_has_its_plain_name():
    assert all(MEASURE[name].title for name in (*DRIFT_MAPS, *LENS_MAPS))
