"""The effect of random perturbations of the base on the claimed measures: a change that is no larger is no finding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.snapshots.table import HEADLINE, MEASURE, POOLINGS, REGIONS

Arrays = dict[str, np.ndarray]


def perturbation_band(gpt2: GPT2LMHeadModel, base: BaseWeights, means: Callable[[], Arrays], draws: int) -> Arrays:
    """band_<name> [perturbation, *units]: changes under `draws` random perturbations of the base, each matrix by as
    much as training changed it.

    means: measures the model as it is at that moment, {name: [*units]}.
    """
    norms = base.change_norms(gpt2)
    with base.replaced(gpt2):
        start = means()
    changes: dict[str, list[np.ndarray]] = {name: [] for name in start}
    for seed in tqdm(range(draws), desc="perturbing the base", unit=" draws", leave=False):
        with base.perturbed(gpt2, seed, norms):
            for name, values in means().items():
                changes[name].append(values - start[name])
    return {f"band_{name}": np.stack(values) for name, values in changes.items()}


def headline(name: str, array: np.ndarray) -> np.ndarray:
    """Return [probe, *units], a measure's array at the headline region and pooling."""
    labels = {"region": REGIONS, "pooling": POOLINGS}
    for position, axis in reversed(list(enumerate(MEASURE[name].axes))):
        if axis in HEADLINE:
            array = array.take(labels[axis].index(HEADLINE[axis]), axis=position)
    return array


def over_probes(name: str, array: np.ndarray) -> np.ndarray:
    """Return [*units], the headline region and pooling, mean over the probes that have a value; NaN where none has."""
    array = headline(name, array)
    defined = np.isfinite(array)
    count = defined.sum(axis=0)
    return np.where(defined, array, 0).sum(axis=0) / np.where(count, count, np.nan)
