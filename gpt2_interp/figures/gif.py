"""Frames to an animated GIF: one palette, one set of axes, one duration a step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch

import imageio.v3 as imageio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.panels import WIDTH

FRAME_MS = 900
LAST_FRAME_MS = 2500


@dataclass(frozen=True)
class Film:
    """An animation: `show` puts frame number i onto the canvas; durations: milliseconds of each frame."""

    canvas: Canvas
    show: Callable[[int], None]
    durations: Sequence[int]

    def gif(self) -> bytes:
        """Return all frames as an animated GIF."""
        frames = []
        for i in range(len(self.durations)):
            self.show(i)
            frames.append(self.canvas.frame())
        return gif_bytes(frames, self.durations)

    def last(self) -> Figure:
        """Return the figure with its last frame."""
        self.show(len(self.durations) - 1)
        return self.canvas.figure


@singledispatch
def draw_film(layout: object, m: Measurements) -> Film:
    """Return the animation of a layout, which registers its drawing here."""
    raise TypeError(f"no animation can be drawn of {type(layout).__name__}.")


def draw_gif(layout: object, m: Measurements) -> bytes:
    """Return the GIF of a layout."""
    return draw_film(layout, m).gif()


def gif_bytes(frames: Sequence[np.ndarray], duration_ms: Sequence[int]) -> bytes:
    """Return an animation of RGB uint8 frames [height, width, 3], all of one size; one duration in milliseconds per
    frame; loops for ever.

    Each frame must differ from its neighbours (they carry their step): the format merges identical ones.
    """
    durations = list(duration_ms) if len(frames) > 1 else duration_ms[0]  # Pillow wants a number for a single frame
    shared = with_shared_palette(frames)
    return imageio.imwrite("<bytes>", np.stack(shared), extension=".gif", plugin="pillow", duration=durations, loop=0)


def with_shared_palette(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The frames in 256 colours that are the same for all, else a colour would drift from frame to frame.

    Maximum coverage keeps the rare colours: the usual median cut spends its colours on the background, and colour bars
    come out up to 57 of 255 off; this way it is 7.
    """
    sample = [frames[i] for i in sorted({0, len(frames) // 3, 2 * len(frames) // 3, len(frames) - 1})]
    palette = Image.fromarray(np.concatenate(sample)).quantize(256, method=Image.Quantize.MAXCOVERAGE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    return [np.asarray(image.convert("RGB")) for image in images]


def step_durations(n_frames: int) -> list[int]:
    """Milliseconds per frame; the last frame stays longer, so that one sees where the run ended."""
    return [FRAME_MS] * (n_frames - 1) + [LAST_FRAME_MS]


def only_one(steps: Sequence[int]) -> str:
    """Return what a title adds when there is nothing to compare yet."""
    return "" if len(steps) > 1 else " · only one snapshot so far: nothing can have changed yet"


class Canvas:
    """A matplotlib figure as wide as a page's text that is drawn again and again into RGB arrays; height in inches."""

    def __init__(self, height: float, dpi: int = 130, layout: str | None = "constrained"):
        self.figure = Figure(figsize=(WIDTH, height), dpi=dpi, layout=layout)
        self._canvas = FigureCanvasAgg(self.figure)

    def frame(self) -> np.ndarray:
        """Return [height, width, 3] uint8."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            self._canvas.draw()
        if self.figure.get_layout_engine() is not None:
            self.figure.set_layout_engine("none")  # laid out once: frames must not jitter, and later ones are faster
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
