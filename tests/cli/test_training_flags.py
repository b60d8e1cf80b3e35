from dataclasses import fields

from gpt2_interp.cli.parser import parse_arguments
from gpt2_interp.cli.training_flags import BEGINNING, ExperimentArguments, as_settings, what_settings_decide
from gpt2_interp.data.examples import TEMPLATES
from gpt2_interp.data.settings import TRAINED_TASKS
from gpt2_interp.model.load import MODEL_CLASSES
from gpt2_interp.model.settings import IMPLEMENTATIONS
from gpt2_interp.statistics.texts import FEWEST_TEXTS
from gpt2_interp.training.sample_writer import SHOWN_IN_TENSORBOARD


def test_each_setting_that_decides_no_learning_exists_and_stands_in_one_list():
    settings, decides = as_settings(*parse_arguments(["quickstart"])), what_settings_decide()
    assert set(decides) == {"record", "nothing"}
    assert not set(decides["record"]) & set(decides["nothing"])
    assert set(decides["record"]) | set(decides["nothing"]) <= set(settings) | set(BEGINNING)
    assert not set(BEGINNING) & set(settings)  # a resumed run's settings are those of one that was never stopped


def test_what_is_learned_and_what_is_only_measured():
    decides = what_settings_decide()
    assert {"num_beams", "measures", "max_predict_samples", "per_device_train_batch_size"} <= set(decides["record"])
    assert {"run_name", "root", "resume", "hub_token"} <= set(decides["nothing"])
    learned = {"learning_rate", "effective_batch_size", "seed", "train_file", "precision", "lora_r", "attn_pdrop"}
    assert not learned & {*decides["record"], *decides["nothing"]}


def test_help_names_the_numbers_that_hold():
    """Numbers whose modules are too slow to import for --help."""
    words = {one.name: one.metadata["help"] for one in fields(ExperimentArguments)}["samples_per_checkpoint"]
    assert f"takes {FEWEST_TEXTS};" in words and f"shows {SHOWN_IN_TENSORBOARD} of them" in words


def test_the_tasks_and_implementations_of_the_flags_are_those_that_exist():
    assert set(TRAINED_TASKS) == set(TEMPLATES)
    assert set(IMPLEMENTATIONS) == set(MODEL_CLASSES)
