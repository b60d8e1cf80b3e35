import json

import pytest

from gpt2_interp.cli.parser import parse_arguments
from gpt2_interp.cli.training_flags import as_settings, what_settings_decide
from gpt2_interp.errors import InputError
from gpt2_interp.files import finite
from gpt2_interp.training.resuming import DATA_FILES, adopt_choices, check_settings, have_data_moved

ARGUMENTS = as_settings(*parse_arguments(["quickstart"]))
DECIDES = what_settings_decide()
HARMLESS = set(DECIDES["nothing"])
CHANGES = sorted(set(ARGUMENTS) - HARMLESS)


def written(value):
    """As it is read from run.json."""
    return json.loads(json.dumps(finite(value)))


def another(value):
    """A value of the same kind that is not the same."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return [*value, "x"] if isinstance(value, list) else {"x": 1} if isinstance(value, dict) else f"{value}x"


def test_the_same_settings_may_go_on():
    check_settings(written({"arguments": ARGUMENTS, "threads": 2}), {"arguments": ARGUMENTS, "threads": 2})
    check_settings({}, {"arguments": ARGUMENTS})  # killed before the first measurement


CHOSEN = {
    "precision": "bf16", "effective_batch_size": 16, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4,
}  # fmt: skip
FREE = ["--model_name_or_path=x", "--dataset_name=synthetic_news", "--run_name=x"]


def test_what_the_run_chose_when_it_began_is_chosen_alike():
    groups = parse_arguments(FREE)
    began_with = written({"arguments": {**as_settings(*groups), **CHOSEN, "bf16": True}})
    with pytest.raises(InputError, match="--precision was bf16 and is now auto"):
        check_settings(began_with, {"arguments": as_settings(*groups)})
    adopt_choices(began_with, *groups[2:])
    settings = as_settings(*groups)
    assert {name: settings[name] for name in CHOSEN} == CHOSEN
    check_settings(began_with, {"arguments": settings, "decides": DECIDES})


@pytest.mark.parametrize("flag", ["--precision=fp32", "--effective_batch_size=32", "--per_device_train_batch_size=2"])
def test_another_choice_than_the_runs_own_is_refused(flag):
    began_with = written({"arguments": {**as_settings(*parse_arguments(FREE)), **CHOSEN}})
    groups = parse_arguments([*FREE, flag])
    adopt_choices(began_with, *groups[2:])
    with pytest.raises(InputError, match=f"{flag.split('=')[0]} was "):
        check_settings(began_with, {"arguments": as_settings(*groups)})


@pytest.mark.parametrize("name", CHANGES)
def test_each_changed_setting_is_refused_by_name(name):
    changed = {**ARGUMENTS, name: another(ARGUMENTS[name])}
    with pytest.raises(InputError, match=rf"^--{name} was .* and is now "):
        check_settings(written({"arguments": ARGUMENTS}), {"arguments": changed, "decides": DECIDES})


def test_the_settings_that_decide_the_result_are_among_them():
    assert {
        "learning_rate", "seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps",
        "num_train_epochs", "precision", "train_file", "dataset_name", "max_train_samples", "model_name_or_path",
        "tuning", "lora_r", "attn_pdrop", "save_steps", "logging_steps", "lr_scheduler_type", "optim", "torch_compile",
        "activation_checkpointing", "train_sampling_strategy", "early_stopping_patience", "probe_samples", "num_beams",
    } <= set(CHANGES)  # fmt: skip


@pytest.mark.parametrize("name", sorted(HARMLESS & set(ARGUMENTS)))
def test_harmless_settings_may_change(name):
    changed = {**ARGUMENTS, name: another(ARGUMENTS[name])}
    check_settings(written({"arguments": ARGUMENTS}), {"arguments": changed, "decides": DECIDES})


def test_both_values_are_said_and_all_changes_at_once():
    with pytest.raises(InputError) as error:
        check_settings({"arguments": ARGUMENTS}, {"arguments": {**ARGUMENTS, "learning_rate": 1e-4, "seed": 7}})
    assert "--learning_rate was 0.0015 and is now 0.0001, --seed was 42 and is now 7: " in str(error.value)
    assert "--run_name" in str(error.value)


@pytest.mark.parametrize(
    ("key", "was", "now", "words"),
    [
        ("threads", 2, 1, "OMP_NUM_THREADS was 2 and is now 1"),
        ("processes", 2, 1, "the number of processes was 2 and is now 1"),
        ("device", "cuda (A)", "cpu", "the device was cuda (A) and is now cpu"),
        ("versions", {"torch": "2.1", "numpy": "1"}, {"torch": "2.2", "numpy": "2"}, "torch was 2.1 and is now 2.2"),
        ("versions", {"transformers": "5.1"}, {"transformers": "5.2"}, "transformers was 5.1 and is now 5.2"),
        (
            "data",
            {"train": {"sha256": "a" * 64}},
            {"train": {"sha256": "b" * 64}},
            "the sha256 of the train data was aa",
        ),
    ],
)
def test_machine_libraries_and_data_must_be_the_same(key, was, now, words):
    with pytest.raises(InputError) as error:
        check_settings({"device": "cpu", key: was}, {"device": "cpu", key: now})
    assert str(error.value).startswith(words)


def test_threads_count_on_a_cpu_only_and_other_facts_not_at_all():
    check_settings({"device": "mps", "threads": 8}, {"device": "mps", "threads": 4})
    check_settings({"data": {"train": {"source": "a"}}}, {"data": {"train": {"source": "b", "sha256": "c"}}})
    check_settings({"versions": {"numpy": "1"}, "git_commit": "a"}, {"versions": {"numpy": "2"}, "git_commit": "b"})


def run_on(sha256, path="a/rows.jsonl", **arguments):
    """run.json of a run on a file of data."""
    arguments = {"train_file": path, "source_files": [f"x={path}"], **arguments}
    return {"arguments": arguments, "data": {"train": {"source": path, "sha256": sha256}}}


def test_the_same_data_may_be_elsewhere_by_now():
    moved = run_on("a" * 64, "b/rows.jsonl")
    check_settings(run_on("a" * 64), moved)
    check_settings(run_on("a" * 64), {"arguments": moved["arguments"]})  # before they are read
    assert have_data_moved(run_on("a" * 64), moved) and not have_data_moved(moved, moved)
    assert set(ARGUMENTS) >= DATA_FILES


def test_other_data_are_refused_wherever_they_are():
    with pytest.raises(InputError, match="the sha256 of the train data was aa.* and is now bb") as error:
        check_settings(run_on("a" * 64), run_on("b" * 64, "b/rows.jsonl"))
    assert "name" not in str(error.value).split("give another")[0]
    with pytest.raises(InputError, match=r"from rows.jsonl, now others.jsonl; .*file's name"):
        check_settings(run_on("a" * 64), run_on("b" * 64, "a/others.jsonl"))
    with pytest.raises(InputError, match="--train_file was a/rows.jsonl and is now b/rows.jsonl"):
        check_settings({"arguments": run_on("a")["arguments"]}, run_on("a", "b/rows.jsonl"))  # content never recorded


def test_the_flags_that_resume_are_given():
    """A default may be another one than when the run began."""
    was = {"learning_rate": 1e-3, "measures": ["a b", "c"], "use_cpu": False, "block_size": None, "mixture": []}
    now = {"learning_rate": 1e-4, "measures": ["c"], "use_cpu": True, "block_size": 8, "mixture": ["x=1"]}
    with pytest.raises(InputError) as error:
        check_settings({"arguments": was}, {"arguments": now})
    assert "with --learning_rate 0.001 --measures 'a b' c --use_cpu false, or" in str(error.value)
