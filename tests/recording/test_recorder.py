import math
import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.data.examples import Example, collate
from gpt2_interp.errors import InputError
from gpt2_interp.probes.choose import choose_probes
from gpt2_interp.recording.plan import wanted_names
from gpt2_interp.recording.recorder import SnapshotRecorder
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots import store as snapshot_store
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import CLAIMED, GROUPS, MEASURE, STORED
from tests.toy import measure_fewer

VOCAB = 40


def make_examples(count: int) -> list[Example]:
    rng = random.Random(0)
    ids = [tuple(rng.randrange(VOCAB) for _ in range(rng.randint(17, 33))) for _ in range(count)]
    return [Example(str(k), str(k), row[:-8], row[-8:-6], row[-6:]) for k, row in enumerate(ids)]


EXAMPLES = make_examples(24)
PROBES = choose_probes(EXAMPLES[:8])
TRAIN = [{"example": e} for e in EXAMPLES[8:]]


def make_model(lora: bool = False):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=VOCAB, n_positions=48, bos_token_id=0, eos_token_id=0)
    )  # dropout 0.1 everywhere
    if lora:
        model = get_peft_model(
            model,
            LoraConfig(
                target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, lora_dropout=0.1, task_type="CAUSAL_LM"
            ),
        )
    return model


class BatchOrder(TrainerCallback):
    """Draws from every random generator at every step: a snapshot that disturbed one would change these."""

    def __init__(self):
        self.drawn = []

    def on_step_end(self, args, state, control, **kwargs):
        self.drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))


def train(root, recorder=None, model=None, resume=None, init_callbacks=True, callbacks=(), **settings):
    """A Hugging Face Trainer as anyone would write it; returns it, finished."""
    arguments = TrainingArguments(
        **{
            "output_dir": str(root / "checkpoints"),
            "max_steps": 6,
            "save_steps": 2,
            "logging_steps": 1,
            "seed": 1,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "disable_tqdm": True,
            "remove_unused_columns": False,
            **settings,
        }
    )
    callbacks = [*callbacks, *(c for c in (BatchOrder(), recorder) if c)]
    trainer = Trainer(
        model or make_model(),
        arguments,
        train_dataset=TRAIN,
        eval_dataset=TRAIN[:4],
        data_collator=lambda items: collate([item["example"] for item in items], 0),
        callbacks=callbacks if init_callbacks else None,
    )
    for callback in [] if init_callbacks else callbacks:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resume and str(root / "checkpoints" / resume))
    return trainer


@pytest.fixture(scope="module", autouse=True)
def fewer():
    with pytest.MonkeyPatch.context() as patch:
        measure_fewer(patch)
        yield


def make_recorder(root, **settings) -> SnapshotRecorder:
    return SnapshotRecorder(SnapshotStore(RunPaths("run", root)), PROBES, {"seed": 1}, **settings)


def drawn(trainer) -> list:
    return next(c.drawn for c in trainer.callback_handler.callbacks if isinstance(c, BatchOrder))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """(finished Trainer, its store) of a run with snapshots at 0, 2, 4, 6."""
    root = tmp_path_factory.mktemp("recorded")
    recorder = make_recorder(root)
    return train(root, recorder), recorder.store


@pytest.mark.parametrize("lora", [False, True])
def test_a_snapshot_never_changes_training(tmp_path, lora):
    without = train(tmp_path / "without", model=make_model(lora))
    with_it = train(tmp_path / "with", make_recorder(tmp_path), model=make_model(lora))
    for name in ("loss", "grad_norm"):
        assert [x.get(name) for x in without.state.log_history] == [x.get(name) for x in with_it.state.log_history]
    assert drawn(without) == drawn(with_it)
    weights = with_it.model.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in without.model.state_dict().items())
    moments = with_it.optimizer.state_dict()["state"]
    for index, state in without.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, moments[index][name]) for name, value in state.items())


def expected(tiers: set[str]) -> set[str]:
    """What these probes can have: no general text, training rows, twins, known answers, and no BOS for sequences."""
    absent = {"attn_gold_lift", "attn_gold_sentence_lift"}
    probe_axes = {"control_example", "training_example", "pair", "sequence"}
    names = {name for name in wanted_names(GROUPS, tiers) - absent if not probe_axes & set(MEASURE[name].axes)}
    unbanded = {f"band_{m.name}" for m in CLAIMED if m.name in absent or m.probe_axis in probe_axes}
    return names - unbanded - {"band_restore_second_reading"}


def test_a_compiled_model_is_measured_as_it_is(tmp_path, recorded):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, torch_compile=True, torch_compile_backend="eager")
    plain = recorded[1].load(6)
    for name, values in recorder.store.load(6).items():
        np.testing.assert_allclose(values, plain[name], rtol=1e-2, atol=1e-3, err_msg=name)


def test_what_is_recorded(recorded):
    trainer, store = recorded
    assert store.steps() == [0, 2, 4, 6]
    assert set(store.load(2)) == expected({"light", "heavy"})
    assert set(store.load(6)) == expected({"light", "heavy", "ends", "final"})
    assert store.manifest(6)["tier"] == ["ends", "final", "heavy", "light"]
    assert set(store.manifest(6)["seconds_by_group"]) >= {"forward", "attention", "ablation", "band"}
    assert store.run_info()["seed"] == 1 and store.run_info()["model"]["n_layer"] == 2
    assert Measurements(store.paths).labels("hidden_layer") == ["embedding", "block 1", "block 2 (before ln_f)"]
    assert [e["id"] for e in store.probe_set()["example"]] == [e.id for e in PROBES.examples]
    assert store.manifest(2)["probes"] == 8 and store.manifest(2)["seconds"] > 0
    change = store.stack("weight_change")[1]
    assert (change[0] == 0).all() and (np.diff(change.mean(1)) > 0).all()
    log = store.read_log()
    assert [line["loss"] for line in log if "loss" in line] == [
        line["loss"] for line in trainer.state.log_history if "loss" in line
    ]
    assert "train_runtime" in log[-1] and log[-1]["step"] == 6


def test_gradient_norms_are_those_of_their_step_and_never_zero(recorded):
    """An earlier project read gradients after they were cleared: 0.0 at every step."""
    trainer, store = recorded
    logged = {line["step"]: line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line}
    steps, totals = store.stack("grad_norm_total")
    assert math.isnan(totals[0])
    np.testing.assert_allclose(totals[1:], [logged[step] for step in steps[1:]], rtol=1e-6)
    assert len(set(totals[1:])) == 3 and (totals[1:] > 0).all()
    _, shares = store.stack("grad_share")
    assert np.isnan(shares[0]).all()
    np.testing.assert_allclose((shares[1:].astype(float) ** 2).sum(1), 1, rtol=1e-5)
    assert (shares[1:] > 0).all()


@pytest.mark.parametrize("max_grad_norm", [0.0, 1e6, 1e-3])
def test_gradient_norm_is_known_though_no_log_was_due(tmp_path, max_grad_norm):
    """And it is the norm before clipping."""
    recorder = make_recorder(tmp_path)
    reference = train(tmp_path / "reference", max_grad_norm=max_grad_norm)
    train(tmp_path, recorder, logging_steps=5, max_grad_norm=max_grad_norm)
    logged = {line["step"]: line["grad_norm"] for line in reference.state.log_history if "grad_norm" in line}
    assert recorder.store.load(4)["grad_norm_total"] == pytest.approx(logged[4], rel=1e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_a_resume_measures_what_an_uninterrupted_run_does(tmp_path, lora):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, model=make_model(lora))
    store = recorder.store
    before = {step: store.load(step) for step in store.steps()}
    log = [line for line in store.read_log() if "loss" in line]
    again = make_recorder(tmp_path)
    train(tmp_path, again, model=make_model(lora), resume="checkpoint-4")
    fresh = SnapshotStore(store.paths)
    assert fresh.steps() == [0, 2, 4, 6]
    for step, arrays in before.items():
        for name, values in fresh.load(step).items():
            np.testing.assert_array_equal(values, arrays[name], err_msg=f"{name} at {step}")
    assert [line for line in fresh.read_log() if "loss" in line] == log


def test_resume_truncates_what_came_after_the_checkpoint(tmp_path, capsys):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder)
    train(tmp_path, make_recorder(tmp_path), resume="checkpoint-2", max_steps=4)
    assert recorder.store.steps() == [0, 2, 4]
    assert max(line["step"] for line in recorder.store.read_log()) == 4


def test_resume_without_step_0_is_said(tmp_path, capsys):
    train(tmp_path, max_steps=4)
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, resume="checkpoint-2", max_steps=4)
    assert recorder.store.steps() == [4]
    assert "none of step 0" in capsys.readouterr().out
    assert recorder.store.load(4)["weight_change"].min() > 0  # the base was copied before the checkpoint was loaded


def test_resume_with_other_probes_is_refused(tmp_path):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, max_steps=4)
    other = SnapshotRecorder(recorder.store, choose_probes(EXAMPLES[8:16]), {})
    with pytest.raises(InputError, match="other probes"):
        train(tmp_path, other, resume="checkpoint-2")
    assert recorder.store.steps() == [0, 2, 4]


def test_a_run_of_an_earlier_version_is_resumed_and_its_probe_set_completed(tmp_path):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, max_steps=4)
    whole = recorder.store.probe_set()
    fewer = {"id", "cluster", "half", "n_source", "n_template", "n_target"}
    older = [{key: entry[key] for key in entry if key in fewer} for entry in whole["example"]]
    recorder.store.write_probe_set({"example": older, "notes": whole["notes"]})
    run = recorder.store.run_info()
    recorder.store.create({**run, "axes": {axis: run["axes"][axis] for axis in run["axes"] if axis != "token_kind"}})
    train(tmp_path, make_recorder(tmp_path), resume="checkpoint-2", max_steps=4)
    assert recorder.store.probe_set() == whole and recorder.store.steps() == [0, 2, 4]
    assert recorder.store.run_info() == run


def test_added_after_the_trainer_was_made(tmp_path):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, init_callbacks=False, max_steps=2)
    assert recorder.store.steps() == [0, 2]
    late = make_recorder(tmp_path)
    with pytest.raises(ValueError, match="set_reference"):
        train(tmp_path, late, init_callbacks=False, resume="checkpoint-2", max_steps=4)
    late.set_reference(make_model())
    train(tmp_path, late, init_callbacks=False, resume="checkpoint-2", max_steps=4)
    assert late.store.steps() == [0, 2, 4]


def test_the_last_step_without_a_checkpoint_is_measured(tmp_path):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, save_strategy="no", max_steps=3)
    assert recorder.store.steps() == [0, 3]
    assert recorder.store.load(3)["grad_norm_total"] > 0


def test_the_best_model_is_not_taken_for_the_last_step(tmp_path, capsys):
    recorder = make_recorder(tmp_path)
    train(
        tmp_path,
        recorder,
        save_strategy="best",
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="loss",
        load_best_model_at_end=True,
        max_steps=3,
        learning_rate=3.0,
        per_device_eval_batch_size=4,
    )
    assert 3 not in recorder.store.steps()
    assert "the best model is loaded" in capsys.readouterr().out


def test_evaluations_before_training_are_kept_and_after_it_are_not(tmp_path):
    recorder = make_recorder(tmp_path)
    trainer = train(tmp_path, recorder, max_steps=2)
    recorder.store.truncate(-1)
    early = make_recorder(tmp_path)
    trainer = Trainer(
        make_model(),
        trainer.args,
        train_dataset=TRAIN,
        eval_dataset=TRAIN[:4],
        callbacks=[early],
        data_collator=lambda items: collate([item["example"] for item in items], 0),
    )
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    evaluations = [line["step"] for line in early.store.read_log() if "eval_loss" in line]
    assert evaluations == [0]


def test_a_new_start_drops_the_snapshots_of_an_earlier_one(tmp_path, capsys):
    train(tmp_path, make_recorder(tmp_path))
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, max_steps=3)
    assert recorder.store.steps() == [0, 2, 3]
    assert "training starts anew" in capsys.readouterr().out


@pytest.mark.parametrize(("schedule", "steps"), [("log", [0, 1, 2, 4, 6]), ("3", [0, 3, 6])])
def test_schedules_without_checkpoints(tmp_path, schedule, steps):
    recorder = make_recorder(tmp_path, schedule=schedule, measures=["gradients", "hidden", "weights"])
    reference = train(tmp_path / "reference")
    trainer = train(tmp_path, recorder, save_strategy="no", logging_steps=5)
    assert recorder.store.steps() == steps
    norms = {line["step"]: line["grad_norm"] for line in reference.state.log_history if "grad_norm" in line}
    _, totals = recorder.store.stack("grad_norm_total")
    np.testing.assert_allclose(totals[1:], [norms[step] for step in steps[1:]], rtol=1e-5)
    assert "final" in recorder.store.manifest(6)["tier"]
    weights = trainer.model.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in reference.model.state_dict().items())


def test_only_the_measures_that_were_asked_for(tmp_path, capsys):
    recorder = make_recorder(tmp_path, measures=["weights", "loss"])
    train(tmp_path, recorder, max_steps=2)
    asked = {m.name for m in STORED if m.group in ("weights", "loss") and m.tier in ("light", "ends", "final")}
    assert set(recorder.store.load(2)) == {name for name in asked if not name.startswith(("control_", "training_"))}
    assert recorder.store.load_reference(["attn_logprob_0", "hidden_pooled_0"]) == {}
    with pytest.raises(InputError, match="--measures"):
        train(tmp_path / "other", make_recorder(tmp_path / "other", measures=["everything"]), max_steps=1)


class StopEarly(TrainerCallback):
    """Ends training after step 3, where no checkpoint was due."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3
        return control


@pytest.mark.parametrize("schedule", ["checkpoints", "log", "3"])
def test_training_that_stops_early_has_its_last_measures(tmp_path, schedule):
    recorder = make_recorder(tmp_path, schedule=schedule)
    train(tmp_path, recorder, callbacks=[StopEarly()])
    assert recorder.store.steps()[-1] == 3
    assert "final" in recorder.store.manifest(3)["tier"] and "graft_necessity" in recorder.store.load(3)


def test_a_crash_during_a_snapshot_leaves_no_visible_half(tmp_path, monkeypatch):
    recorder = make_recorder(tmp_path)
    whole, written = snapshot_store._write_arrays, []

    def full_disk(path, arrays):
        written.append(path)
        if "step_00000004" in path.name and path.parent.parent.name == "latent_space_evolution":
            raise OSError("No space left on device")
        return whole(path, arrays)

    monkeypatch.setattr(snapshot_store, "_write_arrays", full_disk)
    with pytest.raises(OSError, match="No space"):
        train(tmp_path, recorder)
    store = SnapshotStore(recorder.store.paths)
    assert store.steps() == [0, 2] and any("step_00000004" in path.name for path in written)
    assert store.stack("hidden_pooled")[0] == [0, 2]
    monkeypatch.undo()
    train(tmp_path, make_recorder(tmp_path), resume="checkpoint-2")
    assert SnapshotStore(store.paths).steps() == [0, 2, 4, 6]


def test_what_is_lost_of_step_0_is_measured_again(tmp_path):
    text = tuple(Example(e.id, e.id, (), (), e.input_ids) for e in EXAMPLES[8:14])
    probes = choose_probes(EXAMPLES[:8], control=text)

    def recorder():
        return SnapshotRecorder(SnapshotStore(RunPaths("run", tmp_path)), probes)

    train(tmp_path, first := recorder())
    before, last = first.store.load_reference(), first.store.load(6)
    first.store.reference_file.with_suffix(".json").unlink()
    train(tmp_path, recorder(), resume="checkpoint-4")
    store = SnapshotStore(first.store.paths)
    again = store.load_reference()
    assert set(again) == set(before) >= {"hidden_pooled_0", "control_hidden_pooled_0", "attn_logprob_0"}
    for name, values in before.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)
    for name in ("attn_kl0", "control_hidden_displacement"):
        np.testing.assert_array_equal(store.load(6)[name], last[name])


@pytest.mark.parametrize("lora", [False, True])
def test_the_base_is_where_changes_are_zero(tmp_path, lora):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, model=make_model(lora))
    first, last = recorder.store.load(0), recorder.store.load(6)
    for name in ("attn_kl0", "hidden_displacement", "displacement", "weight_change", "ov_change"):
        assert np.nanmax(np.abs(first[name])) == 0, name
        assert np.nanmax(last[name]) > 0, name
    np.testing.assert_allclose(first["cka_debiased"][1, :, 0], 1, atol=1e-6)
    np.testing.assert_array_equal(first["lens_logprob"], first["lens_base_logprob"])
    # The whole model grafted onto the base, block by block, starts and ends where the losses are.
    assert last["graft_necessity"].shape == last["graft_sufficiency"].shape
    assert np.isfinite(last["band_attn_sink"]).all() and np.abs(last["band_attn_sink"]).max() > 0


def test_costs_are_printed_before_training(tmp_path, capsys):
    recorder = make_recorder(tmp_path)
    train(tmp_path, recorder, max_steps=5)
    output = capsys.readouterr().out
    assert "snapshots: 3 to come after step 0, at each checkpoint, on 8 probes" in output
    line = next(line for line in output.splitlines() if line.startswith("  each about "))
    assert "MB and" in line and " s: " in line
    rare = next(line for line in output.splitlines() if line.startswith("  besides: "))
    assert all(word in rare for word in ("probe_gradient", "at up to 5", "ablation", "graft about", "band about"))
    assert recorder.store.steps() == [0, 2, 4, 5]
    arrays = recorder.store.load(4, wanted_names(GROUPS, {"light"}))
    size = sum(array.nbytes for array in arrays.values())
    announced = float(line.split("about ")[1].split(" MB")[0])
    assert announced == pytest.approx(size / 1e6, abs=0.05)
