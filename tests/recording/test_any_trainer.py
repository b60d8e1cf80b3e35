"""The recorder in trainers of many kinds: training stays the same bit for bit, and either the numbers are right or a
sentence says what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.measures.gradients import REST
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.probes.choose import choose_probes
from gpt2_interp.recording import recorder as recorder_module
from gpt2_interp.recording.recorder import SnapshotRecorder
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import REGIONS
from tests.conftest import REPOSITORY
from tests.recording.test_recorder import PROBES, make_model, make_recorder, train
from tests.runs import free_port
from tests.toy import measure_fewer

CAUSAL = {"task_type": TaskType.CAUSAL_LM}
ATTENTION = {**CAUSAL, "target_modules": ["c_attn"], "fan_in_fan_out": True, "lora_dropout": 0.1}
# name -> (the adapter's configuration, more arguments of the Trainer)
WITH_WEIGHTS = {
    "plain": (None, {}),
    "compiled": (None, {"torch_compile": True, "torch_compile_backend": "eager"}),
    "accumulated": (None, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}),
    "adafactor": (None, {"optim": "adafactor"}),
    "checkpointing": (None, {"gradient_checkpointing": True}),
    "bf16 weights": (None, {}),
    "lora": (LoraConfig(**ATTENTION), {}),
    "rslora": (LoraConfig(**ATTENTION, use_rslora=True), {}),
    "modules to save": (LoraConfig(**ATTENTION, modules_to_save=["wpe", "ln_f"]), {}),
    "lora on wte": (LoraConfig(**{**ATTENTION, "target_modules": ["c_attn", "wte"]}), {}),
}
WITHOUT_WEIGHTS = {
    "DoRA": (LoraConfig(**ATTENTION, use_dora=True), {}),
    "IA3": (IA3Config(**CAUSAL, target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"]), {}),
    "AdaLora": (AdaLoraConfig(**ATTENTION, total_step=6, tinit=1, tfinal=2), {}),
    "TrainableTokens": (LoraConfig(**ATTENTION, trainable_token_indices=[1, 2, 3]), {}),
}
PROMPTS = {
    "PROMPT_TUNING": PromptTuningConfig(**CAUSAL, num_virtual_tokens=3),
    "PREFIX_TUNING": PrefixTuningConfig(**CAUSAL, num_virtual_tokens=3),
}


@pytest.fixture(scope="module", autouse=True)
def fewer():
    with pytest.MonkeyPatch.context() as patch:
        measure_fewer(patch)
        yield


def model_of(config, dtype=torch.float32):
    model = make_model().to(dtype)
    torch.manual_seed(0)
    return get_peft_model(model, config) if config else model


def run_both(tmp_path, config, dtype=torch.float32, **settings):
    """Train without a recorder and with one; assert that both trained the same. Returns (trainer, store)."""
    without = train(tmp_path / "without", model=model_of(config, dtype), **settings)
    recorder = make_recorder(tmp_path)
    with_it = train(tmp_path / "with", recorder, model=model_of(config, dtype), **settings)
    assert_same_training(without, with_it)
    return with_it, recorder.store


def assert_same_training(without, with_it):
    for name in ("loss", "grad_norm"):
        assert [x.get(name) for x in without.state.log_history] == [x.get(name) for x in with_it.state.log_history]
    weights, moments = with_it.model.state_dict(), with_it.optimizer.state_dict()["state"]
    assert all(torch.equal(w, weights[name]) for name, w in without.model.state_dict().items())
    for index, state in without.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            same = torch.equal(value, moments[index][name]) if torch.is_tensor(value) else value == moments[index][name]
            assert same, name


@torch.no_grad()
def assert_numbers_of(model, arrays, probes=PROBES, **tolerance):
    """probe_loss and attn_sink (region Q) are those of the whole model, by transformers' own forward pass."""
    model.eval()
    find_gpt2(model).set_attn_implementation("eager")
    for index, example in enumerate(probes.examples):
        ids = torch.tensor([example.input_ids])
        first = len(example.prompt_ids)
        out = model(input_ids=ids, output_attentions=True)  # without labels: AdaLoRA adds a penalty to the loss
        loss = torch.nn.functional.cross_entropy(out.logits[0, first - 1 : -1].float(), ids[0, first:])
        assert arrays["probe_loss"][index] == pytest.approx(loss.item(), **tolerance)
        sink = torch.stack([a[0, :, first - 1 : -1, 0].float().mean(-1) for a in out.attentions])
        found = arrays["attn_sink"][index, REGIONS.index("Q")]
        np.testing.assert_allclose(found, sink, rtol=tolerance["rel"], atol=tolerance["rel"])


CLOSE = {"rel": 2e-4}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WITH_WEIGHTS)
def test_weights_and_all_else_are_measured(tmp_path, kind):
    config, settings = WITH_WEIGHTS[kind]
    dtype = torch.bfloat16 if kind == "bf16 weights" else torch.float32
    trainer, store = run_both(tmp_path, config, dtype, **settings)
    assert store.steps() == [0, 2, 4, 6] and store.run_info()["measures"]["left_out"] == {}
    first, last = store.load(0), store.load(6)
    assert_numbers_of(trainer.model, last, rel=2e-2 if dtype == torch.bfloat16 else 2e-4)
    changed = dict(zip(store.run_info()["axes"]["matrix"], last["weight_change"], strict=True))
    assert (first["weight_change"] == 0).all() and changed["h.0.attn.c_attn.q"] > 0
    assert (changed["wte"] > 0) == (config is None or kind == "lora on wte")
    assert (changed["wpe"] > 0) == (config is None or kind == "modules to save")
    assert np.nanmax(np.abs(last["graft_necessity"])) > 0 and np.abs(last["band_attn_sink"]).max() > 0


@pytest.mark.parametrize(
    "kind", ["DoRA", *(pytest.param(kind, marks=pytest.mark.slow) for kind in [*WITHOUT_WEIGHTS][1:])]
)
def test_what_can_be_measured_is_where_weights_are_unknown(tmp_path, capsys, kind):
    config, settings = WITHOUT_WEIGHTS[kind]
    trainer, store = run_both(tmp_path, config, **settings)
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "left out: " in line)
    assert kind.lower() in line.lower() and "weights, spectra" in line and printed.count("left out: ") == 1
    left_out = store.run_info()["measures"]["left_out"]
    assert set(left_out) == {"weights", "spectra", "probe_gradient", "band", "restoration"}
    assert store.steps() == [0, 2, 4, 6]
    first, last = store.load(0), store.load(6)
    assert not {"weight_change", "stable_rank", "probe_grad", "band_attn_sink"} & set(last)
    assert_numbers_of(trainer.model, last, **CLOSE)
    assert np.abs(last["hidden_displacement"]).max() > 0 == np.abs(first["hidden_displacement"]).max()
    # Grafts exchange what is trained, whatever it is: the base they start from is the base of step 0.
    recorder = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "SnapshotRecorder")
    with recorder.base.replaced(trainer.model):
        assert_numbers_of(trainer.model, first, **CLOSE)
    share = dict(zip(store.run_info()["axes"]["grad_matrix"], last["grad_share"], strict=True))
    assert share["h.0.attn.c_attn"] > 0 and np.isnan(share[REST])


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_prompt_outside_the_model_is_refused_by_name_and_trained(tmp_path, capsys, kind):
    _, store = run_both(tmp_path, PROMPTS[kind])
    assert capsys.readouterr().out.count(kind) == 1
    assert store.steps() == [] and not store.run_file.exists()


def test_an_error_inside_a_snapshot_is_told_once_and_training_goes_on(tmp_path, capsys, monkeypatch):
    whole = recorder_module.capture

    def failing(model, probes, wanted, *, reference=None, **rest):
        if reference is not None:
            raise RuntimeError("no such\nkernel")
        return whole(model, probes, wanted, reference=reference, **rest)

    monkeypatch.setattr(recorder_module, "capture", failing)
    _, store = run_both(tmp_path, None)
    printed = [line for line in capsys.readouterr().out.splitlines() if "failed" in line]
    assert len(printed) == 2 and store.steps() == [0]
    assert "step 2 " in printed[0] and "RuntimeError: no such kernel" in printed[0]
    assert "3 failed" in printed[1] and "2, 4, 6" in printed[1]
    with pytest.raises(RuntimeError, match="no such"):
        train(tmp_path / "strict", make_recorder(tmp_path / "strict", strict=True))


# --- other people's trainers -------------------------------------------------------------------------------------

TRL_KINDS = {"plain": {}, "packed": {"packing": True, "packing_strategy": "wrapped"}, "prompt-completion": {}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRL_KINDS)
def test_trl(tmp_path, toy_base, kind):
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    from datasets import Dataset

    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    texts = [f"The baker found {count} letters in the mill on Monday." for count in range(40)]
    rows = {"text": texts}
    if kind == "prompt-completion":
        rows = {"prompt": [t[:20] for t in texts], "completion": [t[20:] for t in texts]}
    ids = [tuple(tokenizer(text)["input_ids"]) for text in texts[:8]]
    probes = choose_probes([Example(str(i), str(i), (), row[:4], row[4:]) for i, row in enumerate(ids)])

    def run(folder, *callbacks):
        torch.manual_seed(0)
        settings = trl.SFTConfig(
            str(folder), max_steps=4, save_steps=2, logging_steps=1, per_device_train_batch_size=2, learning_rate=1e-2,
            use_cpu=True, bf16=False, disable_tqdm=True, report_to="none", max_length=32, seed=1, **TRL_KINDS[kind],
        )  # fmt: skip
        trainer = trl.SFTTrainer(
            GPT2LMHeadModel.from_pretrained(toy_base),
            settings,
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        trainer.train()
        return trainer

    store = SnapshotStore(RunPaths("run", tmp_path))
    without, with_it = run(tmp_path / "without"), run(tmp_path / "with", SnapshotRecorder(store, probes))
    assert_same_training(without, with_it)
    assert store.steps() == [0, 2, 4]
    assert_numbers_of(with_it.model, store.load(4), probes, **CLOSE)


def one_process(folder, with_recorder):
    """What each of two processes runs: weights and, from the first, the snapshots, in `folder`."""
    folder = Path(folder)
    recorders = [make_recorder(folder)] if with_recorder else []
    trainer = train(folder, *recorders, ddp_backend="gloo")
    if trainer.is_world_process_zero():
        torch.save(trainer.model.state_dict(), folder / "weights.pt")
        torch.save([line.get("loss") for line in trainer.state.log_history], folder / "losses.pt")
    torch.distributed.destroy_process_group()  # joins its threads: one that still runs at the end aborts the process


@pytest.mark.slow
def test_two_processes(tmp_path):
    for name in ("without", "with"):
        (folder := tmp_path / name).mkdir()
        program = (
            f"from tests.recording.test_any_trainer import one_process; one_process({str(folder)!r}, {name == 'with'})"
        )
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        both = [
            subprocess.Popen(
                [sys.executable, "-c", program],
                cwd=REPOSITORY,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
            )
            for rank in "01"
        ]
        printed = [process.communicate(timeout=300)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], printed
    without, with_it = (torch.load(tmp_path / name / "weights.pt") for name in ("without", "with"))
    assert all(torch.equal(w, with_it[name]) for name, w in without.items())
    losses = [torch.load(tmp_path / name / "losses.pt") for name in ("without", "with")]
    assert losses[0] == losses[1]
    store = SnapshotStore(RunPaths("run", tmp_path / "with"))
    assert store.steps() == [0, 2, 4, 6]
    model = make_model()
    model.load_state_dict(with_it)
    assert_numbers_of(model, store.load(6), **CLOSE)
