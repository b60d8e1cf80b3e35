"""Help and mistakes of gpt2_summarization.py before the libraries are imported."""

import os
import subprocess
import sys

import pytest

from gpt2_interp.cli import training_values
from gpt2_interp.cli.early import check_command, make_parser
from gpt2_interp.cli.parser import ArgumentParser, RunTrainingArguments
from gpt2_interp.cli.training_flags import ExperimentArguments
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.run_paths import REPOSITORY

LIGHT = """
import sys
from gpt2_interp.errors import run_script
from gpt2_interp.cli.early import check_command
heavy = {"torch", "transformers", "datasets", "numpy", "pandas", "scipy"}
try:
    run_script(lambda: check_command(sys.argv[1:]))
finally:
    assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def early(*argv):
    return subprocess.run(
        [sys.executable, "-c", LIGHT, *argv], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["quikstart"], ["quikstart", "quickstart"]),
        (["quickstart", "--lerning_rate", "1"], ["--lerning_rate", "--learning_rate"]),
        (["quickstart", "--max_steps", "many"], ["--max_steps", "many"]),
        (["quickstart", "--lora_r=x"], ["--lora_r", "x"]),
        (["quickstart", "--resume=perhaps"], ["--resume", "perhaps"]),
        (["quickstart", "--tuning", "half"], ["--tuning", "half", "lora"]),
        (["quickstart", "--resume", "--overwrite"], ["--resume", "--overwrite"]),
        (["quickstart", "--fsdp", "x"], ["--fsdp"]),
        (["quickstart", "--effective_batch_size=24"], ["--effective_batch_size", "--per_device_train_batch_size"]),
        (["--model_name_or_path", "gpt2", "--dataset_name", "synthetic_news"], ["--run_name"]),
        (["quickstart", "--save_steps", "0"], ["--save_steps", "above 0"]),
        (["quickstart", "--seed", "-1"], ["--seed", "-1"]),
        (["quickstart", "--seed", "4294967296"], ["--seed", "4294967295"]),
        (["quickstart", "--max_steps", "0"], ["--max_steps"]),
        (["quickstart", "--learning_rate", "nan"], ["--learning_rate", "nan"]),
        (["quickstart", "--per_device_eval_batch_size", "0"], ["--per_device_eval_batch_size", "1"]),
        (["quickstart", "--debug", "underflow_overflow"], ["--debug"]),
        (["quickstart", "--use_liger_kernel"], ["--use_liger_kernel"]),
        (["quickstart", "--label_smoothing_factor", "0.3"], ["--label_smoothing_factor"]),
        (["quickstart", "--report_to", "a.b"], ["--report_to", "a.b", "tensorboard"]),
        (["quickstart", "--push_to_hub"], ["--push_to_hub", "best_model"]),
        (["quickstart", "--metric_for_best_model", "rougeL"], ["--metric_for_best_model", "rougeL", "eval_loss"]),
        (["quickstart", "--lr_scheduler_type=constant", "--warmup_steps=0.5"], ["--warmup_steps", "warms up"]),
        (["quickstart", "--lr_scheduler_type=constant", "--lr_scheduler_kwargs={}"], ["--lr_scheduler_kwargs"]),
        (["quickstart", "--dataloader_persistent_workers"], ["--dataloader_num_workers"]),
        (["quickstart", "--activation_checkpointing_kwargs={}"], ["--activation_checkpointing:"]),
        (["quickstart", "--optim_target_modules", "attn"], ["--optim_target_modules", "GaLore"]),
        (["quickstart", "--optim", "schedule_free_adamw"], ["--optim", "schedule_free_adamw", "snapshot"]),
        (["quickstart", "--lr_scheduler_kwargs", "[1]"], ["--lr_scheduler_kwargs", "JSON object", "[1]"]),
        (["quickstart", "--project", "x"], ["--project", "trackio"]),
        (["quickstart", "--report_to", "kubeflow"], ["TrainJob"]),
        (["quickstart", "--train_sampling_strategy", "batch_rebalance"], ["group_by_length"]),
        (["quickstart", "--adam_beta2", "1"], ["--adam_beta2", "below 1"]),
        (["quickstart", "--save_steps", "2.5"], ["--save_steps", "whole"]),
        (["quickstart", "--no_dataloader_in_order"], ["--dataloader_in_order", "same order"]),
        (["quickstart", "--eval_accumulation_steps", "1"], ["--eval_accumulation_steps"]),
    ],
)
def test_a_mistake_is_named_without_the_libraries(argv, words):
    result = early(*argv)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_an_optimizer_or_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(training_values, "_is_installed", lambda package: False)
    for flag, value, package in (
        ("--optim", "stable_adamw", "torch-optimi"),
        ("--optim", "adamw_8bit", "bitsandbytes"),
        ("--report_to", "wandb", "wandb"),
    ):
        with pytest.raises(InputError, match=f"{flag} {value}.*{package}"):
            check_command(["quickstart", "--report_to", "none", flag, value])
    check_command(["quickstart", "--optim", "adamw_torch", "--report_to", "none"])


def test_an_unknown_key_of_a_preset_gets_the_nearest_one(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("lerning_rate: 1\n")
    result = early(str(path))
    assert result.returncode == 2 and "p.yaml" in result.stderr and "--learning_rate" in result.stderr


def test_help_shows_ours_first_and_all_on_demand():
    common, everything = early("--help").stdout, early("quickstart", "--help", "all").stdout
    for flag in ("--tuning", "--probe_samples", "--learning_rate", "--help all"):
        assert flag in common
    assert common.index("--model_name_or_path") < common.index("--task") < common.index("--learning_rate")
    assert "--ddp_backend" in everything and "--ddp_backend" not in common
    assert "--output_dir" not in everything  # refused, so not offered
    assert "(256)" in common and "1% of the" in " ".join(common.split())


def test_help_of_the_script_takes_less_than_a_second():
    before = os.times()
    result = subprocess.run([sys.executable, "gpt2_summarization.py", "--help"], cwd=REPOSITORY, capture_output=True)
    after = os.times()
    assert result.returncode == 0 and not result.stderr
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 2  # CPU seconds, 0.15 on a machine that does nothing else; torch alone takes more


def test_it_reads_flags_as_the_real_parser_does():
    """The same flags, numbers of values, types of numbers, defaults and choices as HfArgumentParser finds."""
    groups = (ModelArguments, DataArguments, ExperimentArguments, RunTrainingArguments)
    real, ours = ArgumentParser(groups)._option_string_actions, make_parser()._option_string_actions
    assert {flag for flag in real if "-" not in flag[2:]} == set(ours)
    for flag, action in ours.items():
        theirs = real[flag]
        assert action.nargs == theirs.nargs and action.dest == theirs.dest, flag
        assert (action.type in (int, float)) == (theirs.type in (int, float)), flag
        assert action.type is theirs.type or action.type not in (int, float), flag
        if action.choices:
            assert list(action.choices) == list(theirs.choices), flag
        if flag not in ("--optim", "--debug", "-h", "--help") and not flag.startswith("--no_"):
            default = getattr(theirs.default, "value", theirs.default)
            assert action.default == default, flag
