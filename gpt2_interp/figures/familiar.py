"""What was learned, on probes like the training rows and on probes of the test split, and their difference."""

from __future__ import annotations

import numpy as np

from gpt2_interp.analysis.measurements import Measurements, Series
from gpt2_interp.errors import InputError
from gpt2_interp.figures.kinds import kind_name
from gpt2_interp.figures.panels import BLUE, GREY, ORANGE, Line, LinePanel, Lines
from gpt2_interp.snapshots.table import MEASURE
from gpt2_interp.statistics.intervals import difference_band, nan_mean

TITLE = "Familiar and new names, places and wordings (bands: 95% bootstrap over clusters of probes)"
FAMILIAR, NEW = "validation", "test"  # splits
MEASURES = {"probe_loss": "Loss", "context_gain": "Gain from the own source"}
KINDS_SHOWN = ("value_first", "value_rest", "copied", "new")  # where the two splits can differ: what is not set phrases


def familiar_and_new(m: Measurements) -> Lines:
    """Two panels for each measure, and for each kind of token that it has: both splits, and new - familiar.

    Raises InputError where the probes are of one split alone.
    """
    found = m.series([name for plain in MEASURES for name in (plain, f"{plain}_by_kind") if name in MEASURE])
    if not any(one.of_split(NEW) and one.of_split(FAMILIAR) for one in found.values()):
        raise InputError(
            f"run {m.paths.run_name!r} has no probes of both splits: that takes a test split with more rows than are "
            "scored."
        )
    panels = []
    for name, title in MEASURES.items():
        if name in found:
            panels += _panels(found[name], title, 0)
        by_kind = found.get(f"{name}_by_kind")
        labels = m.labels("token_kind") if by_kind is not None else []
        for kind in KINDS_SHOWN:
            if by_kind is not None and kind in labels:
                panels += _panels(by_kind, f"{title}, {kind_name(kind)}", labels.index(kind))
    return Lines(TITLE, panels)


def _panels(series: Series, title: str, unit: int) -> list[LinePanel]:
    """Return the panel of both splits, and that of their difference; unit: which column of the series."""
    familiar, new = series.of_split(FAMILIAR), series.of_split(NEW)
    label, x = f"[{series.measure.unit}]", np.array(series.steps)
    values = [one.values[:, :, unit] for one in (familiar, new)]  # each [step, probe]
    names = (f"familiar: {values[0].shape[1]} validation rows", f"new: {values[1].shape[1]} rows of the test split")
    lines = [
        Line(name, x, nan_mean(of_split, axis=1), color, dashed=color == ORANGE)
        for name, of_split, color in zip(names, values, (BLUE, ORANGE), strict=True)
    ]
    mean, low, high = difference_band(values[1], new.clusters, values[0], familiar.clusters)
    zero = Line("no difference", x[[0, -1]], np.zeros(2), GREY, wide=False, dashed=True)
    return [
        LinePanel(title, label, lines),
        LinePanel(f"{title}: new - familiar", label, [Line("new - familiar", x, mean, BLUE, low, high), zero]),
    ]
