"""docs/metrics.md, the page of definitions:  python -m gpt2_interp.report.metrics_page > docs/metrics.md

Its prose is metrics_template.md; the entries come from the tables of measures, scalars and pictures.
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gpt2_interp.analysis.claim_words import FIELDS, WORDS
from gpt2_interp.errors import run_script
from gpt2_interp.figures.registry import PICTURES
from gpt2_interp.snapshots.scalars import SCALARS, SCORES
from gpt2_interp.snapshots.table import FEWEST_PERTURBATIONS, MEASURE, MEASURES, MOST_PERTURBATIONS, Measure

FOLDERS = {  # a measure's folder -> its heading and its file
    "attention": ("Attention", "attention_analysis/<run>/step_<step>.safetensors"),
    "latent": ("Hidden states", "latent_space_evolution/<run>/step_<step>.safetensors"),
    "metrics": (
        "Learning, gradients, weights, neurons, lens, causes",
        "interpretability_metrics/<run>/step_<step>.safetensors",
    ),
    "reference": ("Reference: step 0", "interpretability_metrics/<run>/reference.safetensors"),
}


def markdown() -> str:
    """Return the whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folders = [
        {"title": title, "place": place, "entries": list(_entries(folder))}
        for folder, (title, place) in FOLDERS.items()
    ]
    return environment.get_template("metrics_template.md").render(
        folders=folders,
        scalars=SCALARS,
        scores=SCORES,
        words=WORDS,
        fields=FIELDS,
        fewest=FEWEST_PERTURBATIONS,
        most=MOST_PERTURBATIONS,
    )


def _entries(folder: str) -> Iterator[dict[str, Any]]:
    """The measures of a folder that are not described beside another one."""
    described = {other.name for measure in MEASURES for other in _beside(measure)}
    for measure in MEASURES:
        if measure.folder == folder and measure.name not in described:
            shown = {measure.name, *(other.name for other in _beside(measure))}
            pictures = [picture.name for picture in PICTURES if shown & set(picture.measures)]
            yield {"measure": measure, "beside": _beside(measure), "pictures": pictures}


def _beside(measure: Measure) -> list[Measure]:
    """The rows that the table makes from a measure: on general text, behind other sources, of perturbed bases, of the
    precision."""
    names = (f"{kind}_{measure.name}" for kind in ("control", "other", "band", "floor"))
    return [MEASURE[name] for name in names if name in MEASURE]


if __name__ == "__main__":
    run_script(lambda: print(markdown(), end=""))
