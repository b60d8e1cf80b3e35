"""Hidden states over layers and steps: how far they moved from the base, and what each layer would predict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.kinds import lens_maps
from gpt2_interp.figures.panels import SNAPSHOT_AXIS, MapPanel, Maps, measure_label, not_measured
from gpt2_interp.figures.registry import PICTURE
from gpt2_interp.snapshots.table import HEADLINE, MEASURE, SPREAD
from gpt2_interp.statistics.intervals import nan_mean

NEIGHBOURS = 10  # of knn_overlap
HALF_SAMPLES = {"cka_debiased": "cka_half_samples", "rsa": "rsa_half_samples", "knn_overlap": "knn_half_samples"}
DRIFT_MAPS = PICTURE["drift_map"].measures
LENS_MAPS = tuple(name for name in PICTURE["lens"].measures if "token_kind" not in MEASURE[name].axes)
DRIFT_TITLE = f"Hidden states against the base ({HEADLINE['pooling']})"
LENS_TITLE = "What each layer would predict"
Layers = Mapping[str, tuple[list[int], np.ndarray] | None]  # by measure, as `_by_layer` finds them


def drift_panels(m: Measurements) -> list[MapPanel]:
    """Return a map [hidden_layer, step] of each of DRIFT_MAPS. Raises InputError if none of them was measured."""
    return _layer_maps(m, DRIFT_MAPS, "its hidden states")


def lens_panels(m: Measurements) -> list[MapPanel]:
    """Return a map [hidden_layer, step] of each of LENS_MAPS. Raises InputError if there was no lens."""
    return _layer_maps(m, LENS_MAPS, "the lens")


def _layer_maps(m: Measurements, names: Sequence[str], what: str) -> list[MapPanel]:
    layers = {name: _by_layer(m, name) for name in names}
    if not any(layers.values()):
        raise InputError(f"run {m.paths.run_name!r} did not measure {what}.")
    return [_layer_map(m, name, layers) for name in names]


def _by_layer(m: Measurements, name: str) -> tuple[list[int], np.ndarray] | None:
    """Return (steps, mean over probes [step, hidden_layer]) to step 0; None where it was not measured."""
    try:
        steps, values = m.headline(name)
    except InputError:
        return None
    if "reference" in MEASURE[name].axes:
        values = values[..., m.labels("reference").index("step 0")]
    return steps, nan_mean(values, axis=1) if MEASURE[name].probe_axis else values


def _same_range(name: str, names: Iterable[str]) -> list[str]:
    """Measures that are to be compared by eye: with their chance, or with the base's lens."""

    def stem(text: str) -> str:
        return text.removesuffix("_chance").replace("lens_base_", "lens_")

    return [other for other in names if stem(other) == stem(name)]


def _color_limits(name: str, values: np.ndarray) -> tuple[float, float]:
    """Return both ends of the colours: the extremes of the defined values, and the measure's own limits."""
    fixed = [end for end in MEASURE[name].limits if end is not None]
    ends = [*values[np.isfinite(values)].tolist(), *map(float, fixed)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return (low, high) if low < high else (low - 0.5 * (low not in fixed), high + 0.5)


def _knn_chance(m: Measurements) -> float:
    n = len(m.labels("example"))
    return min(1.0, NEIGHBOURS / (n - 1)) if n > 1 else 0.0


def _hover(m: Measurements, name: str, steps: list[int], values: np.ndarray) -> list[list[str]]:
    """Text shown at [hidden_layer, step], with the interval over half-samples where there is one."""
    spread: dict[int, np.ndarray] = {}
    if name in HALF_SAMPLES:
        with suppress(InputError):
            spread = dict(zip(*m.stack(HALF_SAMPLES[name]), strict=True))  # {step: [hidden_layer, spread]}
    low, high = SPREAD.index("2.5%"), SPREAD.index("97.5%")
    rows = []
    for i, layer in enumerate(m.labels("hidden_layer")):
        row = []
        for step, value in zip(steps, values[:, i], strict=True):
            text = f"{layer}, step {step}: {value:.3g}"
            if step in spread and np.isfinite(spread[step][i]).all():
                text += f"<br>half-samples {spread[step][i, low]:.3g} to {spread[step][i, high]:.3g}"
            row.append(text)
        rows.append(row)
    return rows


def _layer_map(m: Measurements, name: str, layers: Layers) -> MapPanel:
    """Return a map of one measure. layers: the measures of the picture, those that share a colour range with this one
    among them."""
    title, found = MEASURE[name].title, layers[name]
    if found is None:
        return MapPanel(title, measure_label(name), note=not_measured(name))
    steps, values = found
    ranged = [same[1].ravel() for other in _same_range(name, layers) if (same := layers[other]) is not None]
    note = f"chance {_knn_chance(m):.2g}" if name == "knn_overlap" and _knn_chance(m) else ""
    return MapPanel(
        title,
        MEASURE[name].unit,
        m.labels("hidden_layer"),
        [str(step) for step in steps],
        values.T,
        _color_limits(name, np.concatenate(ranged)),
        x_label=SNAPSHOT_AXIS,
        y_label="",
        hover=_hover(m, name, steps, values),
        note=note,
    )


def drift(m: Measurements) -> Maps:
    return Maps(DRIFT_TITLE, drift_panels(m), 4, (3.9, _map_height(m)), 2, int(90 * _map_height(m)) + 60)


def lens(m: Measurements) -> Maps:
    return Maps(
        LENS_TITLE, [*lens_panels(m), *lens_maps(m)], 2, (5.6, _map_height(m)), 2, int(90 * _map_height(m)) + 60
    )


def _map_height(m: Measurements) -> float:
    return max(2.4, 0.2 * len(m.labels("hidden_layer")) + 1.0)
