import math

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from gpt2_interp.measures.weights import weight_measures
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.training.null_training import MOST_TIMES_LONGER, null_arguments, relative_change, train_null
from tests.recording.test_recorder import EXAMPLES, make_model


def arguments(tmp_path, steps: int = 5, **settings) -> TrainingArguments:
    main = TrainingArguments(
        output_dir=str(tmp_path), seed=7, data_seed=8, max_steps=20, lr_scheduler_type="cosine", warmup_steps=0.2,
        per_device_train_batch_size=4, use_cpu=True, disable_tqdm=True, logging_steps=1, eval_strategy="epoch",
        **{"learning_rate": 1e-2, **settings},
    )  # fmt: skip
    return null_arguments(main, steps, 1008, "run-null-1")


def train(tmp_path, target: float, lora: bool = False, **settings):
    model = make_model(lora)
    base = BaseWeights(model)
    reached = train_null(model, base, EXAMPLES, None, arguments(tmp_path, **settings), target)
    return model, base, reached


@pytest.mark.parametrize("lora", [False, True])
def test_training_stops_where_the_weights_have_changed_enough(lora, tmp_path):
    _, _, whole = train(tmp_path, math.inf, lora)
    assert whole.steps == 5 * MOST_TIMES_LONGER and "short of" in whole.summary()
    model, base, reached = train(tmp_path, whole.change / 2, lora)
    assert 0 < reached.steps < whole.steps
    assert whole.change / 2 <= reached.change < whole.change
    assert reached.change == pytest.approx(relative_change(model, base))
    assert "short of" not in reached.summary() and [line["step"] for line in reached.log]
    _, _, before = train(tmp_path, reached.change * 1.001, lora)
    assert before.steps > reached.steps


def test_the_change_is_that_of_all_matrices_together(tmp_path):
    model, base, reached = train(tmp_path, 1e-6)
    measures = {name: array.astype(np.float64) for name, array in weight_measures(model, base).items()}
    change, relative = measures["weight_change"], measures["weight_change_relative"]
    assert (change > 0).all()
    size = change / relative
    assert reached.change == pytest.approx(math.sqrt((change**2).sum() / (size**2).sum()), rel=1e-5)
    untouched = make_model()
    assert relative_change(untouched, BaseWeights(untouched)) == 0


def test_a_null_run_has_the_runs_settings_but_seed_length_and_schedule(tmp_path):
    own = arguments(tmp_path, learning_rate=3e-3, weight_decay=0.25)
    assert (own.seed, own.data_seed, own.run_name) == (1008, None, "run-null-1")
    assert (own.learning_rate, own.weight_decay, own.per_device_train_batch_size) == (3e-3, 0.25, 4)
    assert own.lr_scheduler_type == "constant_with_warmup" and own.warmup_steps == 1  # 0.2 of 5
    assert own.max_steps == 20 and own.save_strategy == own.eval_strategy == "no"


def test_nothing_is_saved(tmp_path):
    train(tmp_path / "out", 1e-6)
    assert not list((tmp_path / "out").rglob("*.*"))


def test_seeds_differ(tmp_path):
    first, again, other = (train_null_weights(tmp_path, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def train_null_weights(tmp_path, seed: int) -> torch.Tensor:
    model = make_model()
    own = arguments(tmp_path)
    own.seed = seed
    train_null(model, BaseWeights(model), EXAMPLES, None, own, 1e-6)
    return model.transformer.wte.weight.detach().clone()
