#!/usr/bin/env python
"""Fine-tune GPT-2 for summarization or creative writing, and measure its inside at every checkpoint.

    python gpt2_summarization.py quickstart
    python gpt2_summarization.py quickstart_lora --learning_rate 1e-3 --run_name my_lora
    python gpt2_summarization.py --model_name_or_path gpt2 --train_file rows.jsonl --validation_file more.jsonl \
        --text_column article --summary_column highlights --run_name mine

Snapshots go to interpretability_metrics/, attention_analysis/ and latent_space_evolution/; models, scores and samples
to model_outputs/; scalars to logs/ (tensorboard --logdir logs). Then run analyze_latent_space.py and
visualize_metrics.py with the same --run_name.
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import sys

from gpt2_interp.cli.early import check_command
from gpt2_interp.errors import InputError, raise_full_disk_of_threads, run_script

if __name__ == "__main__":
    # Before the libraries are imported: they read the environment then, and take seconds.
    run_script(lambda: startup.prepare(check_command(sys.argv[1:]).hub_names))

import itertools
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from transformers import EarlyStoppingCallback, set_seed

from gpt2_interp.analysis.changes import FEWEST_NULL_RUNS
from gpt2_interp.cli.parser import parse_arguments
from gpt2_interp.cli.training_flags import as_settings, what_settings_decide
from gpt2_interp.data.base_text import BaseText, base_text
from gpt2_interp.data.corpora import Corpus, load_corpus
from gpt2_interp.data.examples import Example, ExampleBuilder, token_counts
from gpt2_interp.data.rows import fingerprint
from gpt2_interp.evaluation import test_rows
from gpt2_interp.evaluation.facts import FACT_RULE
from gpt2_interp.evaluation.predictions import write_predictions, write_rouge_scalars
from gpt2_interp.evaluation.rouge import is_other_script
from gpt2_interp.figures.training_curves import draw_training_curves
from gpt2_interp.files import (
    line_writer,
)
from gpt2_interp.model.anatomy import device_name, model_sizes
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.model.load import add_lora, load_base
from gpt2_interp.model.precision import choose_precision, set_precision
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.probes.build import build_probes, text_examples
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.recording.inside_scalars import InsideScalars
from gpt2_interp.recording.recorder import SnapshotRecorder
from gpt2_interp.recording.two_ends import record_two_ends
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.training import model_card, null_training, resuming, run_files
from gpt2_interp.training.checkpoints import load_finished, step_of
from gpt2_interp.training.event_files import AT_THE_BEGINNING, AT_THE_END, cut_event_files
from gpt2_interp.training.hparams import write_hparams
from gpt2_interp.training.memory import settle_batch
from gpt2_interp.training.sample_writer import SampleWriter
from gpt2_interp.training.trainer import SupervisedTrainer


def main() -> None:
    model_args, data_args, experiment, training = parse_arguments(sys.argv[1:])
    paths = RunPaths(training.run_name, experiment.root)
    store = SnapshotStore(paths)
    started = time.perf_counter()
    # Of several processes (torchrun) all train, and the first one measures, scores, writes and speaks.
    is_main = training.process_index == 0
    say = print_now if is_main else (lambda text: None)
    transformers.logging.set_verbosity_error()  # warnings that matter are raised as errors or printed by us
    transformers.logging.disable_progress_bar()  # bars for reading and writing a file; training keeps its own

    # --- a new run, or one that goes on ------------------------------------------------------------------------
    if is_main:
        run_files.check_free(paths, experiment.resume, experiment.overwrite, experiment.null_training)
    began_with = store.run_info() if experiment.resume and store.run_file.is_file() else {}
    resuming.adopt_choices(began_with, experiment, training)
    run_info = {
        "task": data_args.task,
        "tuning": model_args.tuning,
        "arguments": as_settings(model_args, data_args, experiment, training),
        "decides": what_settings_decide(),
        "device": device_name(training),
        **run_files.provenance(),
    }
    is_finished = experiment.resume and run_files.is_finished(paths)
    if is_finished:
        began_with = {name: began_with[name] for name in ("arguments", "data") if name in began_with}
    resuming.check_settings(began_with, run_info)
    if is_finished and not resuming.have_data_moved(began_with, run_info):
        say(f"run {paths.run_name} is finished: its results are in {paths.model_outputs}/")
        return
    set_seed(training.seed)
    own_text = base_text(model_args.model_name_or_path, data_args) if experiment.null_training else None

    # --- data ------------------------------------------------------------------------------------------------
    say(f"run {paths.run_name}: {data_args.task}, {model_args.tuning} fine-tuning on {device_name(training)}")
    data = read_data(model_args, data_args, experiment, training, say)
    corpus, base, tokenizer, examples = data.corpus, data.base, data.tokenizer, data.examples
    run_info["data"] = data.origins
    run_info["notes"] = corpus.notes
    resuming.check_settings(began_with, run_info)
    if is_finished:
        say(f"run {paths.run_name} is finished: its results are in {paths.model_outputs}/")
        return

    # --- the base model, before it learns anything -----------------------------------------------------------
    precision = choose_precision(experiment.precision, base.config, training.device)
    set_precision(training, precision)
    experiment.precision = precision.name
    say(f"  precision: {precision.name} ({precision.why})")
    autocast = partial(precision.autocast, training.device)
    test = test_rows.ScoredRows(
        corpus.test,
        examples["test"],
        data.builder,
        data_args,
        samples=experiment.samples_per_checkpoint,
        num_beams=experiment.num_beams,
        seed=training.seed,
        batch_size=training.per_device_eval_batch_size,
        autocast=autocast,
    )
    if is_main:
        run_files.prepare_run(paths, experiment.resume, experiment.overwrite)
        base_result = test.score(base.to(training.device), "base")
        base_samples = test.samples(base, base_result.generated)
        say(f"  base: {base_result.summary()}")

    # --- training, with snapshots on the way -----------------------------------------------------------------
    model = add_lora(base, model_args, training.seed) if model_args.tuning == "lora" else base
    sizes = model_sizes(model)
    say(
        f"  {sizes['trainable_parameters']:,} of {sizes['parameters']:,} parameters are trained "
        f"({100 * sizes['trainable_parameters'] / sizes['parameters']:.3f}%)"
    )
    say(f"  {settle_batch(experiment, training, model, examples['train'])}")
    run_info["arguments"] = as_settings(model_args, data_args, experiment, training)
    samples_file = paths.model_outputs / "samples.jsonl"
    patience = experiment.early_stopping_patience
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(paths.logs)
    recorder = SnapshotRecorder(
        store,
        data.probes,
        run_info,
        tokenizer,
        schedule=experiment.snapshot_schedule,
        measures=experiment.measures,
        strict=True,
    )
    trainer = SupervisedTrainer(
        model=model,
        args=training,
        train_examples=examples["train"],
        eval_examples=examples["validation"],
        processing_class=tokenizer,
        callbacks=[
            recorder,
            InsideScalars(store, paths.logs),
            SampleWriter(
                test.sample,
                test.sample_rows,
                str(paths.logs),
                line_writer(samples_file),
                first=base_samples if is_main else None,
            ),
            *([EarlyStoppingCallback(patience)] if patience else []),
        ],
        flush_before_seal=[paths.metrics, paths.attention, paths.latent, paths.logs, paths.model_outputs],
    )
    checkpoint = trainer.resume_point() if experiment.resume else None
    trained = checkpoint is not None and load_finished(trainer, checkpoint)
    if experiment.resume and is_main:
        say(f"  resuming from {checkpoint}" if checkpoint else "  no intact checkpoint: starting from the beginning")
        last_step = step_of(checkpoint) if checkpoint else -1
        run_files.cut_samples(samples_file, checkpoint)
        cut_event_files(paths.logs, last_step, AT_THE_END + (() if trained else AT_THE_BEGINNING))
    before_training = time.perf_counter()
    if not trained:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    training_seconds = time.perf_counter() - before_training
    if own_text:
        train_null_runs(trainer, recorder, run_info, model_args, data, own_text, experiment.null_training, say)
    if not is_main:
        leave_group()
        return

    # --- what came out of it ---------------------------------------------------------------------------------
    last_step = trainer.state.global_step
    plain_text = not any(row["source"] for row in corpus.train)
    # leaves the best weights in the model
    best_step = run_files.save_models(trainer, tokenizer, paths, model_args, data_args, plain_text)
    judges = {"tuned": trainer.model}
    if not model_args.config_name:  # random weights can't judge
        judges["base"] = load_base(model_args, training.seed, ())[0].to(training.device)
    results, quality = score_tuned(test, base_result, judges, f"step {best_step} of {last_step}", say)
    metrics = {
        **{name: result.scores | quality.get(name, {}) for name, result in results.items()},
        "tuned_minus_base": test_rows.tuned_minus_base(results["tuned"], base_result),
        "reference": quality["reference"] | test.reference_scores(),
        **({"fact_rule": FACT_RULE} if test.has_facts else {}),
        "best_step": best_step,
        "test": corpus.provenance["test"],
        "notes": corpus.notes,
    }
    write_predictions(paths.model_outputs / "predictions.jsonl", test, results)
    write_rouge_scalars(paths.logs, base_result, results["tuned"], last_step)
    write_hparams(paths.logs, run_info, sizes, store.read_log(), results["tuned"].scores, last_step)
    draw_training_curves(paths)
    steps = {"best": best_step, "final": last_step}
    model_card.write_model_cards(paths, run_info, sizes, metrics, steps, training_seconds, plain_text)
    raise_full_disk_of_threads()
    run_files.finish(paths, metrics)

    # --- where to look ---------------------------------------------------------------------------------------
    all_seconds = time.perf_counter() - started
    say(f"  training took {training_seconds:.0f} s of {all_seconds:.0f} s; results are in {paths.model_outputs}/")
    say(f"  next: analyze_latent_space.py and visualize_metrics.py with --run_name {paths.run_name}")
    leave_group()


@dataclass(frozen=True)
class Data:
    """The rows, the base model that reads them, and what became of them. examples: by use. origins: for run.json."""

    corpus: Corpus
    base: Any
    tokenizer: Any
    builder: ExampleBuilder
    examples: dict[str, Sequence[Example]]
    probes: ProbeSet
    origins: dict[str, Any]


def read_data(model_args, data_args, experiment, training, say: Callable[[str], None]) -> Data:
    """Read and tokenize every row, and choose the probes. Raises InputError where no row is left for a use."""
    examples, reports = {}, {}
    with training.main_process_first(desc="reading and tokenizing"):  # the others find samples and tokens in the cache
        corpus = load_corpus(data_args, experiment.probe_samples, training.seed)
        texts = (row["source"] + row["target"] for row in corpus.train)
        base, tokenizer = load_base(model_args, training.seed, texts)
        builder = ExampleBuilder(
            tokenizer,
            data_args.task,
            data_args.max_source_length,
            data_args.max_target_length,
            base.config.n_positions,
            block_size=data_args.block_size,
            first_block_only=bool(data_args.mixture),  # so that the rows of each source are as many as its weight says
        )
        for use in ("train", "validation", "test", "probes", "test_probes"):
            if use not in corpus.provenance:
                continue  # no rows of a test split are left
            examples[use], reports[use] = builder.build(getattr(corpus, use), corpus.provenance[use]["sha256"])
            say(f"  {use.replace('_', ' '):11} {reports[use]}  <- {corpus.provenance[use]['source']}")
            if not examples[use] and use != "test_probes":
                raise InputError(f"no {use} row fits the model's context of {base.config.n_positions} tokens.")
    probes = build_probes(corpus, examples, builder, base.config, experiment.probe_samples, training.seed)
    if data_args.task == "summarization" and is_other_script(row["target"] for row in corpus.test):
        corpus.notes.append(
            "ROUGE counts words as they are, without stemming: most letters of the references are not a-z"
        )
    for note in (*corpus.notes, *probes.notes):
        say(f"  note: {note}")
    origins = {
        use: {**entry, **(reports[use].remarks() if use in reports else {})} for use, entry in corpus.provenance.items()
    }
    return Data(corpus, base, tokenizer, builder, examples, probes, origins)


def train_null_runs(
    trainer: SupervisedTrainer,
    recorder: SnapshotRecorder,
    run_info: Mapping[str, Any],
    model_args: ModelArguments,
    data: Data,
    own_text: BaseText,
    count: int,
    say: Callable[[str], None],
) -> None:
    """Train and measure those of the finished run's null runs that are not there yet."""
    paths, training, corpus = recorder.store.paths, trainer.args, data.corpus
    if count < FEWEST_NULL_RUNS:
        say(f"  note: whether a change is beyond training takes --null_training {FEWEST_NULL_RUNS} at least")
    target = null_training.relative_change(trainer.model, recorder.base)
    steps = trainer.state.global_step
    trainer.optimizer = trainer.lr_scheduler = None  # a null run needs the memory of Adam's moments
    trainer.accelerator.free_memory()
    length = int(token_counts(data.examples["train"]).max())  # no batch takes more memory than the run's own
    for number in range(1, count + 1):
        places = run_files.null_paths(paths, number)
        if places in run_files.null_runs(paths):
            continue
        seed = null_training.null_seed(training.seed, number)
        others = itertools.chain(corpus.train, corpus.probes, corpus.test_probes, corpus.control)
        rows = own_text.rows(len(corpus.train), seed, others)
        examples, _ = text_examples(rows, data.tokenizer, length)
        model = load_base(model_args, seed, ())[0].to(training.device)
        model = add_lora(model, model_args, seed) if model_args.tuning == "lora" else model
        base = BaseWeights(model)
        made = RunPaths(places.run_name, paths.checkpoints / "null_training")
        own = null_training.null_arguments(training, steps, seed, places.run_name)
        say(f"  {places.run_name}: on {own_text.where}, to a relative weight change of {target:.3g}")
        reached = null_training.train_null(model, base, examples, data.tokenizer, own, target)
        say(f"  {places.run_name}: {reached.summary()}")
        if training.process_index == 0:
            info = {
                **run_info,
                "arguments": {**run_info["arguments"], **as_settings(own)},
                "null_training_of": paths.run_name,
                "null_training": reached.as_json(),
                "data": {"train": {"source": own_text.where, "rows": len(rows), "sha256": fingerprint(rows)}},
                "notes": [],
            }
            shutil.rmtree(made.root, ignore_errors=True)  # what a killed process left
            null = SnapshotStore(made)
            record_two_ends(null, recorder.store, data.probes, info, model, base, reached.steps)
            for line in reached.log:
                null.append_log(line)
            run_files.put_in_place(made, places)


def score_tuned(
    test: test_rows.ScoredRows,
    base_result: test_rows.Result,
    judges: Mapping[str, Any],
    steps: str,
    say: Callable[[str], None],
) -> tuple[dict[str, test_rows.Result], dict[str, dict[str, float]]]:
    """Return (results of base, tuned and baselines, quality of the texts by name). judges: models, one named tuned."""
    tuned_result = test.score(judges["tuned"], "tuned")
    say(f"  tuned ({steps}): {tuned_result.summary()}")
    baselines = test.baselines(judges["tuned"])
    for name, result in baselines.items():
        say(f"  {name.replace('_', ' ')}: {result.summary()}")
    quality = test.text_quality({"base": base_result, "tuned": tuned_result}, judges)
    return {"base": base_result, "tuned": tuned_result, **baselines}, quality


def leave_group() -> None:
    """Leave the group of a distributed run, which joins its threads: one that still runs when Python ends aborts it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def print_now(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    run_script(main)
