"""gpt2_summarization.py end to end on a toy model: the exact files, what is in them, and every refusal."""

import json
import math
import re
import shutil
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.api_pb2 import ListSessionGroupsRequest, Status
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import gpt2_summarization
import visualize_metrics
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.data.examples import ExampleBuilder
from gpt2_interp.errors import run_script
from gpt2_interp.recording.inside_scalars import TAGS
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.scalars import SCALARS, SCORES
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.statistics.texts import distinct_n, n_words, self_bleu
from gpt2_interp.synthetic.rows import news_rows
from gpt2_interp.training.pace import TIMING
from tests.toy import N_POSITIONS, measure_fewer

SMALL = [
    "--max_train_samples=40", "--max_eval_samples=8", "--max_predict_samples=9", "--probe_samples=8",
    "--max_target_length=24", "--max_steps=6", "--save_steps=3", "--logging_steps=1",
    "--per_device_train_batch_size=2", "--learning_rate=1e-3", "--samples_per_checkpoint=8", "--use_cpu",
    "--precision=fp32",
]  # fmt: skip
SYSTEMS = ("base", "tuned", "lead3", "tuned_shuffled_source")
NEWS = ["--dataset_name=synthetic_news", "--max_source_length=200"]


def run(*flags, measure_all: bool = False) -> int:
    """Exit status of the script, in this process. measure_all: as many rows beside the probes as its users get."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gpt2_summarization.py", *map(str, flags)])
        if not measure_all:
            measure_fewer(patch)
        try:
            run_script(gpt2_summarization.main)
        except SystemExit as exit_:
            return exit_.code
    return 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def base_flags(toy_base):
    return [f"--model_name_or_path={toy_base}"]


@pytest.fixture(scope="module")
def news_run(root, base_flags):
    assert run(*base_flags, *NEWS, *SMALL, f"--root={root}", "--run_name=news", measure_all=True) == 0
    return RunPaths("news", root)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


MODEL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
SNAPSHOTS = {f"step_{step:08d}" for step in (0, 3, 6)}


def test_exactly_these_files(news_run):
    models = {
        f"{which}/{name}"
        for which in ("best_model", "final_model")
        for name in MODEL | {"README.md", "task.json", "sha256sums.txt"}
    }
    assert files(news_run.model_outputs) == models | {
        "metrics.json", "predictions.jsonl", "samples.jsonl", "training_curves.png", "sha256sums.txt"
    }  # fmt: skip
    state = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"}
    state |= {"running_loss.json", "manifest.json"}
    assert files(news_run.checkpoints) == {f"checkpoint-{step}/{name}" for step in (3, 6) for name in MODEL | state}
    once = {
        "run.json",
        "probe_set.json",
        "tokens.json",
        "training_log.jsonl",
        "reference.safetensors",
        "reference.json",
    }
    assert files(news_run.metrics) == once | {
        f"{step}{suffix}" for step in SNAPSHOTS for suffix in (".json", ".safetensors")
    }
    for folder in (news_run.attention, news_run.latent):
        assert files(folder) == {f"{step}.safetensors" for step in SNAPSHOTS}
    assert all("tfevents" in name for name in files(news_run.logs))


def test_scores_of_base_tuned_and_baselines(news_run):
    metrics = json.loads((news_run.model_outputs / "metrics.json").read_text())
    for name in SYSTEMS:
        scores = metrics[name]
        assert scores["n"] == 9
        for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum", "rows_right"):
            assert 0 <= scores[f"{kind}_low"] <= scores[kind] <= scores[f"{kind}_high"] <= 100
    assert metrics["tuned"]["loss"] < metrics["base"]["loss"]
    assert metrics["lead3"]["rouge1"] > 10
    paired = metrics["tuned_minus_base"]
    assert paired["loss"] == pytest.approx(metrics["tuned"]["loss"] - metrics["base"]["loss"])
    assert paired["loss_low"] < paired["loss"] < paired["loss_high"] and paired["n"] == 9
    assert paired["rouge1"] == pytest.approx(metrics["tuned"]["rouge1"] - metrics["base"]["rouge1"])
    predictions = [json.loads(line) for line in (news_run.model_outputs / "predictions.jsonl").open()]
    assert [set(p) for p in predictions] == [{"id", "source", "reference", "facts", "values", *SYSTEMS}] * 9
    marks = [fact["lead3"] for p in predictions for fact in p["facts"]]
    assert metrics["lead3"]["fact_recall"] == pytest.approx(100 * sum(marks) / 36) and 0 < sum(marks) < 36
    for p in predictions:
        for fact in p["facts"]:
            assert set(fact) == {"slot", "value", *SYSTEMS} and fact["value"] in p["reference"]
            assert fact["value"] in [one["value"] for one in p["values"]["lead3"] if fact["lead3"]] or not fact["lead3"]
        for name in SYSTEMS:
            assert all(p[name][slice(*one["span"])] == one["text"] for one in p["values"][name])
    written = {(p["id"], one["value"], one["kind"]) for p in predictions for one in p["values"]["lead3"]}
    assert metrics["lead3"]["values_written"] == len(written) and metrics["fact_rule"] == "strict"
    right = sum(kind == "right" for *_, kind in written)
    assert metrics["lead3"]["fact_precision"] == pytest.approx(100 * right / len(written))
    assert all(p["source"].startswith(p["lead3"].split("\n")[0]) for p in predictions)
    samples = [json.loads(line) for line in (news_run.model_outputs / "samples.jsonl").open()]
    assert [s["step"] for s in samples] == [0] * 8 + [3] * 8 + [6] * 8
    assert samples[0]["id"] == predictions[0]["id"]
    assert all(s["facts"] == 4 and s["facts_stated"] <= s["values_right"] <= s["values_written"] for s in samples)


def test_models_load_as_anyones(news_run):
    model = AutoModelForCausalLM.from_pretrained(news_run.model_outputs / "best_model")
    tokenizer = AutoTokenizer.from_pretrained(news_run.model_outputs / "best_model")
    assert tokenizer("Boats lay.")["input_ids"]
    assert model.dtype == torch.float32
    final = load_file(news_run.model_outputs / "final_model" / "model.safetensors")
    last = load_file(news_run.checkpoints / "checkpoint-6" / "model.safetensors")
    assert all(torch.equal(final[name], last[name]) for name in last)


def test_best_model_is_the_checkpoint_with_the_lowest_loss(news_run):
    log = [json.loads(line) for line in (news_run.metrics / "training_log.jsonl").open()]
    losses = {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    best_step = min((step for step in losses if step), key=losses.get)
    best = load_file(news_run.model_outputs / "best_model" / "model.safetensors")
    checkpoint = load_file(news_run.checkpoints / f"checkpoint-{best_step}" / "model.safetensors")
    assert all(torch.equal(best[name], checkpoint[name]) for name in checkpoint)


def test_log_and_tensorboard_hold_the_scalars(news_run):
    log = [json.loads(line) for line in (news_run.metrics / "training_log.jsonl").open()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert all(line["grad_norm"] > 0 for line in log if "loss" in line)
    events = EventAccumulator(str(news_run.logs)).Reload()
    tags = events.Tags()
    wanted = {"train/loss", "train/learning_rate", "train/grad_norm", "eval/loss", "eval/perplexity", "rouge/rouge1"}
    assert wanted <= set(tags["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [e.step for e in events.Scalars("rouge/rouge1")] == [0, 6]
    assert any(tag.startswith("samples/") for tag in tags["tensors"])


def test_snapshots_are_of_the_run(news_run):
    store = SnapshotStore(news_run)
    assert store.steps() == [0, 3, 6]
    _, change = store.stack("weight_change")
    assert (change[0] == 0).all() and (change[1:] > 0).all()
    _, norm = store.stack("grad_norm_total")
    logged = {line["step"]: line["grad_norm"] for line in store.read_log() if "grad_norm" in line}
    assert norm[1:].tolist() == pytest.approx([logged[3], logged[6]])
    assert store.run_info()["data"]["train"]["rows"] == 40


def test_a_run_is_never_overwritten_by_accident(news_run, root, base_flags, capsys):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert run(*base_flags, *NEWS, *SMALL, f"--root={root}", "--run_name=news") == 2
    message = capsys.readouterr().err
    assert all(word in message for word in ("already exists", "--resume", "--overwrite", "--run_name"))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_resume_continues_as_if_nothing_had_happened(news_run, base_flags, tmp_path):
    """The run interrupted after its first checkpoint ends with the same weights, snapshots and log."""
    root = tmp_path / "copy"
    shutil.copytree(news_run.root, root)
    paths = RunPaths("news", root)
    shutil.rmtree(paths.checkpoints / "checkpoint-6")
    shutil.rmtree(paths.model_outputs / "best_model")
    (paths.model_outputs / "metrics.json").unlink()
    assert run(*base_flags, *NEWS, *SMALL, f"--root={root}", "--run_name=news", "--resume", measure_all=True) == 0
    ours, theirs = (load_file(p.model_outputs / "final_model" / "model.safetensors") for p in (paths, news_run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("attn_entropy", "hidden_pooled", "weight_change"):
        for a, b in zip(SnapshotStore(paths).stack(name), SnapshotStore(news_run).stack(name), strict=True):
            torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=0, equal_nan=True)
    steps = [[line["step"] for line in SnapshotStore(p).read_log() if "loss" in line] for p in (paths, news_run)]
    assert steps[0] == steps[1]
    samples = [(p.model_outputs / "samples.jsonl").read_text() for p in (paths, news_run)]
    assert samples[0] == samples[1]
    assert (paths.model_outputs / "metrics.json").read_text() == (news_run.model_outputs / "metrics.json").read_text()


def test_other_programs_find_the_end_of_the_context(news_run):
    for folder in (news_run.model_outputs / "final_model", news_run.checkpoints / "checkpoint-3"):
        assert json.loads((folder / "config.json").read_text())["n_ctx"] == N_POSITIONS
        writer = pipeline("text-generation", model=str(folder), device="cpu")
        assert writer.tokenizer.model_max_length == N_POSITIONS
        long = "The mayor said on Monday that forty houses burned. " * 100
        assert len(writer.tokenizer(long, verbose=False)["input_ids"]) > 600
        written = writer(long, truncation=True, return_tensors=True)[0]["generated_token_ids"]
        assert len(written) == N_POSITIONS + 1


def test_lora_keeps_the_adapter_only(root, base_flags, toy_base):
    """Trained on the written-out GPT-2, read by Hugging Face's."""
    flags = ["--run_name=adapters", "--tuning=lora", "--implementation=scratch"]
    assert run(*base_flags, *NEWS, *SMALL, f"--root={root}", *flags) == 0
    folder = RunPaths("adapters", root).model_outputs / "final_model"
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= files(folder)
    assert "model.safetensors" not in files(folder)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(toy_base), folder)
    assert any("lora_B" in name and p.abs().sum() > 0 for name, p in model.named_parameters())
    assert "from peft import AutoPeftModelForCausalLM" in (folder / "README.md").read_text()
    store = SnapshotStore(RunPaths("adapters", root))
    names = Measurements(store.paths).labels("matrix")
    change = dict(zip(names, store.load(6)["weight_change"], strict=True))
    assert change["h.0.attn.c_attn.q"] > 0 and change["wte"] == 0 and change["h.1.mlp.c_fc"] == 0


@pytest.fixture(scope="module")
def stories_run(root, base_flags):
    flags = ["--task=creative_writing", "--dataset_name=synthetic_stories", "--max_source_length=60"]
    assert run(*base_flags, *flags, *SMALL, f"--root={root}", "--run_name=stories", "--save_dtype=float16") == 0
    return RunPaths("stories", root)


def test_stories_are_scored_by_perplexity_under_two_prompts(stories_run):
    outputs = stories_run.model_outputs
    metrics = json.loads((outputs / "metrics.json").read_text())
    assert "lead3" not in metrics
    for name in ("base", "tuned"):
        assert {"perplexity", "perplexity_low", "perplexity_shuffled_prompt", "loss", "n"} <= set(metrics[name])
        assert "rouge1" not in metrics[name]
    predictions = [json.loads(line) for line in (outputs / "predictions.jsonl").open()]
    assert set(predictions[0]) == {"id", "source", "reference", "base", "tuned"}
    assert AutoModelForCausalLM.from_pretrained(outputs / "final_model", dtype="auto").dtype == torch.float16


def test_samples_say_how_likely_they_are(news_run):
    """Their tokens and likelihood under the checkpoint that wrote them, computed anew, one by one."""
    samples = [json.loads(line) for line in (news_run.model_outputs / "samples.jsonl").open()]
    predictions = [json.loads(line) for line in (news_run.model_outputs / "predictions.jsonl").open()]
    assert [s["generated"] for s in samples[:8]] == [p["base"] for p in predictions[:8]]  # step 0 is the base
    model = AutoModelForCausalLM.from_pretrained(news_run.checkpoints / "checkpoint-6").eval()
    tokenizer = AutoTokenizer.from_pretrained(news_run.checkpoints / "checkpoint-6")
    builder = ExampleBuilder(tokenizer, "summarization", 200, 24, model.config.n_positions)
    for sample in samples[-8:]:
        prompt = builder.prompt_ids(sample["prompt"], 24)
        output = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=24, do_sample=False
        )
        human = tokenizer(" " + sample["reference"])["input_ids"] + [tokenizer.eos_token_id]
        texts = {"": output[0, len(prompt) :].tolist(), "reference_": human[:24]}
        assert tokenizer.decode(texts[""], skip_special_tokens=True).strip() == sample["generated"]
        assert tokenizer.decode(texts["reference_"], skip_special_tokens=True).strip() == sample["reference_cut"]
        for prefix, ids in texts.items():
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            nll = torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum").item()
            assert sample[f"{prefix}tokens"] == len(ids)
            assert sample[f"{prefix}nll"] == pytest.approx(nll, abs=2e-4 + 1e-5 * nll)
            assert sample[f"{prefix}finished"] == (ids[-1] == tokenizer.eos_token_id)


def test_the_texts_own_quality_in_metrics_and_tensorboard(news_run):
    metrics = json.loads((news_run.model_outputs / "metrics.json").read_text())
    predictions = [json.loads(line) for line in (news_run.model_outputs / "predictions.jsonl").open()]
    samples = [json.loads(line) for line in (news_run.model_outputs / "samples.jsonl").open()]
    for name in ("base", "tuned"):
        texts = [p[name] for p in predictions]
        assert metrics[name]["texts"] == 9
        assert metrics[name]["distinct_2"] == distinct_n(texts, 2)
        assert metrics[name]["self_bleu"] == pytest.approx(self_bleu(texts))
        assert metrics[name]["words"] == pytest.approx(sum(map(n_words, texts)) / 9)
    reference = metrics["reference"]
    assert reference["texts"] == 9 and reference["self_bleu_low"] <= reference["self_bleu"]
    for name in ("base", "tuned", "reference"):
        for judge in ("base", "tuned"):
            low, high = (metrics[name][f"judged_by_{judge}_{end}"] for end in ("low", "high"))
            assert 1 < low < metrics[name][f"judged_by_{judge}"] < high
    assert reference["judged_by_tuned"] < reference["judged_by_base"]  # it was trained on such texts
    card = (news_run.model_outputs / "best_model" / "README.md").read_text()
    assert "| self_bleu |" in card and "| reference |" in card
    events = EventAccumulator(str(news_run.logs)).Reload()
    for k, step in enumerate((0, 3, 6)):
        rows = samples[8 * k : 8 * k + 8]
        of_step = {name: events.Scalars(f"samples/{name}")[k] for name in ("perplexity", "words", "distinct_2")}
        assert {event.step for event in of_step.values()} == {step}
        nll = sum(row["nll"] for row in rows) / sum(row["tokens"] for row in rows)
        assert of_step["perplexity"].value == pytest.approx(math.exp(nll), rel=1e-5)
        assert of_step["distinct_2"].value == pytest.approx(distinct_n([row["generated"] for row in rows], 2))
    shown = {tag for tag in events.Tags()["tensors"] if tag.startswith("samples/")}
    assert len(shown) == 4  # of 8


def test_the_figure_and_the_table_of_a_run(news_run, tmp_path, monkeypatch):
    """visualize_metrics.py on what training wrote."""
    shutil.copytree(news_run.root, tmp_path / "copy")
    paths = RunPaths("news", tmp_path / "copy")
    only = ["--only", "sample_quality", "report"]
    monkeypatch.setattr(sys, "argv", ["x", "--run_name", "news", "--root", str(paths.root), *only])
    run_script(visualize_metrics.main)
    assert files(paths.visualizations) == {"sample_quality.png", "sample_quality.html", "interpretability_report.html"}
    page = (paths.visualizations / "interpretability_report.html").read_text()
    quality = page[page.index('<h2 id="quality">') : page.index('<h2 id="samples">')]
    scores = json.loads((paths.model_outputs / "metrics.json").read_text())["reference"]
    assert "Of 9 texts each" in quality and "data:image/png;base64," in quality
    for name in ("self_bleu", "distinct_3_equal", "repetition_4"):
        assert f"<td>{scores[name]:.3f} <small>" in quality


def test_every_number_that_is_written_is_in_the_glossary_and_the_other_way_round(news_run, stories_run):
    tags, log_keys, score_keys = set(), set(), set()
    for paths in (news_run, stories_run):
        tags |= set(EventAccumulator(str(paths.logs)).Reload().Tags()["scalars"])
        log_keys |= {key for line in SnapshotStore(paths).read_log() for key in line}
        metrics = json.loads((paths.model_outputs / "metrics.json").read_text())
        score_keys |= {key for system in (*SYSTEMS, "reference") for key in metrics.get(system, ())}
    inside = {tag for tag in tags if tag.startswith("inside/")}
    of_kinds = {tag for tag in inside if tag.startswith("inside/loss_by_kind/")}
    assert (
        of_kinds
        and inside - of_kinds <= set(TAGS.values())
        and {tag.split("/")[1] for tag in inside} > {"attention", "hidden", "weights"}
    )
    undefined = {"samples/fact_precision", "hparams/test_fact_precision"}  # where a model of 6 steps writes no value
    assert tags - inside | undefined == {scalar.name for scalar in SCALARS} - {"inside/<group>/<measure>"}
    assert log_keys == {"step"} | {scalar.log_name for scalar in SCALARS} - {None}
    assert set(TIMING) < log_keys
    score_keys = {key.removesuffix("_low").removesuffix("_high") for key in score_keys}
    of_real_text = {"source_precision", "source_precision_<kind>"}  # test_local_rows_... has them
    patterns = [re.sub("<.*>", ".+", score.name) for score in SCORES if score.name not in of_real_text]
    assert all(any(re.fullmatch(pattern, key) for pattern in patterns) for key in score_keys)
    assert all(any(re.fullmatch(pattern, key) for key in score_keys) for pattern in patterns)


def test_tensorboard_compares_runs_by_settings_and_results(news_run, stories_run):
    """Read as TensorBoard's HPARAMS tab reads it: one session a run, in the run's own folder."""
    multiplexer = EventMultiplexer({"news": str(news_run.logs), "stories": str(stories_run.logs)}).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(news_run.logs.parent))
    context = Context(TBContext(multiplexer=multiplexer, data_provider=provider))
    request = ListSessionGroupsRequest(
        slice_size=10, include_metrics=True, allowed_statuses=[Status.Value("STATUS_SUCCESS")]
    )
    request.col_params.add(hparam="task")
    answer = Handler(RequestContext(), context, "", request).run()
    runs = {group.name: group for group in answer.session_groups}
    assert set(runs) == {"news", "stories"}
    metrics = json.loads((news_run.model_outputs / "metrics.json").read_text())
    hparams = runs["news"].hparams
    assert hparams["tuning"].string_value == "full" and hparams["learning_rate"].number_value == 1e-3
    assert hparams["effective_batch_size"].number_value == 2 and hparams["optimizer_steps"].number_value == 6
    values = {value.name.tag: value.value for value in runs["news"].metric_values}
    assert values["rouge/rouge1"] == pytest.approx(metrics["tuned"]["rouge1"])
    assert values["hparams/test_fact_recall"] == pytest.approx(metrics["tuned"]["fact_recall"])
    losses = [line["eval_loss"] for line in SnapshotStore(news_run).read_log() if "eval_loss" in line]
    assert values["hparams/best_eval_loss"] == pytest.approx(min(losses))
    stories = {value.name.tag for value in runs["stories"].metric_values}
    assert "hparams/test_perplexity_shuffled_prompt" in stories and "rouge/rouge1" not in stories


def test_local_rows_and_a_new_tokenizer_from_random_weights(root, tmp_path):
    for name, seed, count in (("train", 0, 40), ("validation", 1, 30)):
        rows = news_rows(count, seed, "train")
        lines = (json.dumps({"doc": r["article"], "tldr": r["highlights"]}) + "\n" for r in rows)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    assert run(
        "--config_name=gpt2", "--config_overrides=n_layer=1,n_head=2,n_embd=16,n_positions=300",
        "--new_tokenizer_size=500", f"--train_file={tmp_path}/train.jsonl",
        f"--validation_file={tmp_path}/validation.jsonl", "--text_column=doc", "--summary_column=tldr",
        *SMALL, f"--root={root}", "--run_name=own", "--implementation=scratch",
    ) == 0  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(RunPaths("own", root).model_outputs / "final_model")
    assert type(model).__name__ == "GPT2LMHeadModel" and model.config.architectures == ["GPT2LMHeadModel"]
    metrics = json.loads((RunPaths("own", root).model_outputs / "metrics.json").read_text())
    assert any("no test file" in note for note in metrics["notes"])
    assert metrics["lead3"]["source_precision"] == metrics["lead3"]["source_precision_names"] == 100
    assert 0 < metrics["reference"]["source_precision_low"] < metrics["reference"]["source_precision"] < 100
    assert not {"fact_rule", "fact_recall"} & {*metrics, *metrics["lead3"]}  # rows of one's own have no known facts
    assert SnapshotStore(RunPaths("own", root)).run_info()["data"]["test"]["source"].endswith("validation.jsonl")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train_file=none.jsonl", "--validation_file=none.jsonl"], ["none.jsonl does not exist"]),
        (["--dataset_name=synthetic_news", "--resume"], ["no run 'bad' to resume"]),
        (["--dataset_name=nobody/none"], ["nobody/none", "can't be reached"]),
        (["--dataset_name=synthetic_stories"], ["--task creative_writing"]),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(flags, words, base_flags, tmp_path, capsys):
    assert run(*base_flags, *SMALL, *flags, f"--root={tmp_path}", "--run_name=bad") == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_names_the_flags_that_help(error, base_flags, tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("gpt2_summarization.SupervisedTrainer.train", fail)
    assert run(*base_flags, *NEWS, *SMALL, f"--root={tmp_path}", "--run_name=big") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "--per_device_train_batch_size" in message and "--gradient_accumulation_steps" in message
