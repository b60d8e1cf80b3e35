"""The same test rows through the base and the tuned model: outputs, scores, and the scores of baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpt2_interp.data.examples import Example, ExampleBuilder
from gpt2_interp.data.rows import Row
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.evaluation.facts import fact_numbers, fact_ratios, fact_scores
from gpt2_interp.evaluation.losses import TargetLosses, loss_scores, target_losses
from gpt2_interp.evaluation.rouge import ROUGE_TYPES, lead3, mean_rouge, rouge_per_row
from gpt2_interp.evaluation.source_support import support_ratios
from gpt2_interp.generation.generate import Generated, generate, text_of
from gpt2_interp.generation.settings import Decoding, DecodingSettings
from gpt2_interp.statistics.intervals import share_interval
from gpt2_interp.statistics.ratios import Ratio, bounded, differences
from gpt2_interp.statistics.texts import FEWEST_TEXTS, compare_texts

WRITTEN_STORIES = 16  # creative writing is scored by perplexity; this many stories are written for reading
JUDGED_TEXTS = 64  # outputs, and references, that are judged as texts whatever they should say
PLAIN_TEXT_PROMPT = 16  # tokens of a text without prompt that begin its continuation


@dataclass(frozen=True)
class Result:
    """Scores of one model on the test rows, and its outputs in the rows' order (for stories, of the first few), also as
    they were generated."""

    scores: dict[str, float]
    outputs: list[str]
    generated: list[Generated] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)  # scores that can be compared row by row

    def summary(self) -> str:
        shown = ["rouge1", "rouge2", "rougeL", "fact_recall", "fact_precision", "source_precision", "perplexity"]
        shown += [name for name in self.scores if name.startswith("perplexity_") and f"{name}_low" in self.scores]
        parts = []
        for name in shown:
            if name in self.scores:
                bounds = [self.scores.get(f"{name}_{side}") for side in ("low", "high")]
                parts.append(
                    f"{name} {self.scores[name]:.2f}"
                    + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if None not in bounds else "")
                )
        return ", ".join(parts)


class ScoredRows:
    """Test rows with their prompts. Base and tuned model see exactly the same."""

    def __init__(
        self,
        rows: Sequence[Row],
        examples: Sequence[Example],
        builder: ExampleBuilder,
        data: DataArguments,
        *,
        samples: int,
        num_beams: int,
        seed: int,
        batch_size: int,
        autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        """samples: rows that are shown at every checkpoint. num_beams: of summaries. batch_size: examples whose loss is
        computed at once; four times as many are generated. autocast: the precision of training, in which outputs and
        losses are computed too."""
        self.builder, self.data, self.seed = builder, data, seed
        self.batch_size, self.autocast = batch_size, autocast
        self.tokenizer = builder.tokenizer
        self.examples = list(examples)
        self.is_summarization = data.task == "summarization"
        written = max(WRITTEN_STORIES, samples)
        self.rows = list(rows) if self.is_summarization else list(rows)[:written]
        # Room for the target, but never more than half of a short context.
        self.new_tokens = min(data.max_target_length, builder.n_positions // 2)
        self.decoding = self._decoding(num_beams)
        self.prompts = [self._prompt(row) for row in self.rows]
        self.facts = [row["facts"] for row in self.rows if "facts" in row]
        self.has_facts = self.is_summarization and len(self.rows) > 1 and len(self.facts) == len(self.rows)
        self.sample_rows = self.rows[:samples]
        judged = self.rows[: max(JUDGED_TEXTS, len(self.sample_rows))]
        self.references = [self._reference(row, prompt) for row, prompt in zip(judged, self.prompts, strict=False)]

    def _prompt(self, row: Row) -> list[int]:
        if row["source"]:
            return self.builder.prompt_ids(row["source"], self.new_tokens)
        return self.tokenizer(row["target"], add_special_tokens=False)["input_ids"][:PLAIN_TEXT_PROMPT]

    def _reference(self, row: Row, prompt: Sequence[int]) -> Example:
        """The reference behind the prompt that a model is given, cut where an output would have to end."""
        text = f" {row['target'].strip()}" if row["source"] else row["target"]
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"][0 if row["source"] else len(prompt) :]
        return self._behind(prompt, [*ids, self.tokenizer.eos_token_id][: self.new_tokens])

    def _behind(self, prompt: Sequence[int], target: Sequence[int]) -> Example:
        return Example("", "", tuple(prompt), (), tuple(target))

    def _generate(self, model, prompts, description: str) -> list[Generated]:
        results = generate(
            model,
            self.tokenizer,
            prompts,
            self.decoding,
            seeds=[self.seed + row for row in range(len(prompts))],
            batch_size=4 * self.batch_size,
            description=description,
            context=self.autocast,
        )
        return [sequences[0] for sequences in results]

    def _decoding(self, num_beams: int) -> Decoding:
        """Return the settings of decoding: greedy stories repeat themselves; summaries are compared, so they must not
        depend on luck."""
        if not self.is_summarization:
            return DecodingSettings("top_p", top_p=0.9, max_new_tokens=self.new_tokens).resolve()
        if num_beams == 1:
            return DecodingSettings("greedy", max_new_tokens=self.new_tokens).resolve()
        return DecodingSettings("beam", num_beams=num_beams, max_new_tokens=self.new_tokens).resolve()

    def sample(self, model) -> list[dict[str, Any]]:
        """Outputs for the few rows that every checkpoint shows, as `samples` describes them."""
        return self.samples(model, self._generate(model, self.prompts[: len(self.sample_rows)], "samples"))

    def samples(self, model, generated: Sequence[Generated]) -> list[dict[str, Any]]:
        """Return what this model wrote for the sample rows: "generated", whether it "finished" by itself, "nll" (nats)
        of its "tokens" under this model; and the same of the references behind the same prompts, as far as an output
        may reach: "reference_cut", "reference_finished", "reference_nll", "reference_tokens". Where the facts are known
        also `fact_numbers`."""
        generated = generated[: len(self.sample_rows)]
        texts, references = self._as_examples(generated), self.references[: len(self.sample_rows)]
        own, human = self._losses(model, texts), self._losses(model, references)
        return [
            {
                "generated": one.text.strip(),
                "finished": self._is_finished(text),
                "nll": round(float(own.total[i]), 4),
                "tokens": int(own.tokens[i]),
                "reference_cut": text_of(self.tokenizer, reference.target_ids).strip(),
                "reference_finished": self._is_finished(reference),
                "reference_nll": round(float(human.total[i]), 4),
                "reference_tokens": int(human.tokens[i]),
                **(fact_numbers(one.text, self.facts[i]) if self.has_facts else {}),
            }
            for i, (one, text, reference) in enumerate(zip(generated, texts, references, strict=True))
        ]

    def _as_examples(self, generated: Sequence[Generated]) -> list[Example]:
        """Outputs behind their prompts; the end of text is part of one that ended by itself."""
        eos = self.tokenizer.eos_token_id
        return [
            self._behind(prompt, [*one.ids, *([eos] if one.ended == "end of text" else [])])
            for prompt, one in zip(self.prompts, generated, strict=False)
        ]

    def _is_finished(self, text: Example) -> bool:
        return text.target_ids[-1] == self.tokenizer.eos_token_id

    def text_quality(self, results: Mapping[str, Result], judges: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Return numbers of the first outputs of each result, and of their references (as "reference"): those of
        `statistics.texts`, the share that ended by themselves, and their perplexity under each judge (a model)."""
        generated = {name: result.generated[: len(self.references)] for name, result in results.items()}
        texts = {name: [one.text.strip() for one in of_model] for name, of_model in generated.items()}
        texts["reference"] = [text_of(self.tokenizer, example.target_ids).strip() for example in self.references]
        scores = compare_texts(texts)
        judged = {name: self._as_examples(of_model) for name, of_model in generated.items()}
        for name, examples in (*judged.items(), ("reference", self.references)):
            if len(examples) < FEWEST_TEXTS:
                continue
            ended = sum(map(self._is_finished, examples))
            low, high = share_interval(ended, len(examples))
            scores[name] |= {"finished": ended / len(examples), "finished_low": low, "finished_high": high}
            for judge, model in judges.items():
                found = loss_scores(self._losses(model, examples))
                scores[name] |= {f"judged_by_{judge}{end}": found[f"perplexity{end}"] for end in ("", "_low", "_high")}
        return scores

    def score(self, model, name: str) -> Result:
        """Loss and perplexity, of each source of a mixture too, with ROUGE of generated summaries, or the perplexity
        under a shuffled prompt."""
        model.eval()
        scores: dict[str, float] = {"n": len(self.examples)}
        generated = self._generate(model, self.prompts, f"{name}: generating")
        outputs = [one.text.strip() for one in generated]
        ratios: dict[str, Ratio] = {}
        if self.is_summarization:
            ratios = self._text_ratios(outputs)
            scores |= self._text_scores(ratios)
        losses = self._losses(model, self.examples)
        scores |= self._loss_scores(losses)
        clustered = self._clustered(losses)
        ratios["loss"] = clustered.total, clustered.tokens
        groups = np.asarray([example.group for example in self.examples])
        for group in sorted(set(groups) - {""}):
            scores |= self._loss_scores(losses, f"_{group}", groups == group)
        if not self.is_summarization and sum(bool(example.source_ids) for example in self.examples) > 1:
            shuffled = self._losses(model, shuffled_prompts(self.examples, self.builder.n_positions))
            scores |= self._loss_scores(shuffled, "_shuffled_prompt")
        return Result(scores, outputs, generated, ratios)

    def _losses(self, model, examples: Sequence[Example]) -> TargetLosses:
        return target_losses(model, examples, self.batch_size, self.autocast)

    def _loss_scores(
        self, losses: TargetLosses, suffix: str = "", chosen: np.ndarray | None = None
    ) -> dict[str, float]:
        """Loss and perplexity of the `chosen` examples ([example] bool)."""
        return loss_scores(self._clustered(losses, chosen), suffix)

    def _clustered(self, losses: TargetLosses, chosen: np.ndarray | None = None) -> TargetLosses:
        """Return the losses by what intervals resample. Blocks of one text and stories of one prompt depend on each
        other: with --block_size these are clusters."""
        chosen = np.ones(len(self.examples), bool) if chosen is None else chosen
        losses = losses.of(chosen)
        if self.builder.block_size:
            losses = losses.summed([e.cluster for e, wanted in zip(self.examples, chosen, strict=True) if wanted])
        return losses

    def _text_ratios(self, outputs: Sequence[str]) -> dict[str, Ratio]:
        """ROUGE of each row, and where the facts are known what the outputs state, elsewhere what of them stands in the
        sources."""
        rouge = rouge_per_row(outputs, [row["target"] for row in self.rows])
        ratios: dict[str, Ratio] = {kind: (values, np.ones(len(values))) for kind, values in rouge.items()}
        if self.has_facts:
            return ratios | fact_ratios(outputs, self.facts)
        return ratios | (self._support(outputs) if not self.facts else {})

    def _support(self, texts: Sequence[str]) -> dict[str, Ratio]:
        return support_ratios(texts, [row["source"] for row in self.rows])

    def _text_scores(self, ratios: Mapping[str, Ratio]) -> dict[str, float]:
        scores = mean_rouge({kind: ratios[kind][0] for kind in ROUGE_TYPES})
        rest = {name: ratio for name, ratio in ratios.items() if name not in ROUGE_TYPES}
        return scores | (fact_scores(rest) if self.has_facts else bounded(rest))

    def reference_scores(self) -> dict[str, float]:
        """Return how much of the references stands in their own sources, where no facts are known: what a summary of a
        person gets."""
        if not self.is_summarization or self.facts:
            return {}
        return {"n": len(self.rows), **bounded(self._support([row["target"] for row in self.rows]))}

    def baselines(self, tuned) -> dict[str, Result]:
        """Return what a summary gets without understanding: {"lead3": the first three sentences,
        "tuned_shuffled_source": the tuned model on the next row's article}, the second where facts are known. Nothing
        for other tasks."""
        if not self.is_summarization:
            return {}
        outputs = {"lead3": [lead3(row["source"]) for row in self.rows]}
        if self.has_facts:
            shuffled = self._generate(
                tuned, [*self.prompts[1:], self.prompts[0]], "tuned, shuffled articles: generating"
            )
            outputs["tuned_shuffled_source"] = [one.text.strip() for one in shuffled]
        results = {}
        for name, texts in outputs.items():
            ratios = self._text_ratios(texts)
            results[name] = Result(self._text_scores(ratios), texts, ratios=ratios)
        return results


def shuffled_prompts(examples: Sequence[Example], n_positions: int) -> list[Example]:
    """Each target behind the next prompted example's prompt (cut if the two don't fit): no target keeps its own. Plain
    texts, which have none, stay as they are."""
    mixed = list(examples)
    prompted = [i for i, example in enumerate(examples) if example.source_ids]
    assert len(prompted) > 1, "one example has no other prompt"
    for i, j in zip(prompted, [*prompted[1:], prompted[0]], strict=True):
        template = examples[j].template_ids
        room = n_positions - len(examples[i].target_ids) - len(template)
        mixed[i] = replace(examples[i], source_ids=examples[j].source_ids[:room], template_ids=template)
    return mixed


def tuned_minus_base(tuned: Result, base: Result) -> dict[str, float]:
    """Return what fine-tuning changed: each score's paired difference over the rows, as `differences` gives it."""
    return {"n": tuned.scores["n"], **differences(tuned.ratios, base.ratios)}
