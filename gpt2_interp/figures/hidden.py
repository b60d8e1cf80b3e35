"""Hidden states over layers and steps: how far they moved from the base, and what each layer would predict."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.panels import SNAPSHOT_AXIS, MapPanel, Maps, measure_label, not_measured
from gpt2_interp.snapshots.table import HEADLINE, MEASURE, SPREAD
from gpt2_interp.statistics.intervals import nan_mean

NEIGHBOURS = 10  # of knn_overlap
# {measure: (title, the measure's name over half-samples)}
DRIFT_MAPS = {
    "displacement": ("Displacement", ""),
    "cka_debiased": ("CKA (debiased)", "cka_half_samples"),
    "cka_scaled": ("CKA, dimensions scaled", ""),
    "rsa": ("Similarities of pairs (RSA)", "rsa_half_samples"),
    "knn_overlap": ("Neighbours kept", "knn_half_samples"),
    "procrustes": ("Procrustes", ""),
    "procrustes_chance": ("Procrustes, shuffled", ""),
    "anisotropy": ("Pointing the same way", ""),
}
LENS_MAPS = {
    "lens_logprob": "Log-probability of the right token",
    "lens_base_logprob": "The same, read with the base's ln_f and W_U",
    "lens_kl": "Distance to the final prediction",
    "lens_base_kl": "The same, read with the base's ln_f and W_U",
}
DRIFT_TITLE = f"Hidden states against the base ({HEADLINE['pooling']})"
LENS_TITLE = "What each layer would predict"


def drift_panels(m: Measurements) -> list[MapPanel]:
    """Eight maps [hidden_layer, step]. Raises InputError if none of them was measured."""
    layers = {name: _by_layer(m, name) for name in DRIFT_MAPS}
    if not any(layers.values()):
        raise InputError(f"run {m.paths.run_name!r} did not measure its hidden states.")
    panels = []
    for name, (title, half_samples) in DRIFT_MAPS.items():
        if layers[name] is None:
            panels.append(MapPanel(title, measure_label(name), note=not_measured(name)))
            continue
        steps, values = layers[name]
        ranged = [found[1] for other in _same_range(name, DRIFT_MAPS) if (found := layers[other]) is not None]
        limits = _limits(name, np.concatenate([v.ravel() for v in ranged]))
        note = f"chance {_knn_chance(m):.2g}" if name == "knn_overlap" and _knn_chance(m) else ""
        hover = _hover(m, steps, values, half_samples)
        panels.append(_layer_map(m, title, name, steps, values, limits, hover, note))
    return panels


def lens_panels(m: Measurements) -> list[MapPanel]:
    """Four maps [hidden_layer, step]: means over probes. Raises InputError if there was no lens."""
    layers = {name: _by_layer(m, name) for name in LENS_MAPS}
    if not any(layers.values()):
        raise InputError(f"run {m.paths.run_name!r} did not measure the lens.")
    panels = []
    for name, title in LENS_MAPS.items():
        if layers[name] is None:
            panels.append(MapPanel(title, measure_label(name), note=not_measured(name)))
            continue
        steps, values = layers[name]
        ranged = [found[1] for other in _same_range(name, LENS_MAPS) if (found := layers[other]) is not None]
        low, high = _extremes(np.concatenate([v.ravel() for v in ranged]))
        limits = (low, high) if name.endswith("logprob") else (0.0, high)
        panels.append(_layer_map(m, title, name, steps, values, limits, _hover(m, steps, values, "")))
    return panels


def _by_layer(m: Measurements, name: str) -> tuple[list[int], np.ndarray] | None:
    """(steps, mean over probes [step, hidden_layer]) to step 0; None where it was not measured."""
    try:
        steps, values = m.headline(name)
    except InputError:
        return None
    if "reference" in MEASURE[name].axes:
        values = values[..., m.labels("reference").index("step 0")]
    return steps, nan_mean(values, axis=1) if MEASURE[name].probe_axis else values


def _same_range(name: str, names: dict) -> list[str]:
    """Measures that are to be compared by eye: with their chance, or with the base's lens."""

    def stem(text: str) -> str:
        return text.removesuffix("_chance").replace("lens_base_", "lens_")

    return [other for other in names if stem(other) == stem(name)]


def _extremes(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite) or finite.min() == finite.max():
        return (0.0, 1.0) if not len(finite) else (float(finite[0]) - 0.5, float(finite[0]) + 0.5)
    return float(finite.min()), float(finite.max())


def _limits(name: str, values: np.ndarray) -> tuple[float, float]:
    """Similarities run up to 1, and below 0 only where they do; distances from 0 to the largest."""
    low, high = _extremes(values)
    if name in ("displacement", "procrustes", "procrustes_chance"):
        return 0.0, max(high, 1e-6)
    if name == "anisotropy":
        return low, high
    return min(low, 0.0), 1.0


def _knn_chance(m: Measurements) -> float:
    n = len(m.labels("example"))
    return min(1.0, NEIGHBOURS / (n - 1)) if n > 1 else 0.0


def _hover(m: Measurements, steps: list[int], values: np.ndarray, half_samples: str) -> list[list[str]]:
    """What pointing at [hidden_layer, step] says, with the interval over half-samples where there is one."""
    spread: dict[int, np.ndarray] = {}
    if half_samples:
        with suppress(InputError):
            spread = dict(zip(*m.stack(half_samples), strict=True))  # {step: [hidden_layer, spread]}
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


def _layer_map(m, title, name, steps, values, limits, hover, note="") -> MapPanel:
    return MapPanel(
        title,
        MEASURE[name].unit,
        m.labels("hidden_layer"),
        [str(step) for step in steps],
        values.T,
        limits,
        x_label=SNAPSHOT_AXIS,
        y_label="",
        hover=hover,
        note=note,
    )


def drift(m: Measurements) -> Maps:
    return Maps(DRIFT_TITLE, drift_panels(m), 4, (3.9, _map_height(m)), 2, int(90 * _map_height(m)) + 60)


def lens(m: Measurements) -> Maps:
    return Maps(LENS_TITLE, lens_panels(m), 2, (5.6, _map_height(m)), 2, int(90 * _map_height(m)) + 60)


def _map_height(m: Measurements) -> float:
    return max(2.4, 0.2 * len(m.labels("hidden_layer")) + 1.0)
