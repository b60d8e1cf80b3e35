"""Blocks that carry what was learned: grafts between the base and the tuned model."""

from __future__ import annotations

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.figures.panels import BLUE, ORANGE, BarPanel, Bars, measure_label
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


def graft(m: Measurements) -> Bars:
    return Bars(TITLE, graft_panels(m))
