"""A row of the registry becomes files: the layout is computed once, and drawn in each format."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw_html import draw_html, figure_page
from gpt2_interp.figures.draw_png import draw_figure, pdf_bytes, png_bytes
from gpt2_interp.figures.gif import draw_film
from gpt2_interp.figures.registry import Picture
from gpt2_interp.files import write_atomically


def layout_of(picture: Picture, m: Measurements) -> Any:
    """Return what the picture's function makes of a run. Raises InputError where its measures are missing."""
    module, function = picture.layout.split(":")
    return getattr(import_module(f"gpt2_interp.figures.{module}"), function)(m)


def write_picture(picture: Picture, m: Measurements, vector: bool = False) -> list[Path]:
    """Write the picture in all its formats; return the files. Raises InputError where its measures are missing."""
    return write_layout(layout_of(picture, m), picture, m, vector)


def write_layout(layout: Any, picture: Picture, m: Measurements, vector: bool = False) -> list[Path]:
    """Write a layout as the files of its picture; return them.

    vector: write a PDF beside the PNG, or beside the GIF, of its last frame.
    """
    written = []
    for name in picture.files:
        path = m.paths.visualizations / name
        if path.suffix == ".html":
            contents = {path: figure_page(draw_html(layout, m), path.stem)}
        elif path.suffix == ".gif":
            film = draw_film(layout, m)
            contents = {path: film.gif()} | ({path.with_suffix(".pdf"): pdf_bytes(film.last())} if vector else {})
        else:
            figure = draw_figure(layout, m)
            contents = {path: png_bytes(figure)} | ({path.with_suffix(".pdf"): pdf_bytes(figure)} if vector else {})
        for file, content in contents.items():
            write_atomically(file, content)
            written.append(file)
    return written
