"""All figures, animations and the HTML reports of a run, from its saved measurements alone.

    python visualize_metrics.py --run_name quickstart
    python visualize_metrics.py --run_name quickstart --only attention_head_evolution report
    python visualize_metrics.py --all

reads   interpretability_metrics/<run>/, attention_analysis/<run>/, latent_space_evolution/<run>/, model_outputs/<run>/
writes  visualizations/<run>/temporal_metrics_evolution.png .html       loss, attention, drift of the hidden states
        visualizations/<run>/weight_changes_evolution.png .html         which matrices moved
        visualizations/<run>/gradient_norm_evolution.png .html          gradient norm and its shares
        visualizations/<run>/attention_head_evolution.gif .html         entropy of every head and its change
        visualizations/<run>/attention_weights_evolution.gif            patterns of the heads that changed most
        visualizations/<run>/neuron_activations_evolution.gif           neurons that changed most
        visualizations/<run>/interpretability_report.html               all of it in one file
        visualizations/interpretability_report.html                     all runs compared

It needs neither torch nor the model, and can run at any time, also while training goes on. The 3-D pictures of the
latent space come from analyze_latent_space.py; run that first to have them in the report.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from tqdm import tqdm

from gpt2_interp import animation, figures
from gpt2_interp.errors import InputError, run_script
from gpt2_interp.figures import Measurements, figure_page
from gpt2_interp.report import write_overview, write_run_report
from gpt2_interp.run_paths import RunPaths, measured_runs
from gpt2_interp.snapshots import write_atomically

PICTURES = {  # name: {suffix: how to draw it}
    "temporal_metrics_evolution": {".png": figures.temporal_png, ".html": figures.temporal_plotly},
    "weight_changes_evolution": {".png": figures.weight_png, ".html": figures.weight_plotly},
    "gradient_norm_evolution": {".png": figures.gradient_png, ".html": figures.gradient_plotly},
    "attention_head_evolution": {".gif": animation.head_gif, ".html": animation.head_plotly},
    "attention_weights_evolution": {".gif": animation.pattern_gif},
    "neuron_activations_evolution": {".gif": animation.neuron_gif},
}
REPORT = "report"


def main() -> None:
    arguments = parse_arguments()
    runs = measured_runs(arguments.root) if arguments.all else [arguments.run_name]
    if not runs:
        raise InputError(f"no run under {arguments.root} has measurements: train one first with ./run_experiment.sh.")
    names = arguments.only or [*PICTURES, REPORT]

    written, failed = [], []
    for run in runs:
        try:
            paths, problems = draw_run(RunPaths(run, arguments.root), names)
            written += paths
            failed += problems
        except InputError as problem:
            if not arguments.all:
                raise
            failed.append(str(problem))
    if REPORT in names and (overview := write_overview(arguments.root)):
        written.append(overview)

    for path in written:
        print(f"wrote {path}")
    for problem in failed:
        print(f"not drawn: {problem}")
    if not written:
        raise InputError("nothing could be drawn; the lines above say why.")


def draw_run(paths: RunPaths, names: list[str]) -> tuple[list[Path], list[str]]:
    """Draw the named pictures of one run, and its report last; returns the files and why others are missing."""
    measurements = Measurements(paths)
    written, missing = [], []
    in_order = sorted(names, key=lambda name: name == REPORT)  # the report last: it takes in the others
    with tqdm(in_order, desc=paths.run_name, unit="figure") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            if name == REPORT:
                written.append(write_run_report(measurements))
                continue
            try:
                written += draw(measurements, name)
            except InputError as problem:  # this measure is not there (yet); the others may be
                missing.append(f"{name}: {problem}")
    return written, missing


def draw(measurements: Measurements, name: str) -> list[Path]:
    """One picture in all its formats."""
    written = []
    for suffix, make in PICTURES[name].items():
        path = measurements.paths.visualizations / f"{name}{suffix}"
        drawn = make(measurements)
        write_atomically(path, figure_page(drawn, name) if suffix == ".html" else drawn)
        written.append(path)
    return written


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run_name", help="the run to draw")
    which.add_argument("--all", action="store_true", help="draw every run that has measurements")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[*PICTURES, REPORT],
        help="draw only these: " + ", ".join([*PICTURES, REPORT]) + " (report: both HTML reports)",
    )
    parser.add_argument(
        "--root", type=Path, default=Path("."), help="the folder that holds the output folders (default: .)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    run_script(main)
