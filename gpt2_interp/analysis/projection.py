"""All steps of a run in one shared three-dimensional space, and how far that picture can be trusted.

Hidden states live in d_model dimensions; a picture has three. PCA keeps the directions of largest spread over all
steps together. AlignedUMAP keeps neighbourhoods, with each probe tied to itself at the neighbouring steps, so that
movement between frames is movement of the probe and not of the axes. Both lose something: the quality figures
(trustworthiness, neighbours kept) are stored beside the coordinates and belong into every picture of them.

`projection.safetensors` is the record: UMAP gives the same bytes on one machine, but not across CPUs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_save

from gpt2_interp.errors import InputError
from gpt2_interp.files import write_atomically
from gpt2_interp.snapshots.store import description

PROJECTIONS = ("aligned_umap", "pca")
N_NEIGHBORS = 15  # of UMAP: size of a neighbourhood
MIN_DIST = 0.1  # of UMAP: how tightly points may pack
FEWEST_PROBES_FOR_UMAP = 10  # below this a neighbourhood is most of the data and UMAP shows noise
QUALITY_NEIGHBOURS = 10
ALIGNMENT_WINDOW = 2  # each step is tied to this many steps around it; each costs a quarter of the time
ALIGNMENT_STRENGTH = 1e-2  # umap.AlignedUMAP's default alignment_regularisation


@dataclass(frozen=True)
class Projection:
    """Coordinates of every probe at every projected step.

    coordinates: [step, example, 3] float32; NaN for probes without a defined hidden state
    trustworthiness, neighbours_kept: [step] float32; see `projection_quality`
    info: method, layer, pooling, seed, settings, versions, variance_explained (PCA), notes
    """

    steps: list[int]
    coordinates: np.ndarray
    trustworthiness: np.ndarray
    neighbours_kept: np.ndarray
    info: dict[str, Any]


def project(
    states: np.ndarray,
    steps: list[int],
    method: str = PROJECTIONS[0],
    n_neighbors: int = N_NEIGHBORS,
    min_dist: float = MIN_DIST,
    seed: int = 0,
) -> Projection:
    """Project states [step, example, d_model] to [step, example, 3].

    Probes with a NaN at any step are left out (their coordinates are NaN). UMAP falls back to PCA, with a note, where
    it can't show anything. Raises InputError if fewer than 4 probes are left.
    """
    defined = np.isfinite(states).all(axis=(0, 2))  # [example]
    kept = states[:, defined].astype(np.float64)
    n_probes = kept.shape[1]
    if n_probes < 4:
        raise InputError(
            f"only {n_probes} of {len(defined)} probes have these hidden states "
            f"(a run without sources has no source_mean): choose another --pooling."
        )
    notes = []
    if not defined.all():
        notes.append(f"{(~defined).sum()} of {len(defined)} probes have no such hidden state and are left out.")
    if method == "aligned_umap" and (n_probes < FEWEST_PROBES_FOR_UMAP or len(steps) < 2):
        reason = "there is only one snapshot" if len(steps) < 2 else f"there are only {n_probes} probes"
        notes.append(f"PCA instead of AlignedUMAP, because {reason}.")
        method = "pca"
    info: dict[str, Any] = {"method": method, "seed": seed, "probes": n_probes}
    if method == "pca":
        coordinates, variance = pca(kept)
        info["variance_explained"] = [float(share) for share in variance]
    else:
        if n_neighbors >= n_probes:
            notes.append(f"n_neighbors reduced from {n_neighbors} to {n_probes - 1}: there are {n_probes} probes.")
            n_neighbors = n_probes - 1
        coordinates = aligned_umap(kept, n_neighbors, min_dist, seed)
        info.update(n_neighbors=n_neighbors, min_dist=min_dist, metric="euclidean")
        info["versions"] = {name: version(name) for name in ("umap-learn", "numba", "numpy")}
    trust, neighbours = projection_quality(kept, coordinates)
    k = quality_neighbours(n_probes)
    info.update(quality_neighbours=k, neighbours_kept_chance=k / (n_probes - 1), notes=notes)
    everywhere = np.full((*states.shape[:2], 3), np.nan, dtype=np.float32)
    everywhere[:, defined] = coordinates
    return Projection(list(steps), everywhere, trust, neighbours, info)


# --- two ways down to three dimensions --------------------------------------------------------------------------


def pca(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of all steps together.

    states [step, example, d_model] -> coordinates [step, example, 3], share of the variance per component [3].
    Centred once over all steps, so that a shift of the whole cloud stays visible.
    """
    n_step, n_probe, d_model = states.shape
    flat = states.reshape(-1, d_model)
    centred = flat - flat.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    directions = np.concatenate([directions[:3], np.zeros((max(0, 3 - len(directions)), d_model))])
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.where(directions[np.arange(3), largest] < 0, -1.0, 1.0)[
        :, None
    ]  # a sign that does not depend on LAPACK
    total = (singular**2).sum()
    share = np.zeros(3)
    share[: min(3, len(singular))] = singular[:3] ** 2 / total if total > 0 else 0.0
    return (centred @ directions.T).reshape(n_step, n_probe, 3), share


def aligned_umap(states: np.ndarray, n_neighbors: int, min_dist: float, seed: int, n_epochs: int = 100) -> np.ndarray:
    """UMAP of every step, optimised jointly with each probe tied to itself at neighbouring steps.

    states [step, example, d_model] -> [step, example, 3].

    This is umap.AlignedUMAP's algorithm put together from umap-learn's own parts, for three reasons measured at 0.5.12:
    the class never passes min_dist on to the joint optimisation, so that the setting does nothing; it optimises every
    step's layout alone first and throws it away; and its small helpers cost 40 s of compile time in every process,
    which numpy does in milliseconds. All steps start from one layout, of their mean graph: a difference between two
    frames then comes from the data and not from two starting points. 100 epochs keep as many neighbours as 200, nearly
    (.57 against .58 on 6 x 256 points), in half the time.
    """
    # umap imports torch, and takes seconds to import: only here, so that this module stays light for those who read
    import numba
    from umap.layouts import optimize_layout_aligned_euclidean
    from umap.spectral import spectral_layout
    from umap.umap_ import (
        compute_membership_strengths,
        find_ab_params,
        fuzzy_simplicial_set,
        make_epochs_per_sample,
        smooth_knn_dist,
    )

    for compiled in (smooth_knn_dist, compute_membership_strengths):
        compiled.enable_caching()  # of fuzzy_simplicial_set: they take 7 s to compile, longer than all the rest

    random_state = np.random.RandomState(seed)
    graphs = []  # one fuzzy neighbour graph [example, example] per step, sparse
    for X in states:
        indices, distances = nearest_neighbours(X, n_neighbors)
        graph = fuzzy_simplicial_set(
            X, n_neighbors, random_state, "euclidean", knn_indices=indices, knn_dists=distances.astype(np.float32)
        )[0]
        graph.data[graph.data < graph.data.max() / n_epochs] = 0  # would be drawn less than once, as in umap.UMAP
        graph.eliminate_zeros()
        graphs.append(graph.tocoo())

    start = spectral_layout(states.mean(axis=0), sum(graph.tocsr() for graph in graphs) / len(graphs), 3, random_state)
    start = (start * 10.0 / np.abs(start).max()).astype(np.float32)  # UMAP's usual extent

    layouts = numba.typed.List([start.copy() for _ in graphs])
    heads = numba.typed.List([graph.row.astype(np.int32) for graph in graphs])
    tails = numba.typed.List([graph.col.astype(np.int32) for graph in graphs])
    schedule = numba.typed.List([make_epochs_per_sample(graph.data, n_epochs) for graph in graphs])
    similarity, relations = alignment(np.stack([graph.toarray() > 0 for graph in graphs]))
    a, b = find_ab_params(1.0, min_dist)
    optimize_layout_aligned_euclidean(
        layouts,
        layouts,
        heads,
        tails,
        n_epochs,
        schedule,
        similarity,
        relations,
        random_state.randint(-(2**31) + 1, 2**31 - 1, 3).astype(np.int64),
        a=a,
        b=b,
        lambda_=ALIGNMENT_STRENGTH,
        move_other=True,
        parallel=False,
    )
    return np.stack(list(layouts))


def alignment(neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how strongly, and to whom, each probe is tied at the steps around.

    neighbours [step, example, example] bool -> similarity [step, 2 window + 1, example] float32: the Jaccard overlap of
    the probe's neighbourhoods at the two steps; relations, same shape, int32: the probe's index there, -1 if there is
    no such step.
    """
    n_step, n_probe, _ = neighbours.shape
    similarity = np.zeros((n_step, 2 * ALIGNMENT_WINDOW + 1, n_probe), dtype=np.float32)
    relations = np.full(similarity.shape, -1, dtype=np.int32)
    for step in range(n_step):
        for offset in range(-ALIGNMENT_WINDOW, ALIGNMENT_WINDOW + 1):
            if 0 <= step + offset < n_step:
                both = (neighbours[step] & neighbours[step + offset]).sum(axis=1)
                either = (neighbours[step] | neighbours[step + offset]).sum(axis=1)
                similarity[step, offset + ALIGNMENT_WINDOW] = both / np.maximum(either, 1)
                relations[step, offset + ALIGNMENT_WINDOW] = np.arange(n_probe)
    return similarity, relations


def nearest_neighbours(X: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact Euclidean neighbours, the point itself first. X [example, d] -> indices, distances [example, k]."""
    squares = (X**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * X @ X.T, 0))
    np.fill_diagonal(distances, -1)  # first, also among duplicates
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return indices, np.maximum(np.take_along_axis(distances, indices, axis=1), 0)


# --- can the picture be trusted? --------------------------------------------------------------------------------


def quality_neighbours(n_probes: int) -> int:
    """Neighbours that the quality figures look at; trustworthiness is defined below half of the points."""
    return max(1, min(QUALITY_NEIGHBOURS, (n_probes - 1) // 2))


def projection_quality(states: np.ndarray, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per step, how much of the neighbourhoods the projection keeps.

    states [step, example, d_model], coordinates [step, example, 3] ->
    trustworthiness [step]: 1 = no probe has neighbours in the picture that are far away in truth (about 0.5 by chance);
    neighbours_kept [step]: share of the true nearest neighbours that are nearest in the picture too (by chance
    k / (n - 1)).
    """
    from sklearn.manifold import trustworthiness

    k = quality_neighbours(states.shape[1])
    trust = [trustworthiness(X, Y, n_neighbors=k) for X, Y in zip(states, coordinates, strict=True)]
    overlap = []
    for X, Y in zip(states, coordinates, strict=True):
        true, shown = nearest_neighbours(X, k + 1)[0][:, 1:], nearest_neighbours(Y.astype(np.float64), k + 1)[0][:, 1:]
        overlap.append(np.mean([len(set(t) & set(s)) / k for t, s in zip(true, shown, strict=True)]))
    return np.array(trust, dtype=np.float32), np.array(overlap, dtype=np.float32)


def spread_out(steps: list[int], count: int) -> list[int]:
    """Choose at most `count` of the steps, evenly spread over the list, the first and the last among them."""
    if len(steps) <= count:
        return list(steps)
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, max(count, 2)).round().astype(int))]


# --- the record ---------------------------------------------------------------------------------------------------

AXES = {"coordinates": ["step", "example", "dimension"]}  # the other arrays have one number for each step
UNITS = {
    "coordinates": "of the projection",
    "steps": "optimizer steps",
    "trustworthiness": "0..1",
    "neighbours_kept": "0..1",
}


def save_projection(path: Path, projection: Projection) -> None:
    """Write projection.safetensors, which says in its metadata what is in it."""
    arrays: dict[str, np.ndarray] = {
        "coordinates": np.ascontiguousarray(projection.coordinates, dtype=np.float32),
        "steps": np.array(projection.steps, dtype=np.int64),
        "trustworthiness": projection.trustworthiness,
        "neighbours_kept": projection.neighbours_kept,
    }
    about = {name: {"axes": AXES.get(name, ["step"]), "unit": UNITS[name]} for name in arrays}
    metadata = description(path.parent.name, None, about, projection=projection.info)
    write_atomically(path, safetensors_save(arrays, metadata))


def load_projection(path: Path) -> Projection:
    """Read projection.safetensors, also an earlier version's. Raises InputError if the file is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path} does not exist yet: run analyze_latent_space.py --run_name {path.parent.name}.")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            stated = json.loads(file.metadata()["info"])
        if "knn_overlap" in arrays:  # the name of neighbours_kept once, when `info` was all that was stated
            arrays["neighbours_kept"] = arrays["knn_overlap"]
            stated = {"projection": {**stated, "neighbours_kept_chance": stated["knn_overlap_chance"]}}
        return Projection(
            arrays["steps"].tolist(),
            arrays["coordinates"],
            arrays["trustworthiness"],
            arrays["neighbours_kept"],
            stated["projection"],
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error}): run analyze_latent_space.py again.") from None
