"""Hidden states over layers and steps: how far they moved from the base, and what each layer would predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.kinds import lens_maps
from gpt2_interp.figures.panels import (
    SNAPSHOT_AXIS,
    MapPanel,
    Maps,
    heading,
    layer_name,
    measure_label,
    not_measured,
    plain_unit,
)
from gpt2_interp.figures.registry import PICTURE
from gpt2_interp.snapshots.table import HEADLINE, MEASURE, SPREAD
from gpt2_interp.statistics.intervals import nan_mean

NEIGHBOURS = 10  # of knn_overlap
HALF_SAMPLES = {"cka_debiased": "cka_half_samples", "rsa": "rsa_half_samples", "knn_overlap": "knn_half_samples"}
AT_TARGET, AT_END = HEADLINE["pooling"], "prompt_last"
PLACES = {AT_TARGET: "mean over the target", AT_END: "last token of the prompt"}
FIRST = ("displacement", "cka_debiased", "cka_within_clusters")  # shown where the target is and where it begins
CHANCE = {"procrustes": "procrustes_chance"}
DRIFT_MAPS = (
    *((name, pooling) for pooling in PLACES for name in FIRST),
    *((name, AT_TARGET) for name in PICTURE["drift_map"].measures if name not in (*FIRST, *CHANCE.values())),
)
LENS_MAPS = tuple(name for name in PICTURE["lens"].measures if "token_kind" not in MEASURE[name].axes)
DRIFT_TITLE = "Hidden states against the base (dark: as in the base; bright: far from it)"
LENS_TITLE = "What each layer would predict"


def drift_panels(m: Measurements) -> list[MapPanel]:
    """Return a map [hidden_layer, step] of each of DRIFT_MAPS. Raises InputError if none of them was measured."""
    return _layer_maps(m, DRIFT_MAPS, "its hidden states")


def lens_panels(m: Measurements) -> list[MapPanel]:
    """Return a map [hidden_layer, step] of each of LENS_MAPS. Raises InputError if there was no lens."""
    return _layer_maps(m, [(name, "") for name in LENS_MAPS], "the lens")


def _layer_maps(m: Measurements, maps: Sequence[tuple[str, str]], what: str) -> list[MapPanel]:
    """Return the maps of (measure, pooling); pooling "" for a measure that has none."""
    layers = {each: _by_layer(m, *each) for each in maps}
    if not any(layers.values()):
        raise InputError(f"run {m.paths.run_name!r} did not measure {what}.")
    return [_layer_map(m, name, pooling, layers) for name, pooling in maps]


def _by_layer(m: Measurements, name: str, pooling: str) -> tuple[list[int], np.ndarray] | None:
    """Return (steps, mean over probes [step, hidden_layer]) to step 0; None where it was not measured."""
    try:
        steps, values = m.stack(name) if pooling else m.headline(name)
    except InputError:
        return None
    if pooling:
        values = np.take(values, m.labels("pooling").index(pooling), axis=1 + MEASURE[name].axes.index("pooling"))
    if "reference" in MEASURE[name].axes:
        values = values[..., m.labels("reference").index("step 0")]
    return steps, nan_mean(values, axis=1) if MEASURE[name].probe_axis else values


def _is_same_scale(name: str, other: str) -> bool:
    """Return whether two measures are to be compared by eye: one at two places, or the lens with the base's."""
    return other.replace("lens_base_", "lens_") == name.replace("lens_base_", "lens_")


def _color_limits(name: str, values: np.ndarray) -> tuple[float, float]:
    """Return both ends of the colours: the extremes of the defined values, and the measure's own limits."""
    fixed = [end for end in MEASURE[name].limits if end is not None]
    ends = [*values[np.isfinite(values)].tolist(), *map(float, fixed)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return (low, high) if low < high else (low - 0.5 * (low not in fixed), high + 0.5)


def _knn_chance(m: Measurements) -> float:
    n = len(m.labels("example"))
    return min(1.0, NEIGHBOURS / (n - 1)) if n > 1 else 0.0


def _hover(m: Measurements, name: str, pooling: str, steps: list[int], values: np.ndarray) -> list[list[str]]:
    """Text shown at [hidden_layer, step], with the interval over half-samples where there is one."""
    spread: dict[int, np.ndarray] = {}
    if name in HALF_SAMPLES and pooling == AT_TARGET:
        with suppress(InputError):
            spread = dict(zip(*m.stack(HALF_SAMPLES[name]), strict=True))  # {step: [hidden_layer, spread]}
    low, high = SPREAD.index("2.5%"), SPREAD.index("97.5%")
    rows = []
    for i, layer in enumerate(map(layer_name, m.labels("hidden_layer"))):
        row = []
        for step, value in zip(steps, values[:, i], strict=True):
            text = f"{layer}, step {step}: {value:.3g}"
            if step in spread and np.isfinite(spread[step][i]).all():
                text += f"<br>half-samples {spread[step][i, low]:.3g} to {spread[step][i, high]:.3g}"
            row.append(text)
        rows.append(row)
    return rows


def _layer_map(
    m: Measurements, name: str, pooling: str, layers: Mapping[tuple[str, str], tuple[list[int], np.ndarray] | None]
) -> MapPanel:
    """Return a map of one measure. layers: the measures of the picture, those that share a colour range with this one
    among them."""
    found = layers[name, pooling]
    if found is None:
        return MapPanel(heading(name), measure_label(name), note=not_measured(name))
    steps, values = found
    ranged = [
        each[1].ravel() for (other, _), each in layers.items() if each is not None and _is_same_scale(name, other)
    ]
    remarks, chance = [PLACES[pooling]] if pooling else [], None
    if name == "knn_overlap" and _knn_chance(m):
        remarks.append(f"chance {_knn_chance(m):.2g}")
    if name in CHANCE and (chance := _by_layer(m, CHANCE[name], pooling)) is not None:
        remarks.append(f"chance {np.nanmin(chance[1]):.2f} to {np.nanmax(chance[1]):.2f}")
        ranged.append(chance[1].ravel())
    return MapPanel(
        heading(name),
        plain_unit(name),
        [layer_name(label) for label in m.labels("hidden_layer")],
        [str(step) for step in steps],
        values.T,
        _color_limits(name, np.concatenate(ranged)),
        colors=_colors(name, pooling),
        x_label=SNAPSHOT_AXIS,
        y_label="",
        hover=_hover(m, name, pooling, steps, values),
        note="; ".join(remarks),
    )


def _colors(name: str, pooling: str) -> str:
    """The colour scale: of what compares states with the base's, dark where they are as there and bright far away."""
    if name == "anisotropy":
        return "Purples"  # compares nothing
    return "viridis_r" if pooling and MEASURE[name].limits == (0, 1) else "viridis"


def drift(m: Measurements) -> Maps:
    return Maps(DRIFT_TITLE, drift_panels(m), 3, _map_height(m), 2, int(110 * _map_height(m)) + 60)


def lens(m: Measurements) -> Maps:
    return Maps(LENS_TITLE, [*lens_panels(m), *lens_maps(m)], 2, _map_height(m), 2, int(110 * _map_height(m)) + 60)


def _map_height(m: Measurements) -> float:
    return max(1.7, 0.14 * len(m.labels("hidden_layer")) + 0.9)
