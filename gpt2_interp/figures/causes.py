"""Which blocks carry what was learned: grafts between the base and the tuned model."""

from __future__ import annotations

import matplotlib
import plotly.graph_objects as go
from matplotlib.figure import Figure

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.draw_html import bars_plotly
from gpt2_interp.figures.draw_png import draw_bars, png_bytes
from gpt2_interp.figures.panels import BLUE, ORANGE, STYLE, BarPanel, figure_title, measure_label
from gpt2_interp.statistics.intervals import bootstrap_band

GRAFTS = {
    "graft_necessity": ("Lost without the tuned block", ORANGE),
    "graft_sufficiency": ("Brought to the base by it alone", BLUE),
}
TITLE = "Which blocks carry what was learned"


def graft_panels(m: Measurements) -> list[BarPanel]:
    """Necessity and sufficiency of every block at the last snapshot. Raises InputError if they were not measured."""
    panels = []
    for name, (title, color) in GRAFTS.items():
        steps, values = m.stack(name)  # [step, few_example, block]
        last = values[-1]
        mean, low, high, band = bootstrap_band(last.T, m.clusters(len(last), "few_example"))  # blocks stand for steps
        label, title = f"{measure_label(name)}\n{band}", f"{title}, step {steps[-1]}"
        panels.append(BarPanel(title, label, m.labels("block"), mean, low, high, color))
    return panels


def graft_png(m: Measurements) -> bytes:
    panels = graft_panels(m)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.21 * len(panels[0].rows) + 1.7), layout="constrained")
        for ax, panel in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
            draw_bars(ax, panel)
        figure.suptitle(figure_title(m, TITLE), fontsize=12)
        return png_bytes(figure)


def graft_plotly(m: Measurements) -> go.Figure:
    return bars_plotly(m, graft_panels(m), TITLE)
