"""docs/metrics.md from the tables of measures and scalars:  python -m gpt2_interp.measure_docs > docs/metrics.md"""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_interp.scalars import SCALARS, SCORES, Scalar
from gpt2_interp.snapshots import MEASURES, Measure

FOLDERS = {
    "attention": ("Attention", "attention_analysis/<run>/step_<step>.safetensors"),
    "latent": ("Hidden states", "latent_space_evolution/<run>/step_<step>.safetensors"),
    "metrics": ("Learning, weights, neurons", "interpretability_metrics/<run>/step_<step>.safetensors"),
    "derived": ("Derived when drawn", "computed from the stored arrays, never stored"),
}

INTRODUCTION = """\
# Every number, defined

Written by `python -m gpt2_interp.measure_docs` from the tables in `gpt2_interp/snapshots.py` and
`gpt2_interp/scalars.py`; tests keep it so.

A **snapshot** is what was measured on the same held-out probes at one optimizer step; step 0 is the untouched base.
Values are float32, from eval-mode forward passes, kept per probe, averaged over positions inside a probe first and then
over probes with equal weight. Undefined is NaN, never 0. Sizes and labels of the axes stand in `run.json` under `axes`.

A probe is `source | template | target`, teacher-forced. Regions: **Q**, the positions that predict a target token, and
**A**, all positions from 8 on. a_ij is attention after softmax (query i, key j <= i, m = i + 1 visible keys). Pooled
hidden states: `source_mean` over the source without its first token, `target_mean` over Q, `prompt_last` at the last
prompt position. `hidden_layer` 0 is the embedding and n_layer the last block's output *before* `ln_f`.

Bands in the figures are 95% bootstrap intervals over probes. They say how well the mean over *these kinds of texts* is
known. They don't say that a change came from learning the task: there is no null beside it yet.
"""

SCALAR_INTRODUCTION = """\
## Scalars

In TensorBoard under `logs/<run>/`. Those of `train/` and `eval/` are also in
`interpretability_metrics/<run>/training_log.jsonl`, `train/loss` as `loss` and `eval/loss` as `eval_loss`, beside `step`.
Those of `hparams/` are written at the end of a run for the HPARAMS tab, with the run's main settings; so are those of
`rouge/`. Generated samples are under TEXT, at every checkpoint.
"""

SCORE_INTRODUCTION = """\
## Scores

`model_outputs/<run>/metrics.json` has them for `base`, `tuned` (best_model), `lead3` and, where the facts of the references
are known, `tuned_shuffled_source` (the tuned model on the next row's article), each with 95% bootstrap bounds over rows
(`_low`, `_high`).
"""


def markdown() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for folder, (title, place) in FOLDERS.items():
        parts.append(
            f"## {title}\n\n`{place}`\n" if "/" in place else f"## {title}\n\n{place[0].upper()}{place[1:]}.\n"
        )
        parts += [_entry(measure) for measure in MEASURES if measure.folder == folder]
    parts += [SCALAR_INTRODUCTION, _table("scalar", SCALARS), SCORE_INTRODUCTION, _table("score", SCORES)]
    return "\n".join(parts)


def _table(title: str, scalars: Sequence[Scalar]) -> str:
    lines = [f"| {title} | unit | meaning |", "|---|---|---|"]
    for scalar in scalars:
        caution = f". Caution: {scalar.caution}" if scalar.caution else ""
        lines.append(f"| `{scalar.name}` | {scalar.unit} | {scalar.meaning}{caution} |")
    return "\n".join(lines) + "\n"


def _entry(measure: Measure) -> str:
    axes = ", ".join(measure.axes) or "a single number"
    lines = [
        f"### {measure.name}\n",
        f"{measure.meaning}\n",
        f"- axes: {axes}; {measure.dtype}; unit: {measure.unit}",
        f"- formula: {measure.formula}",
    ]
    if measure.source:
        lines.append(f"- source: {measure.source}")
    if measure.caution:
        lines.append(f"- caution: {measure.caution}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
