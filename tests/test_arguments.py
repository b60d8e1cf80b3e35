import pytest

from gpt2_interp.arguments import CONFIGS, as_settings, parse_arguments, preset_names
from gpt2_interp.errors import InputError
from gpt2_interp.snapshots import finite

RANDOM_NEWS = ["--config_name", "gpt2", "--dataset_name", "synthetic_news", "--run_name", "r"]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses_and_names_its_run(name):
    _, _, _, training = parse_arguments([name])
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


def test_each_checkpoint_is_evaluated():
    training = parse_arguments([*RANDOM_NEWS, "--save_steps", "7"])[3]
    assert (training.eval_strategy, training.eval_steps) == ("steps", 7)


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
        (["quickstart", "--output_dir", "x"], ["--output_dir", "--run_name"]),
        (["quickstart", "--resume", "--overwrite"], ["--resume", "--overwrite"]),
        (["quickstart", "--config_name", "gpt2"], ["--model_name_or_path", "--config_name"]),
        (["quickstart", "--train_file", "x.jsonl"], ["--dataset_name", "--train_file"]),
        (["quickstart", "--learning_rate", "0"], ["--learning_rate"]),
        (["quickstart", "--max_train_samples", "0"], ["--max_train_samples"]),
        (["quickstart", "--eval_steps", "3"], ["--eval_steps", "--save_steps"]),
        (["quickstart", "--resume_from_checkpoint=x"], ["--resume finds"]),
        (["quickstart", "--load_best_model_at_end", "true"], ["best_model/"]),
        (["quickstart", "--tuning", "half"], ["invalid choice", "lora"]),
        ([*RANDOM_NEWS, "--tuning", "lora"], ["--model_name_or_path"]),
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
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            parse_arguments([str(path)])


def test_presets_stand_where_the_package_looks():
    assert CONFIGS.is_dir() and CONFIGS.name == "configs"
