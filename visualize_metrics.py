"""All figures, animations and the HTML reports of a run, from its saved measurements alone.

    python visualize_metrics.py --run_name quickstart
    python visualize_metrics.py --run_name quickstart --only attention_head_evolution report
    python visualize_metrics.py --all

reads   interpretability_metrics/<run>/, attention_analysis/<run>/, latent_space_evolution/<run>/, model_outputs/<run>/
writes  interpretability_metrics/<run>/claims.json                      every change, tested: which may be claimed
        visualizations/<run>/learning_timeline.png .html                loss, use of the source, twins, displacement
        visualizations/<run>/sample_quality.png .html                   variety, repetition, length of its samples
        visualizations/<run>/head_changes.png .html                     which heads changed by more than chance
        visualizations/<run>/temporal_metrics_evolution.png .html       attention and hidden states over time
        visualizations/<run>/attention_head_evolution.gif .html         entropy of every head and its change
        visualizations/<run>/attention_weights_evolution.gif            patterns of the heads that changed most
        visualizations/<run>/drift_map.png .html                        hidden states against the base, layer by layer
        visualizations/<run>/weight_changes_evolution.png .html         which matrices moved
        visualizations/<run>/weight_spectra.png .html                   in how many directions they moved, intruders
        visualizations/<run>/gradient_norm_evolution.png .html          gradient norm and its shares
        visualizations/<run>/changed_neurons.png .html                  neurons that changed most, with their tokens
        visualizations/<run>/neuron_activations_evolution.gif           the same over time
        visualizations/<run>/lens.png .html                             what each layer would predict
        visualizations/<run>/graft.png .html                            which blocks carry what was learned
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

from gpt2_interp.analysis.claims import summary, write_claims
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError, run_script
from gpt2_interp.figures import causes, changes, heads, hidden, learning, neurons, over_time, samples
from gpt2_interp.figures.attention_patterns import pattern_gif
from gpt2_interp.figures.draw_html import figure_page
from gpt2_interp.figures.weights import (
    gradient_plotly,
    gradient_png,
    spectra_plotly,
    spectra_png,
    weight_plotly,
    weight_png,
)
from gpt2_interp.files import write_atomically
from gpt2_interp.report.all_runs import write_overview
from gpt2_interp.report.page import write_run_report
from gpt2_interp.run_paths import RunPaths, measured_runs

PICTURES = {  # name: {suffix: how to draw it}
    "learning_timeline": {".png": learning.timeline_png, ".html": learning.timeline_plotly},
    "sample_quality": {".png": samples.sample_png, ".html": samples.sample_plotly},
    "head_changes": {".png": changes.head_changes_png, ".html": changes.head_changes_plotly},
    "temporal_metrics_evolution": {".png": over_time.temporal_png, ".html": over_time.temporal_plotly},
    "attention_head_evolution": {".gif": heads.head_gif, ".html": heads.head_plotly},
    "attention_weights_evolution": {".gif": pattern_gif},
    "drift_map": {".png": hidden.drift_png, ".html": hidden.drift_plotly},
    "weight_changes_evolution": {".png": weight_png, ".html": weight_plotly},
    "weight_spectra": {".png": spectra_png, ".html": spectra_plotly},
    "gradient_norm_evolution": {".png": gradient_png, ".html": gradient_plotly},
    "changed_neurons": {".png": neurons.neurons_png, ".html": neurons.neurons_plotly},
    "neuron_activations_evolution": {".gif": neurons.neuron_gif},
    "lens": {".png": hidden.lens_png, ".html": hidden.lens_plotly},
    "graft": {".png": causes.graft_png, ".html": causes.graft_plotly},
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
    """Test the run's changes, draw the named pictures, and its report last; returns the files and why others are
    missing."""
    measurements = Measurements(paths)  # says what is wrong with the name before anything is written
    written, missing = [write_claims(measurements)], []
    print(f"{paths.run_name}: " + "\n".join(summary(measurements.claims)))
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
