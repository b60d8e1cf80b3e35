import pytest

from gpt2_interp.cli.parser import complete_settings, parse_arguments
from gpt2_interp.cli.presets import preset_names
from gpt2_interp.cli.training_flags import as_settings
from gpt2_interp.errors import InputError
from gpt2_interp.files import finite
from gpt2_interp.run_paths import CONFIGS

RANDOM_NEWS = ["--config_name", "gpt2", "--dataset_name", "synthetic_news", "--run_name", "r"]


NEEDED = {"custom_text": ["--train_file", "mine.txt"]}  # what a preset can't know


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses_and_names_its_run(name):
    _, _, _, training = parse_arguments([name, *NEEDED.get(name, [])])
    assert training.run_name == name
    assert training.output_dir == f"checkpoints/{name}"


def test_the_first_presets_are_there():
    assert {"quickstart", "quickstart_lora", "quickstart_stories", "pretrain_tiny"} <= set(preset_names())


def test_flags_win_over_the_preset_and_may_be_written_with_dashes():
    model, data, _, training = parse_arguments(
        ["quickstart", "--learning-rate", "0.5", "--run-name=mine", "--tuning", "lora", "--max_train_samples", "7"]
    )
    assert (training.learning_rate, training.run_name) == (0.5, "mine")
    assert (model.tuning, data.max_train_samples) == ("lora", 7)
    assert training.output_dir == "checkpoints/mine"


def test_a_preset_may_be_a_path_and_holds_lists(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("config_name: gpt2\ndataset_name: synthetic_news\nlora_target_modules: [mlp.c_fc, mlp.c_proj]\n")
    model, _, _, training = parse_arguments([str(path)])
    assert model.lora_target_modules == ["mlp.c_fc", "mlp.c_proj"]
    assert training.run_name == "own"


def test_the_presets_of_the_real_experiments():
    model, data, _, training = parse_arguments(["cnn_dailymail"])
    assert (data.dataset_name, data.dataset_config_name) == ("abisee/cnn_dailymail", "3.0.0")
    assert (model.tuning, training.learning_rate, training.optim) == ("full", 5e-5, "adamw_torch_fused")
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 8)
    assert training.num_train_epochs == 3 and training.save_total_limit == 2 and data.max_predict_samples >= 500
    model, data, _, training = parse_arguments(["creative_writing"])
    assert (model.tuning, data.block_size, data.max_train_samples, data.max_eval_samples) == ("lora", 512, 20000, 2000)
    assert data.mixture[0] == "writingprompts=0.4" and len(data.mixture) == 4
    assert (training.learning_rate, training.per_device_train_batch_size, training.num_train_epochs) == (5e-4, 8, 5)


def test_a_preset_gives_way_to_the_command_lines_model_and_data():
    local = ["--train_file", "a.jsonl", "--validation_file", "b.jsonl"]
    model, data, _, _ = parse_arguments(["cnn_dailymail", "--config-name=gpt2", "--tokenizer_name", "folder", *local])
    assert (model.model_name_or_path, model.config_name, model.tokenizer_name) == (None, "gpt2", "folder")
    assert (data.dataset_name, data.dataset_config_name, data.dataset_revision) == (None, None, None)
    assert (data.train_file, data.validation_file) == ("a.jsonl", "b.jsonl")
    assert data.max_eval_samples is None and data.max_predict_samples is None  # were of the preset's dataset
    _, data, _, _ = parse_arguments(["creative_writing", "--train-file=a.txt"])
    assert data.mixture == [] and data.train_file == "a.txt" and data.block_size == 512
    _, data, _, _ = parse_arguments(["cnn_dailymail", "--dataset_name", "a/b"])
    assert (data.dataset_name, data.dataset_config_name) == ("a/b", None)
    _, data, _, _ = parse_arguments(["quickstart_stories", "--mixture", "wikitext=1", "rocstories=1"])
    assert data.dataset_name is None and data.mixture == ["wikitext=1", "rocstories=1"]
    model, *_ = parse_arguments(["pretrain_tiny", "--model_name_or_path", "gpt2"])
    assert (model.config_name, model.config_overrides, model.copying_start) == (None, None, False)


def test_a_flag_keeps_the_settings_that_it_does_not_replace(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("config_name: gpt2\ntrain_file: a.jsonl\nvalidation_file: b.jsonl\nmax_train_samples: 7\n")
    _, data, _, _ = parse_arguments([str(path), "--train_file", "c.jsonl"])
    assert (data.train_file, data.validation_file, data.max_train_samples) == ("c.jsonl", "b.jsonl", 7)
    _, data, _, _ = parse_arguments(["creative_writing", "--mixture", "wikitext=1"])
    assert data.max_train_samples == 20000


def test_each_checkpoint_is_evaluated():
    training = parse_arguments([*RANDOM_NEWS, "--save_steps", "7"])[3]
    assert (training.eval_strategy, training.eval_steps) == ("steps", 7)


def test_general_text_and_permuted_targets():
    _, data, _, _ = parse_arguments(RANDOM_NEWS)
    assert (data.control_file, data.null_targets) == (None, False)
    groups = parse_arguments([*RANDOM_NEWS, "--control-file=web.jsonl", "--null_targets"])
    settings = as_settings(*groups)
    assert (settings["control_file"], settings["null_targets"]) == ("web.jsonl", True)


def test_settings_can_be_written_as_json():
    settings = finite(as_settings(*parse_arguments(RANDOM_NEWS)))
    assert settings["learning_rate"] == 5e-5 and settings["tuning"] == "full"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no_such_preset"], ["no preset 'no_such_preset'", "quickstart"]),
        (["quickstart", "--lerning_rate", "1"], ["--lerning_rate", "did you mean --learning_rate"]),
        (["quickstart", "--learning_rate", "fast"], ["learning_rate", "invalid float value"]),
        (["quickstart", "--run_name", "a/b"], ["--run_name 'a/b'", "no slash"]),
        (["quickstart", "--run_name", "a..b"], ["'..'"]),
        (["quickstart", "--run_name", ".hidden"], ["--run_name"]),
        (["quickstart", "--run_name", "x" * 300], ["--run_name", "300", "200"]),
        (["quickstart", "--max_steps", "9" * 20], ["--max_steps", "9" * 20]),
        (["quickstart", "--output_dir", "x"], ["--output_dir", "--run_name"]),
        (["quickstart", "--samples_per_checkpoint=-1"], ["--samples_per_checkpoint must be at least 0"]),
        (["quickstart", "--resume", "--overwrite"], ["--resume", "--overwrite"]),
        (["quickstart", "--measures", "heads"], ["--measures", "heads", "attention"]),
        (["quickstart", "--snapshot_schedule", "often"], ["--snapshot_schedule often", "checkpoints"]),
        ([*RANDOM_NEWS, "--model_name_or_path", "gpt2"], ["--model_name_or_path", "--config_name"]),
        ([*RANDOM_NEWS, "--train_file", "x.jsonl"], ["--dataset_name", "--train_file", "--mixture"]),
        (["custom_text"], ["--dataset_name", "--train_file", "--mixture"]),
        (["quickstart", "--validation_file", "x.jsonl"], ["--validation_file", "--train_file"]),
        (["cnn_dailymail", "--mixture", "wikitext=1"], ["--mixture", "--task creative_writing"]),
        (["creative_writing", "--mixture", "wikipedia=1"], ["'wikipedia' is no source", "wikitext"]),
        (["creative_writing", "--mixture", "wikitext=x"], ["'x' is no weight for wikitext"]),
        (["creative_writing", "--source_files", "wikitext"], ["--source_files", "wikitext=VALUE"]),
        (
            ["creative_writing", "--mixture=wikitext=1", "--source_files", "rocstories=a"],
            ["rocstories is not in --mix"],
        ),
        (["quickstart", "--block_size", "64"], ["--block_size", "creative_writing"]),
        (["creative_writing", "--block_size", "7"], ["--block_size must be at least 8"]),
        (["quickstart", "--validation_split_percentage", "60"], ["--validation_split_percentage", "at most 50"]),
        (["custom_text", "--train_file", "a.txt", "--text_unit", "word"], ["invalid choice", "paragraph"]),
        (["quickstart", "--learning_rate", "0"], ["--learning_rate"]),
        (["quickstart", "--max_train_samples", "0"], ["--max_train_samples"]),
        (["quickstart", "--eval_steps", "3"], ["--eval_steps", "--save_steps"]),
        (["quickstart", "--resume_from_checkpoint=x"], ["--resume finds"]),
        (["quickstart", "--load_best_model_at_end", "true"], ["best_model/"]),
        (["quickstart", "--tuning", "half"], ["invalid choice", "lora"]),
        ([*RANDOM_NEWS, "--tuning", "lora"], ["--model_name_or_path", "--tuning full"]),
        (RANDOM_NEWS[2:], ["--model_name_or_path", "--config_name"]),
        (RANDOM_NEWS[:2] + RANDOM_NEWS[4:], ["--dataset_name", "--train_file"]),
        (RANDOM_NEWS[:4], ["--run_name"]),
    ],
)
def test_bad_arguments_get_a_sentence(argv, words):
    with pytest.raises(InputError) as error:
        parse_arguments(argv)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("flags", "rows", "accumulated"),
    [
        ([], None, None),
        (["--effective_batch_size=32"], None, None),
        (["--per_device_train_batch_size=4"], 4, 1),
        (["--gradient_accumulation_steps=4"], 8, 4),
        (["--per_device_train_batch_size=4", "--effective_batch_size=32"], 4, 8),
        (["--gradient_accumulation_steps=4", "--effective_batch_size=32"], 8, 4),
        (["--per_device_train_batch_size=2", "--gradient_accumulation_steps=3"], 2, 3),
        (["--per_device_train_batch_size=2", "--gradient_accumulation_steps=3", "--effective_batch_size=6"], 2, 3),
    ],
)
def test_batch_sizes_follow_from_each_other(flags, rows, accumulated):
    training = parse_arguments([*RANDOM_NEWS, "--use_cpu", *flags])[3]
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (rows, accumulated)


def test_a_presets_batch_size_counts_as_given():
    training = parse_arguments(["quickstart", "--use_cpu", "--effective_batch_size=64"])[3]
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (16, 4)


@pytest.mark.parametrize(
    "flags",
    [
        ["--per_device_train_batch_size=4", "--gradient_accumulation_steps=2", "--effective_batch_size=16"],
        ["--per_device_train_batch_size=5", "--effective_batch_size=16"],
        ["--gradient_accumulation_steps=32", "--effective_batch_size=16"],
    ],
)
def test_batch_sizes_that_contradict_each_other_are_named(flags):
    with pytest.raises(InputError) as error:
        parse_arguments([*RANDOM_NEWS, "--use_cpu", *flags])
    assert all(flag.replace("=", " ") in str(error.value) for flag in flags)
    with pytest.raises(InputError, match="--effective_batch_size must be at least 1"):
        parse_arguments([*RANDOM_NEWS, "--effective_batch_size=0"])


def test_bad_presets_get_a_sentence(tmp_path):
    path = tmp_path / "p.yaml"
    for text, words in (
        ("lerning_rate: 1\n", "learning_rate"),
        ("a: [1\n", "not valid YAML"),
        ("just text\n", "flag: value"),
        ("measures: " + "[" * 3000, "not valid YAML"),
        ("measures: [[all]]\n", "measures"),
        ("&a {run_name: *a}\n", "run_name"),
        ("lr_scheduler_kwargs: {min_lr: 2024-01-01}\n", "lr_scheduler_kwargs"),
        (f"seed: {'9' * 5000}\n", "not valid YAML"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            parse_arguments([str(path)])


def test_presets_stand_where_the_package_looks():
    assert CONFIGS.is_dir() and CONFIGS.name == "configs"


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_sharded_weights_are_refused(name, monkeypatch):
    with pytest.raises(InputError, match=f"--{name.lower()} is not a flag here.*whole model in one process"):
        parse_arguments(["quickstart", f"--{name.lower()}", "x"])
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(InputError, match="whole model in one process"):
        parse_arguments(["quickstart"])


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    """As torchrun without GPUs and without --use_cpu starts them: each would train, and write, the whole run."""
    _, _, experiment, training = parse_arguments(RANDOM_NEWS)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 processes .* --use_cpu"):
        complete_settings(experiment, training)
