"""Every single number that a run writes: TensorBoard's scalars with the log's, and the scores in metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """`name`: a tag in TensorBoard, or a key of metrics.json; <...> in it stands for any word."""

    name: str
    unit: str
    meaning: str
    caution: str = ""

    @property
    def log_name(self) -> str | None:
        """Its key in training_log.jsonl: train/x is x there, eval/x is eval_x; None if it is not there."""
        group, _, rest = self.name.partition("/")
        return {"train": rest, "eval": f"eval_{rest}"}.get(group)


SCALARS: Sequence[Scalar] = (
    Scalar(
        "train/loss",
        "nats/token",
        "mean negative log-likelihood of supervised tokens since the last log line",
        "dropout is on, and each step has other rows: compare eval/loss with other runs",
    ),
    Scalar("train/learning_rate", "1", "of the logged step"),
    Scalar(
        "train/grad_norm",
        "nats/token per unit of weight",
        "norm of the whole gradient of the logged step, before clipping, after accumulation",
        "of one step's rows; it scatters",
    ),
    Scalar("train/epoch", "epochs", "passes over the training rows"),
    Scalar(
        "train/tokens_per_second",
        "tokens/s",
        "tokens read since the last log line, prompts included and padding not, over the time of training alone "
        "(loading, forward, backward, optimizer; no evaluation, snapshot or saving), all processes together",
        "the first line of a session holds the first step, which is slower",
    ),
    Scalar("train/examples_per_second", "examples/s", "examples in the same time"),
    Scalar(
        "train/memory_gb",
        "GB (1e9 bytes)",
        "the most held so far by the first process: resident memory of the process on a CPU, tensors on CUDA "
        "(torch.cuda.max_memory_allocated); on MPS what is held now",
        "on a CPU Python and its libraries are in it, about 0.6 GB, and evaluations and snapshots are",
    ),
    Scalar(
        "train/seconds_left",
        "s",
        "until training ends: remaining steps, and remaining checkpoints with their evaluations and snapshots, at "
        "their mean time in this session",
        "before the first checkpoint nothing is known of what one takes, so it is too little; scoring the test rows "
        "at the end is not in it",
    ),
    Scalar("eval/loss", "nats/token", "negative log-likelihood of the validation rows' targets, all tokens alike"),
    Scalar("eval/perplexity", "1", "exp of eval/loss"),
    Scalar("eval/runtime", "s", "time that this evaluation took"),
    Scalar(
        "rouge/rouge1",
        "F1 x 100",
        "of generated summaries of the test rows: the base at step 0, the tuned model (best_model) at the last step",
        "two points and no curve: at every checkpoint only a few samples are generated, for reading",
    ),
    Scalar("rouge/rouge2", "F1 x 100", "likewise, bigrams"),
    Scalar("rouge/rougeL", "F1 x 100", "likewise, longest common subsequence"),
    Scalar("rouge/rougeLsum", "F1 x 100", "likewise, sentence by sentence"),
    Scalar("hparams/best_eval_loss", "nats/token", "lowest eval/loss of the run, of best_model"),
    Scalar("hparams/test_loss", "nats/token", "loss of the tuned model on the test rows (tuned.loss in metrics.json)"),
    Scalar("hparams/test_perplexity", "1", "exp of it"),
    Scalar(
        "hparams/test_perplexity_shuffled_prompt", "1", "tuned.perplexity_shuffled_prompt in metrics.json (stories)"
    ),
    Scalar("hparams/test_fact_recall", "%", "tuned.fact_recall in metrics.json (embedded news)"),
)

SCORES: Sequence[Scalar] = (
    Scalar("rouge1", "F1 x 100", "mean over the test rows (rouge_score, stemmed)"),
    Scalar("rouge2", "F1 x 100", "likewise, bigrams"),
    Scalar("rougeL", "F1 x 100", "likewise, longest common subsequence"),
    Scalar("rougeLsum", "F1 x 100", "likewise, one sentence a line"),
    Scalar(
        "fact_recall",
        "%",
        "share of the references' values (who, where, how many, when) that the outputs state, in any of their forms; "
        "embedded news only",
    ),
    Scalar("fact_recall_<slot>", "%", "the same for one kind of value"),
    Scalar("loss", "nats/token", "of the reference targets, all tokens alike"),
    Scalar("perplexity", "1", "exp of it"),
    Scalar("loss_<source>", "nats/token", "of the rows from one source of a --mixture"),
    Scalar("perplexity_<source>", "1", "exp of it"),
    Scalar(
        "loss_shuffled_prompt",
        "nats/token",
        "of the same targets, those with a prompt behind another row's (creative writing)",
    ),
    Scalar("perplexity_shuffled_prompt", "1", "exp of it"),
    Scalar("n", "rows", "test rows; with --block_size blocks of them, and intervals resample whole texts and prompts"),
)
