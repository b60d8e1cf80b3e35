"""Glossary of the single numbers that a run writes: TensorBoard's scalars with the log's, and the scores in
metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """One number. `name`: a tag in TensorBoard, or a key of metrics.json; <...> in it stands for any word."""

    name: str
    unit: str
    meaning: str
    caution: str = ""

    @property
    def log_name(self) -> str | None:
        """Return the scalar's key in training_log.jsonl: train/x is x there, eval/x is eval_x; None if the log lacks
        it."""
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
    Scalar(
        "eval/loss",
        "nats/token",
        "negative log-likelihood of the validation rows' targets, all tokens alike; step 0 is the base",
    ),
    Scalar("eval/perplexity", "1", "exp(eval/loss)"),
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
    Scalar(
        "samples/perplexity",
        "1",
        "exp(nats/token) of the samples of a checkpoint under that checkpoint, behind their prompts; the end-of-text "
        "token counts where the model wrote it. Step 0 is the base. From 8 samples on, like all of samples/",
        "not a score: a model that repeats itself is sure of what comes next, and its perplexity falls (Holtzman et "
        "al. 2020, The curious case of neural text degeneration). Good samples are about as likely as the references: "
        "read it beside samples/perplexity_references and samples/repetition_4",
    ),
    Scalar(
        "samples/perplexity_references",
        "1",
        "the same of the references of the same prompts, cut where a sample would have to end",
        "samples are drawn from the likely words (top-p 0.9, or greedily) and so lie below",
    ),
    Scalar("samples/words", "words", "mean length; --max_target_length ends a sample that does not end itself"),
    Scalar(
        "samples/fact_recall",
        "%",
        "fact_recall below, of the samples (embedded news)",
        "few texts: 16 have 64 facts, and 95% of the time the share lies within 12 points of that of many texts",
    ),
    Scalar("samples/fact_precision", "%", "fact_precision below, of the samples; absent where they write no value"),
    Scalar("samples/repetition_4", "share", "repetition_4 below, of the samples"),
    Scalar("samples/self_bleu", "0 to 1", "self_bleu below, of the samples"),
    Scalar(
        "samples/distinct_2",
        "share",
        "distinct_2 below, of the samples",
        "it falls when the samples become longer: sample_quality.png compares at equal size",
    ),
    Scalar(
        "inside/<group>/<measure>",
        "as the measure",
        "of a snapshot: mean of one measure over all probes, layers and heads that have a value, in the region and "
        "pooling that are claimed; CUSTOM SCALARS has one chart for each group",
        "a mean hides heads that change in opposite directions: see the pictures",
    ),
    Scalar("hparams/best_eval_loss", "nats/token", "lowest eval/loss of the run, of best_model"),
    Scalar("hparams/test_loss", "nats/token", "loss of the tuned model on the test rows (tuned.loss in metrics.json)"),
    Scalar("hparams/test_perplexity", "1", "exp(hparams/test_loss)"),
    Scalar(
        "hparams/test_perplexity_shuffled_prompt", "1", "tuned.perplexity_shuffled_prompt in metrics.json (stories)"
    ),
    Scalar("hparams/test_fact_recall", "%", "tuned.fact_recall in metrics.json (embedded news)"),
    Scalar("hparams/test_fact_precision", "%", "tuned.fact_precision in metrics.json (embedded news)"),
    Scalar("hparams/test_rows_right", "%", "tuned.rows_right in metrics.json (embedded news)"),
)

SCORES: Sequence[Scalar] = (
    Scalar("rouge1", "F1 x 100", "mean over the test rows (rouge_score, stemmed)"),
    Scalar("rouge2", "F1 x 100", "likewise, bigrams"),
    Scalar("rougeL", "F1 x 100", "likewise, longest common subsequence"),
    Scalar("rougeLsum", "F1 x 100", "likewise, one sentence a line"),
    Scalar(
        "fact_recall",
        "%",
        "share of the references' facts (who, where, how many, when) that the outputs state: of all values of its type "
        "that an output writes, the fact's is the only one. A surname names a person where no other first name stands "
        "before it. Embedded news only, like all of fact_ and rows_right",
        "before `fact_rule` stood in metrics.json, fact_recall was what fact_recall_lenient is now",
    ),
    Scalar("fact_recall_<slot>", "%", "the same for one kind of fact"),
    Scalar(
        "fact_recall_lenient",
        "%",
        "share of the references' facts of which any form stands in the output as a whole word",
        "of a person the surname is enough, behind a wrong first name too, and a second value beside the right one is "
        "allowed",
    ),
    Scalar("fact_recall_lenient_<slot>", "%", "the same for one kind of fact"),
    Scalar(
        "fact_precision",
        "%",
        "share of the different values (persons, places, numbers, dates) that the outputs write that are the "
        "references'; the others are fact_distractor, fact_blend and fact_made_up. Absent if an output writes none",
        "the shuffled article's values count as made up, because the row's own article lacks them",
    ),
    Scalar("fact_precision_<slot>", "%", "the same for one kind of value"),
    Scalar("fact_distractor", "%", "share of the values written that are another value of the article: a wrong choice"),
    Scalar("fact_distractor_<slot>", "%", "the same for one kind of value"),
    Scalar(
        "fact_blend",
        "%",
        "share of the values written that the article lacks, but whose parts are all of its values: first name and "
        "surname; prefix, onset and ending of a town; day and month; the digits of numbers that have as many",
        "some arise by chance: of made-up numbers of two digits about one in ten",
    ),
    Scalar("fact_blend_<slot>", "%", "the same for one kind of value"),
    Scalar("fact_made_up", "%", "share of the values written that are none of these: a copy that failed"),
    Scalar("fact_made_up_<slot>", "%", "the same for one kind of value"),
    Scalar("rows_right", "%", "share of the outputs that state every fact and write no other value. Bounds: Wilson"),
    Scalar("values_written", "values", "different values of all outputs, which fact_precision is of"),
    Scalar(
        "source_precision",
        "%",
        "share of an output's numbers, dates and names that stand in the source, where no facts are known; `reference` "
        "has it too. Defined below",
    ),
    Scalar("source_precision_<kind>", "%", "the same of numbers, dates or names"),
    Scalar("loss", "nats/token", "of the reference targets, all tokens alike"),
    Scalar("perplexity", "1", "exp(loss)"),
    Scalar("loss_<source>", "nats/token", "of the rows from one source of a --mixture"),
    Scalar("perplexity_<source>", "1", "exp(loss_<source>)"),
    Scalar(
        "loss_shuffled_prompt",
        "nats/token",
        "of the same targets, those with a prompt behind another row's (creative writing)",
    ),
    Scalar("perplexity_shuffled_prompt", "1", "exp(loss_shuffled_prompt)"),
    Scalar(
        "texts",
        "texts",
        "the texts that the following are of: outputs for the first 64 test rows (stories: 16), or their references. "
        "All that follow are missing below 8",
    ),
    Scalar("words", "words", "mean length, punctuation not counted", "look at `finished` too"),
    Scalar(
        "finished",
        "share",
        "texts that ended by themselves, and not at --max_target_length; references: that are no longer than that. "
        "Longer references are cut there for all these numbers. Bounds: Wilson",
    ),
    Scalar(
        "judged_by_base",
        "1",
        "exp(nats/token) of the texts behind their prompts under the untouched base: one judge for all texts. Not for "
        "a base of random weights",
        "likely is not good: repetition is likely (Holtzman et al. 2020), and what fine-tuning is for, another style, "
        "is unlikely under the base",
    ),
    Scalar(
        "judged_by_tuned",
        "1",
        "the same under best_model. Of `tuned` it is its own perplexity, as judged_by_base is of `base`: own "
        "perplexities of two models have two judges and can't be compared",
        "of its own samples it falls when they repeat themselves",
    ),
    Scalar(
        "repetition_4",
        "share",
        "1 - different / all 4-grams of words inside a text, mean over texts: seq-rep-4 of Welleck et al. 2020 (Neural "
        "text generation with unlikelihood training), rep-4 / 100 of Su et al. 2022 (A contrastive framework for "
        "neural text generation), there of tokens",
        "it grows with the length of a text, and good texts repeat themselves too: lower than the references' is not "
        "better",
    ),
    Scalar(
        "self_bleu",
        "0 to 1",
        "mean BLEU-4 (nltk's, smoothing method 1) of each text with all others as references (Zhu et al. 2018, "
        "Texygen). Bounds: jackknife, because a bootstrap draws a text twice, and its copy has BLEU 1",
        "it grows with the number of texts: compare equal `texts`. High: the model writes the same for every prompt, "
        "or the task has set phrases; low says nothing about sense",
    ),
    Scalar(
        "distinct_<n>",
        "share",
        "different / all n-grams of words of all texts together (Li et al. 2016, A diversity-promoting objective "
        "function for neural conversation models). No bounds: they would be of this amount of text",
        "it falls with the amount of text, so a model that writes more looks poorer; noise has the highest",
    ),
    Scalar(
        "distinct_<n>_equal",
        "share",
        "the same, expected among as many n-grams as each of the compared sets has: sum over n-grams of "
        "1 - C(all - its count, size) / C(all, size), over size (rarefaction, Hurlbert 1971). Size: what the smallest "
        "set has without its longest text. Bounds: jackknife",
        "of one run's sets of texts; sizes of other runs differ",
    ),
    Scalar("n", "rows", "test rows; with --block_size blocks of them, and intervals resample whole texts and prompts"),
)
