from gpt2_interp.cli.parser import parse_arguments
from gpt2_interp.cli.training_flags import as_settings, what_settings_decide


def test_each_setting_that_decides_no_learning_exists_and_stands_in_one_list():
    settings, decides = as_settings(*parse_arguments(["quickstart"])), what_settings_decide()
    assert set(decides) == {"record", "nothing"}
    assert not set(decides["record"]) & set(decides["nothing"])
    assert set(decides["record"]) | set(decides["nothing"]) <= set(settings)


def test_what_is_learned_and_what_is_only_measured():
    decides = what_settings_decide()
    assert {"num_beams", "measures", "max_predict_samples", "per_device_train_batch_size"} <= set(decides["record"])
    assert {"run_name", "root", "resume", "hub_token"} <= set(decides["nothing"])
    learned = {"learning_rate", "effective_batch_size", "seed", "train_file", "precision", "lora_r", "attn_pdrop"}
    assert not learned & {*decides["record"], *decides["nothing"]}
