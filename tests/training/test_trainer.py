"""The loss and the training of `SupervisedTrainer`, against Hugging Face's own loss and plain loops."""

import copy
import math

import pytest
import torch
from transformers import GPT2LMHeadModel, TrainingArguments

from gpt2_interp.data.examples import ExampleBuilder, collate
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.synthetic.rows import news_rows
from gpt2_interp.training.trainer import EpochOrder, SupervisedTrainer


@pytest.fixture(scope="module")
def tokenizer(toy_base):
    return load_tokenizer(str(toy_base))


@pytest.fixture
def model(toy_base):
    return GPT2LMHeadModel.from_pretrained(toy_base).eval()


@pytest.fixture(scope="module")
def examples(tokenizer):
    rows = [{"id": r["id"], "source": r["article"], "target": r["highlights"]} for r in news_rows(12)]
    return ExampleBuilder(tokenizer, "summarization", 60, 40, 384).build(rows)[0]


def trainer(toy_base, tokenizer, examples, folder, **arguments):
    model = GPT2LMHeadModel.from_pretrained(toy_base, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0)
    args = TrainingArguments(
        output_dir=folder, max_steps=3, learning_rate=1e-2, save_strategy="no", logging_steps=1, disable_tqdm=True,
        train_sampling_strategy="sequential", use_cpu=True, **arguments,
    )  # fmt: skip
    return SupervisedTrainer(
        model=model, args=args, train_examples=examples, eval_examples=examples, processing_class=tokenizer
    )


def logged(trainer, key):
    return [line[key] for line in trainer.state.log_history if key in line]


def test_accumulated_steps_equal_large_batches(toy_base, tokenizer, examples, tmp_path):
    """Token-weighted over the whole effective batch, and the logged loss is not divided once more."""
    whole = trainer(toy_base, tokenizer, examples, tmp_path / "a", per_device_train_batch_size=4)
    parts = trainer(
        toy_base, tokenizer, examples, tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    whole.train()
    parts.train()
    assert logged(whole, "loss") == pytest.approx(logged(parts, "loss"), rel=1e-4)
    assert logged(whole, "grad_norm") == pytest.approx(logged(parts, "grad_norm"), rel=1e-3)
    assert min(logged(whole, "grad_norm")) > 0
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_first_logged_loss_is_the_base_models_loss(toy_base, tokenizer, examples, tmp_path, model):
    t = trainer(toy_base, tokenizer, examples[:4], tmp_path, per_device_train_batch_size=4)
    t.train()
    with torch.no_grad():
        expected = model(**collate(examples[:4], tokenizer.pad_token_id)).loss.item()
    assert logged(t, "loss")[0] == pytest.approx(expected, rel=1e-5)


def test_evaluation_weighs_tokens_alike(toy_base, tokenizer, examples, tmp_path, model):
    t = trainer(toy_base, tokenizer, examples, tmp_path, per_device_eval_batch_size=5)
    metrics = t.evaluate()
    total = tokens = 0
    with torch.no_grad():
        for example in examples:
            batch = collate([example], tokenizer.pad_token_id)
            n = len(example.target_ids)
            total += model(**batch).loss.item() * n
            tokens += n
    assert metrics["eval_loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-4)
    assert copy.copy(t.state.log_history[-1])["eval_loss"] == metrics["eval_loss"]


def order(lengths, epoch=0, seed=0, grouped=True):
    return list(EpochOrder(lengths, 4, grouped, seed, lambda: epoch))


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("n", [3, 47, 400])
def test_an_epochs_order_is_a_shuffled_partition(n, grouped):
    lengths = [(7 * i) % 41 + 1 for i in range(n)]
    first, second = order(lengths, 0, grouped=grouped), order(lengths, 1, grouped=grouped)
    assert sorted(first) == sorted(second) == list(range(n))
    torch.manual_seed(12345)
    torch.rand(7)
    assert order(lengths, 0, grouped=grouped) == first  # whatever else used random numbers
    if n > 4:
        assert first != second  # another order every epoch
        assert first != order(lengths, 0, seed=1, grouped=grouped)
        assert not grouped or lengths[first[0]] == max(lengths)


def test_grouped_batches_are_alike_inside_and_come_in_no_order():
    lengths = [(7 * i) % 41 + 1 for i in range(800)]
    found = [lengths[i] for i in order(lengths)]
    batches = [found[k : k + 4] for k in range(0, 800, 4)][1:]  # the first holds the longest, wherever that was
    assert sum(max(batch) - min(batch) for batch in batches) / len(batches) < 2  # about 25 in random batches
    means = [sum(batch) / 4 for batch in batches]
    falls = sum(b < a for a, b in zip(means, means[1:], strict=False))
    assert 0.4 < falls / len(means) < 0.6  # nearly 1 in Hugging Face's order


def test_every_epoch_trains_every_example_once_in_a_new_order(toy_base, tokenizer, examples, tmp_path):
    seen = []

    class Watching(SupervisedTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            seen.extend(inputs["ids"])
            return super().training_step(model, inputs, num_items_in_batch)

    model = GPT2LMHeadModel.from_pretrained(toy_base)
    args = TrainingArguments(
        output_dir=tmp_path, num_train_epochs=3, per_device_train_batch_size=5, save_strategy="no", disable_tqdm=True,
        train_sampling_strategy="random", use_cpu=True,
    )  # fmt: skip
    Watching(
        model=model, args=args, train_examples=examples, eval_examples=examples, processing_class=tokenizer
    ).train()
    epochs = [seen[i : i + len(examples)] for i in range(0, len(seen), len(examples))]
    assert len(epochs) == 3 and all(sorted(epoch) == sorted(e.id for e in examples) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
