"""Draw all pictures, animations and the HTML reports of a run, from its saved measurements alone.

    python visualize_metrics.py --run_name quickstart
    python visualize_metrics.py --run_name quickstart --only attention_head_evolution report
    python visualize_metrics.py --run_name quickstart --vector
    python visualize_metrics.py --all

reads   interpretability_metrics/<run>/, attention_analysis/<run>/, latent_space_evolution/<run>/, model_outputs/<run>/
writes  interpretability_metrics/<run>/claims.json               every change, tested, and the words that follow
        visualizations/<run>/                                    the pictures below; with --vector each as PDF too
        visualizations/<run>/interpretability_report.html        all of it in one file
        visualizations/interpretability_report.html              all runs compared

It needs neither torch nor the model, and can run at any time, also while training goes on. The 3-D pictures of the
latent space come from analyze_latent_space.py; run that first to have them in the report.
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import argparse
import warnings
from pathlib import Path

from gpt2_interp.cli.script_parser import ScriptParser, nearest
from gpt2_interp.errors import InputError, run_script
from gpt2_interp.figures.registry import PICTURES
from gpt2_interp.run_paths import METRICS, VISUALIZATIONS, RunPaths, check_can_write, measured_runs

REPORT = "report"
DRAWN_HERE = {picture.name: picture for picture in PICTURES if picture.script == "visualize_metrics.py"}


def main() -> None:
    arguments = parse_arguments()
    runs = measured_runs(arguments.root) if arguments.all else [arguments.run_name]
    if not runs:
        raise InputError(f"no run under {arguments.root} has measurements: train one first with ./run_experiment.sh.")
    names = arguments.only or [*DRAWN_HERE, REPORT]
    from gpt2_interp.report.all_runs import write_overview  # here: drawing libraries take seconds to import

    written, failed = [], []
    for run in runs:
        try:
            paths, problems = draw_run(RunPaths(run, arguments.root), names, arguments.vector)
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


def draw_run(paths: RunPaths, names: list[str], vector: bool = False) -> tuple[list[Path], list[str]]:
    """Test the run's changes, draw the named pictures, and its report last; returns the files and why others are
    missing."""
    from tqdm import tqdm

    from gpt2_interp.analysis.claim_words import summary
    from gpt2_interp.analysis.claims import write_claims
    from gpt2_interp.analysis.measurements import Measurements
    from gpt2_interp.figures.draw import write_picture
    from gpt2_interp.report.page import write_run_report

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
                written += write_picture(DRAWN_HERE[name], measurements, vector)
            except InputError as problem:  # this measure is not there (yet); the others may be
                missing.append(f"{name}: {problem}")
    return written, missing


def parse_arguments() -> argparse.Namespace:
    pictures = "\n".join(f"  {picture.name:30}{picture.shows}" for picture in DRAWN_HERE.values())
    parser = ScriptParser(description=__doc__, epilog=f"pictures, and what they show:\n{pictures}")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run_name", help="the run to draw")
    which.add_argument("--all", action="store_true", help="draw every run that has measurements")
    parser.add_argument(
        "--vector", action="store_true", help="also write a PDF beside each picture, of an animation its last frame"
    )
    only = "draw only these of the pictures below; report: both HTML reports"
    parser.add_argument("--only", nargs="+", metavar="NAME", help=only)
    parser.add_argument("--root", type=Path, default=Path("."), help="the folder that holds the output folders")
    arguments = parser.parse_args()
    known = [*DRAWN_HERE, REPORT]
    for name in arguments.only or ():
        if name not in known:
            raise InputError(f"--only {name}: no such picture{nearest(name, known)}; --help lists them.")
    places = [arguments.root / folder / (arguments.run_name or "") for folder in (METRICS, VISUALIZATIONS)]
    check_can_write(arguments.root, places)
    if arguments.run_name and arguments.run_name not in (runs := measured_runs(arguments.root)):
        RunPaths(arguments.run_name, arguments.root)  # a name that can't be a folder's is refused first
        run = f"--run_name {arguments.run_name}: this run has no measurements under {arguments.root}"
        raise InputError(f"{run}{nearest(arguments.run_name, runs)}; train it first.")
    return arguments


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    run_script(main)
