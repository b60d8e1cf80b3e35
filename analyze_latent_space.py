"""Project the probes' hidden states of all steps into one space: snapshots -> projection -> 3-D page and GIF.

    python analyze_latent_space.py --run_name quickstart
    python analyze_latent_space.py --run_name quickstart --layer 3 --method pca

reads   interpretability_metrics/<run>/, latent_space_evolution/<run>/step_*.safetensors
writes  latent_space_evolution/<run>/projection.safetensors         coordinates, quality figures, settings
        visualizations/<run>/latent_space_3d_evolution.html         slider over the steps
        visualizations/<run>/latent_space_3d_rotation.gif           the camera turns while the steps advance

It can run at any time, also while training goes on.
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2_interp.analysis.projection import (
    MIN_DIST,
    N_NEIGHBORS,
    PROJECTIONS,
    Projection,
    project,
    save_projection,
    spread_out,
)
from gpt2_interp.cli.script_parser import ScriptParser
from gpt2_interp.errors import InputError, run_script
from gpt2_interp.figures.registry import PICTURES
from gpt2_interp.run_paths import RunPaths, check_can_write
from gpt2_interp.snapshots.table import POOLINGS

if TYPE_CHECKING:
    from gpt2_interp.analysis.measurements import Measurements


def main() -> None:
    arguments = parse_arguments()
    from gpt2_interp.analysis.measurements import open_run  # after --help and mistakes, which need not wait for scipy

    measurements = open_run(arguments.run_name, arguments.root)
    paths = measurements.paths

    # 1. The states to project: one layer, one pooling, the steps evenly spread over the run.
    layer_name, layer = choose_layer(measurements, arguments.layer)
    steps, states = load_states(measurements, layer, arguments.pooling, arguments.max_steps)
    n_probe, d_model = states.shape[1:]
    print(f"{len(steps)} steps x {n_probe} probes x {d_model} dimensions: {layer_name}, {arguments.pooling}")

    # 2. One shared three-dimensional space for all of them, and how well it keeps neighbourhoods.
    started = time.perf_counter()
    projection = project(states, steps, arguments.method, arguments.n_neighbors, arguments.min_dist, arguments.seed)
    projection.info.update(layer=layer_name, pooling=arguments.pooling)
    save_projection(paths.latent / "projection.safetensors", projection)
    for note in projection.info["notes"]:
        print(f"note: {note}")
    print(f"{projection.info['method']} took {time.perf_counter() - started:.1f} s")

    # 3. The pictures.
    written = [paths.latent / "projection.safetensors", *draw(projection, measurements, arguments.vector)]
    for path in written:
        print(f"wrote {path}")


def choose_layer(measurements: Measurements, wanted: str) -> tuple[str, int]:
    """Return (label, index) of the hidden layer; "last" or a number, 0 being the embedding."""
    labels = measurements.labels("hidden_layer")
    if wanted == "last":
        return labels[-1], len(labels) - 1
    if not wanted.isdigit() or int(wanted) >= len(labels):
        raise InputError(
            f"--layer {wanted} does not exist: give 'last' or a number from 0 (embedding) to {len(labels) - 1}."
        )
    return labels[int(wanted)], int(wanted)


def load_states(measurements: Measurements, layer: int, pooling: str, max_steps: int) -> tuple[list[int], np.ndarray]:
    """Return (steps, states [step, example, d_model]). Damaged snapshots are named and left out."""
    at = measurements.labels("pooling").index(pooling)
    steps, states = [], []
    for step in spread_out(measurements.steps, max_steps):
        try:
            # [example, pooling, hidden_layer, d_model], stored in half precision
            pooled = measurements.store.load(step, ["hidden_pooled"]).get("hidden_pooled")
        except InputError as damaged:
            print(f"step {step} is left out: {damaged}", file=sys.stderr)
            continue
        if pooled is not None:
            states.append(pooled[:, at, layer].astype(np.float32))
            steps.append(step)
    if not steps:
        name = measurements.paths.run_name
        raise InputError(f"run {name!r} has no intact snapshot of its hidden states: train it again.")
    return steps, np.stack(states)


def draw(projection: Projection, measurements: Measurements, vector: bool = False) -> list[Path]:
    """Write the page and the GIF, with `vector` also a PDF of its last frame; returns their paths."""
    from gpt2_interp.figures.draw import write_layout  # here: drawing libraries take seconds to import
    from gpt2_interp.figures.latent import LatentSpace

    n_probe = projection.coordinates.shape[1]
    space = LatentSpace(projection, measurements.probe_ids(n_probe), measurements.clusters(n_probe))
    row = next(picture for picture in PICTURES if picture.script == "analyze_latent_space.py")
    return write_layout(space, row, measurements, vector)


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(description=__doc__)
    parser.add_argument("--run_name", required=True, help="the run to analyse")
    parser.add_argument("--layer", default="last", help="last, or a number from 0 (embedding) to n_layer")
    parser.add_argument(
        "--pooling", default="target_mean", choices=POOLINGS, help="over which tokens a probe's states are averaged"
    )
    parser.add_argument(
        "--method",
        default=PROJECTIONS[0],
        choices=PROJECTIONS,
        help="aligned_umap keeps neighbourhoods; pca keeps distances along the widest directions, fast",
    )
    parser.add_argument("--n_neighbors", type=int, default=N_NEIGHBORS, help="UMAP: size of a neighbourhood")
    parser.add_argument("--min_dist", type=float, default=MIN_DIST, help="UMAP: how tightly points may pack")
    parser.add_argument("--seed", type=int, default=0, help="random seed of UMAP")
    parser.add_argument(
        "--max_steps",
        type=int,
        default=20,
        help="project at most this many steps, evenly spread, the first and the last among them",
    )
    parser.add_argument("--vector", action="store_true", help="also write a PDF of the animation's last frame")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder that holds the output folders")
    arguments = parser.parse_args()
    if arguments.n_neighbors < 2:
        raise InputError(f"--n_neighbors {arguments.n_neighbors} is too small: a neighbourhood needs at least 2.")
    if not 0 <= arguments.min_dist <= 1:
        raise InputError(f"--min_dist {arguments.min_dist:g} must lie between 0 and 1.")
    if arguments.max_steps < 2:
        raise InputError(f"--max_steps {arguments.max_steps} is too small: a change needs at least 2 steps.")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed} must not be negative.")
    paths = RunPaths(arguments.run_name, arguments.root)
    check_can_write(arguments.root, (paths.latent, paths.visualizations))
    return arguments


if __name__ == "__main__":
    # "n_jobs overridden by random_state", "graph is not connected": both expected here, and no one can act on them
    warnings.filterwarnings("ignore", module="umap|sklearn")
    run_script(main)
