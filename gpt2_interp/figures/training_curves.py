"""training_curves.png: loss, perplexity, learning rate and gradient norm of one run, from its training log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def draw_training_curves(log: Sequence[dict], path: Path, title: str) -> None:
    """log: lines {"step", "loss", "eval_loss", "eval_perplexity", "learning_rate", "grad_norm"}, each optional."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    panels = (
        (axes[0, 0], (("loss", "training batches"), ("eval_loss", "validation rows")), "loss (nats/token)", False),
        (axes[0, 1], (("eval_perplexity", "validation rows"),), "perplexity", True),
        (axes[1, 0], (("learning_rate", "learning rate"),), "learning rate", False),
        (axes[1, 1], (("grad_norm", "one batch, before clipping"),), "gradient norm", True),
    )
    for axis, curves, label, logarithmic in panels:
        for key, name in curves:
            points = [(line["step"], line[key]) for line in log if line.get(key) is not None]
            if points:
                marker = "o" if key.startswith("eval") else None
                axis.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=4, linewidth=1.4)
        axis.set(xlabel="optimizer step", ylabel=label)
        if axis.lines:
            axis.legend(frameon=False)
            if logarithmic:
                axis.set_yscale("log")
        axis.grid(alpha=0.25)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)
