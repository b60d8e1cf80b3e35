"""training_curves.png: loss, perplexity, learning rate and gradient norm of one run, from its training log."""

from __future__ import annotations

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw_png import draw_png
from gpt2_interp.figures.over_time import loss_panel
from gpt2_interp.figures.panels import BLUE, GREY, ORANGE, Line, LinePanel, Lines
from gpt2_interp.files import write_atomically
from gpt2_interp.run_paths import RunPaths


def draw_training_curves(paths: RunPaths) -> None:
    """Write training_curves.png beside the run's models."""
    m = Measurements(paths)
    write_atomically(paths.model_outputs / "training_curves.png", draw_png(training_curves(m), m))


def training_curves(m: Measurements) -> Lines:
    """Four panels over the optimizer step; a panel without a logged value has a note."""
    return Lines(
        "Training",
        [
            loss_panel(m),
            _panel(m, "eval_perplexity", "Perplexity", "perplexity", "validation rows", ORANGE, log_y=True),
            _panel(m, "learning_rate", "Learning rate", "learning rate", "learning rate", BLUE),
            _panel(m, "grad_norm", "Gradient", "gradient norm", "one batch, before clipping", GREY, log_y=True),
        ],
    )


def _panel(
    m: Measurements, key: str, title: str, y_label: str, label: str, color: str, log_y: bool = False
) -> LinePanel:
    x, y = m.logged(key)
    if not len(x):
        return LinePanel(title, y_label, note=f"{key} was not logged.")
    return LinePanel(title, y_label, [Line(label, x, y, color, wide=False)], log_y=log_y)
