"""docs/metrics.md from the measure table:  python -m gpt2_interp.measure_docs > docs/metrics.md"""

from __future__ import annotations

from gpt2_interp.snapshots import MEASURES, Measure

FOLDERS = {
    "attention": ("Attention", "attention_analysis/<run>/step_<step>.safetensors"),
    "latent": ("Hidden states", "latent_space_evolution/<run>/step_<step>.safetensors"),
    "metrics": ("Learning, weights, neurons", "interpretability_metrics/<run>/step_<step>.safetensors"),
    "derived": ("Derived when drawn", "computed from the stored arrays, never stored"),
}

INTRODUCTION = """\
# Every number, defined

Written by `python -m gpt2_interp.measure_docs` from the measure table in `gpt2_interp/snapshots.py`; a test keeps it so.

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

SCALARS = """\
## Scalars

In TensorBoard under `logs/<run>/`, and in `interpretability_metrics/<run>/training_log.jsonl` under the names in
parentheses.

| scalar | meaning |
|---|---|
| `train/loss` (`loss`) | mean negative log-likelihood of supervised tokens since the last log line, nats/token; dropout on |
| `train/learning_rate` (`learning_rate`) | of the step |
| `train/grad_norm` (`grad_norm`) | norm of the whole gradient of the step, before clipping, after accumulation |
| `train/epoch` (`epoch`) | passes over the training rows |
| `eval/loss` (`eval_loss`) | negative log-likelihood of the validation rows' target tokens, all tokens alike, nats/token |
| `eval/perplexity` (`eval_perplexity`) | exp of it |
| `rouge/rouge1`, `rouge2`, `rougeL`, `rougeLsum` | of generated summaries of the test rows, F1 x 100: the base at step 0, the tuned model at the last step |

`model_outputs/<run>/metrics.json` has, for `base`, `tuned` (best_model), `lead3` and, where the facts of the references are
known, `tuned_shuffled_source` (the tuned model on the next row's article), each with 95% bootstrap bounds over rows (`_low`,
`_high`):

| score | meaning |
|---|---|
| `rouge1`, `rouge2`, `rougeL`, `rougeLsum` | mean F1 x 100 over the test rows (rouge_score, stemmed; for Lsum one sentence a line) |
| `fact_recall`, and `fact_recall_<slot>` | share (%) of the references' values (who, where, how many, when) that the outputs state, in any of their forms; embedded news only |
| `loss`, `perplexity` | of the reference targets, all tokens alike, nats/token, and its exp |
| `loss_<source>`, `perplexity_<source>` | of the rows from one source of a `--mixture` |
| `loss_shuffled_prompt`, `perplexity_shuffled_prompt` | the same targets, those with a prompt behind another row's (creative writing) |
| `n` | test rows; with `--block_size` blocks of them, and intervals resample whole texts and prompts |
"""


def markdown() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for folder, (title, place) in FOLDERS.items():
        parts.append(
            f"## {title}\n\n`{place}`\n" if "/" in place else f"## {title}\n\n{place[0].upper()}{place[1:]}.\n"
        )
        parts += [_entry(measure) for measure in MEASURES if measure.folder == folder]
    parts.append(SCALARS)
    return "\n".join(parts)


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
