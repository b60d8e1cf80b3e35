"""docs/metrics.md from the tables of measures and scalars:  python -m gpt2_interp.snapshots.docs > docs/metrics.md"""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_interp.snapshots.scalars import SCALARS, SCORES, Scalar
from gpt2_interp.snapshots.table import MEASURES, Measure

FOLDERS = {
    "attention": ("Attention", "attention_analysis/<run>/step_<step>.safetensors"),
    "latent": ("Hidden states", "latent_space_evolution/<run>/step_<step>.safetensors"),
    "metrics": (
        "Learning, gradients, weights, neurons, lens, causes, bands",
        "interpretability_metrics/<run>/step_<step>.safetensors",
    ),
    "reference": ("Reference: step 0", "interpretability_metrics/<run>/reference.safetensors"),
}

INTRODUCTION = """\
# Every number, defined

Written by `python -m gpt2_interp.snapshots.docs` from the tables in `gpt2_interp/snapshots/table.py` and
`gpt2_interp/snapshots/scalars.py`; tests keep it so.

A **snapshot** is what was measured on the same held-out probes at one optimizer step; step 0 is the untouched base.
Values are float32, from eval-mode forward passes, kept per probe, averaged over positions inside a probe first and then
over probes with equal weight. Undefined is NaN, never 0. Sizes and labels of the axes stand in `run.json` under `axes`.

A probe is `source | template | target`, teacher-forced. Regions: **Q**, the positions that predict a target token, and
**A**, all positions from 8 on. a_ij is attention after softmax (query i, key j <= i, m = i + 1 visible keys). Pooled
hidden states: `source_mean` over the source without its first token, `target_mean` over Q, `prompt_last` at the last
prompt position. `hidden_layer` 0 is the embedding and n_layer the last block's output *before* `ln_f`.

The source S leaves out position 0. `few_example` are up to 64 of the examples, as many of each half of the probes (whole
clusters), for what is expensive; `kl_example` 32 of these. `control_example` is general text, `training_example` rows
that are trained on, `pair` articles with one fact swapped, `sequence` random tokens read twice. `probe_set.json` lists
them, with the cluster and the half of each.

**Tiers.** light: every snapshot. heavy: the first, the last, and the first after each quarter of the run. ends: the first
and the last. final: the last. `--measures` chooses groups; ablation, graft and band are left out where each would take
more than 1% of the training (and more than 10 TFLOP), and `run.json` says so under `measures`.

## When a change is believed

`claims.json` goes through every measure marked *claimed*, unit by unit (a head, a layer, or the model):

1. Paired differences to step 0 per probe, averaged per cluster: the probes of one cluster are not independent.
2. Simultaneous 95% intervals, mean +- c x standard error over clusters, for all units and snapshots of a measure. c is the
   larger of two 95% quantiles of the largest |t|: over 10,000 flips of the signs of whole clusters, and over 2,000 draws
   of whole clusters with replacement (bootstrap-t). Flips alone give a valid test of "nothing changed", but where much
   changed, or unevenly, their intervals are too narrow (below).
3. The **band**: 19 random perturbations of the base, each matrix with the Frobenius norm of its real change (LoRA: and its
   rank). The band is the largest change of any unit in any of them.
4. The **floor**: what the precision of training alone changes at step 0.
5. **differs**: the interval excludes zero. **claimed**: and the change exceeds band and floor. **task-specific**: and its
   interval lies beyond that of the change on general text. **causal**: a head whose exact ablation costs something, and
   something else than at step 0. **reproduced**: the same in at least 5 runs that differ in their seed only, and larger
   than their largest difference / sqrt 2.

Coverage of the simultaneous intervals, nominal 95%, over 1,500 simulated runs of 24 units:

| clusters, what changed | flips alone | the larger of both |
|---|---|---|
| 40, nothing | 94.8% | 95.6% |
| 40, all units | 65% | 95.4% |
| 40, all units, log-normal (sigma 0.6) | 51% | 95.3% |
| 12, log-normal (sigma 0.4) | 85% | 97.0% |

The price: with few clusters the intervals are wide (c is 7 to 9 with 8 of them). Where the change is as large as those of the
perturbations, 1.6 to 4.6% of 2,000 simulated runs claim anything (24 heads, 40 clusters of 4 probes, intraclass correlation
0.8); a planted effect of twice the band is found in more than 90% of 200. `tests/test_claims.py` and
`tests/measures/test_inference.py` repeat this with fewer runs.

CKA, RSA and kNN overlap are not claimed: they have the spread over 200 half-samples of the probes. Spectra have none.
Bands around lines in the figures are 95% bootstrap intervals over probes: how well the mean over *these kinds of texts* is
known, not whether training caused it.
"""

SCALAR_INTRODUCTION = """\
## Scalars

In TensorBoard under `logs/<run>/`. Those of `train/` and `eval/` are also in
`interpretability_metrics/<run>/training_log.jsonl`, `train/loss` as `loss` and `eval/loss` as `eval_loss`, beside `step`.
Those of `hparams/` are written at the end of a run for the HPARAMS tab, with the run's main settings; so are those of
`rouge/`. Generated samples are under TEXT, at every checkpoint (the first 4 of them), and numbers of all under `samples/`.
"""

SCORE_INTRODUCTION = """\
## Scores

`model_outputs/<run>/metrics.json` has them for `base`, `tuned` (best_model), `lead3` and, where the facts of the references
are known, `tuned_shuffled_source` (the tuned model on the next row's article), each with 95% bootstrap bounds over rows
(`_low`, `_high`).

From `texts` on the numbers are of the texts themselves, whatever they should say, and `reference` has them too: the
rows' own targets for the same prompts, the anchor without which none of them means anything. Words are runs of letters and digits
(don't is one), and each punctuation mark counts as one in an n-gram; that suits scripts with spaces between words. The
simulated coverage of the jackknife's intervals, nominal 95%, is 95 to 97% for 16 and 64 texts (`tests/test_text_quality.py`
repeats it with fewer).
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
        f"- group: {measure.group}; {measure.tier}" + ("; claimed" if measure.claimed else ""),
        f"- formula: {measure.formula}",
    ]
    if measure.source:
        lines.append(f"- source: {measure.source}")
    if measure.caution:
        lines.append(f"- caution: {measure.caution}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
