"""Stored arrays as labelled arrays: dimensions, coordinates and attributes from the measure table and run.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from gpt2_interp.snapshots.table import MEASURE, PROBE_AXES, axis_size

Coordinate = tuple[str, Any]  # (dimension, its values)


def labelled(
    name: str,
    values: np.ndarray,
    steps: Sequence[int] | None = None,
    *,
    axes: Mapping[str, int | Sequence[str]],
    probe_set: Mapping[str, Any],
) -> xr.DataArray:
    """values [*axes], or [step, *axes] where steps are given, with the labels of the measure `name`.

    axes: size or labels of each axis, as in run.json. probe_set: as in probe_set.json.
    """
    measure = MEASURE[name]
    dims = measure.axes if steps is None else ("step", *measure.axes)
    coords: dict[str, Coordinate] = {} if steps is None else {"step": ("step", np.asarray(steps))}
    for axis in measure.axes:
        coords |= _coordinates(axis, axes[axis], probe_set.get(axis, []) if axis in PROBE_AXES else [])
    facts = {"units": measure.unit, "meaning": measure.meaning, "formula": measure.formula}
    facts |= {"source": measure.source, "caution": measure.caution}
    return xr.DataArray(values, coords, dims, name, {key: text for key, text in facts.items() if text})


def _coordinates(axis: str, labels: int | Sequence[str], probes: Sequence[Mapping[str, Any]]) -> dict[str, Coordinate]:
    """The coordinates of one axis: ids, clusters, halves and splits of probes, labels, else numbers from 0."""
    size = axis_size(labels)
    if axis == "query_key":  # a pattern's lower triangle, row by row; see snapshots/patterns.py
        query, key = np.tril_indices((math.isqrt(8 * size + 1) - 1) // 2)
        return {"query": (axis, query), "key": (axis, key)}
    if size and len(probes) == size:
        names = {"id": axis} | {key: f"{axis}_{key}" for key in ("cluster", "half", "split")}
        described = [key for key in names if all(key in probe for probe in probes)]
        return {names[key]: (axis, [probe[key] for probe in probes]) for key in described}
    return {axis: (axis, np.arange(size) if isinstance(labels, int) else list(labels))}
