"""Stored arrays as labelled arrays: dimensions, coordinates and attributes from the measure table and run.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from gpt2_interp.snapshots.table import MEASURE, PROBE_AXES

if TYPE_CHECKING:
    from gpt2_interp.analysis.measurements import Measurements

Coordinate = tuple[str, Any]  # (dimension, its values)


def labelled(m: Measurements, name: str, values: np.ndarray, steps: Sequence[int] | None = None) -> xr.DataArray:
    """values [*axes], or [step, *axes] where steps are given, with the labels of the measure `name`."""
    measure = MEASURE[name]
    dims = measure.axes if steps is None else ("step", *measure.axes)
    coords: dict[str, Coordinate] = {} if steps is None else {"step": ("step", np.asarray(steps))}
    for axis, size in zip(dims[::-1], values.shape[::-1], strict=True):
        if axis != "step":
            coords |= _coordinates(m, axis, size)
    facts = {"units": measure.unit, "meaning": measure.meaning, "formula": measure.formula}
    facts |= {"source": measure.source, "caution": measure.caution, "run": m.paths.run_name}
    return xr.DataArray(values, coords, dims, name, {key: text for key, text in facts.items() if text})


def _coordinates(m: Measurements, axis: str, size: int) -> dict[str, Coordinate]:
    """The coordinates of one axis: ids, clusters and halves of probes, labels, else numbers from 0."""
    if axis == "query_key":  # a pattern's lower triangle, row by row; see snapshots/patterns.py
        query, key = np.tril_indices((math.isqrt(8 * size + 1) - 1) // 2)
        return {"query": (axis, query), "key": (axis, key)}
    probes = m.probe_set.get(axis, []) if axis in PROBE_AXES else []
    if size and len(probes) == size:
        found = {axis: (axis, m.probe_ids(size, axis)), f"{axis}_cluster": (axis, m.clusters(size, axis))}
        if all("half" in probe for probe in probes):
            found[f"{axis}_half"] = (axis, [probe["half"] for probe in probes])
        return found
    value = m.info["axes"][axis]
    return {axis: (axis, np.arange(value) if isinstance(value, int) else m.labels(axis))}
