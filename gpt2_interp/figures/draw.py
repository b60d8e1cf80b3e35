"""A row of the registry becomes files: the layout is computed once, and drawn in each format."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw_html import draw_html, figure_page
from gpt2_interp.figures.draw_png import draw_png
from gpt2_interp.figures.gif import draw_gif
from gpt2_interp.figures.registry import Picture
from gpt2_interp.files import write_atomically


def layout_of(picture: Picture, m: Measurements) -> Any:
    """Return what the picture's function makes of a run. Raises InputError where its measures are missing."""
    module, function = picture.layout.split(":")
    return getattr(import_module(f"gpt2_interp.figures.{module}"), function)(m)


def write_picture(picture: Picture, m: Measurements) -> list[Path]:
    """Write the picture in all its formats; return the files. Raises InputError where its measures are missing."""
    return write_layout(layout_of(picture, m), picture, m)


def write_layout(layout: Any, picture: Picture, m: Measurements) -> list[Path]:
    """Write a layout as the files of its picture; return them."""
    written = []
    for name in picture.files:
        path = m.paths.visualizations / name
        if path.suffix == ".html":
            write_atomically(path, figure_page(draw_html(layout, m), path.stem))
        else:
            write_atomically(path, (draw_gif if path.suffix == ".gif" else draw_png)(layout, m))
        written.append(path)
    return written
