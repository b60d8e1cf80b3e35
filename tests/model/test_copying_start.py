"""The two heads that begin with the pattern of copying do copy, before any training; all other heads are random."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.errors import InputError
from gpt2_interp.model.copying_start import INDUCTION, PREVIOUS, start_copying
from gpt2_interp.model.load import load_base
from gpt2_interp.model.settings import ModelArguments

LENGTH = 40


@pytest.fixture(scope="module")
def attention() -> tuple[torch.Tensor, torch.Tensor]:
    """[layer, head, query, key] over [BOS, r_1..r_T, r_1..r_T], and the loss of each token of the second reading."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=4, n_head=4, n_embd=128, n_positions=512, vocab_size=2048)
    model = GPT2LMHeadModel(config).eval()
    start_copying(model)
    words = torch.stack([1 + torch.randperm(2047)[:LENGTH] for _ in range(32)])
    ids = torch.cat([torch.zeros(32, 1, dtype=torch.long), words, words], dim=1)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(ids, output_attentions=True)
    losses = -output.logits.log_softmax(-1)[:, LENGTH:-1].gather(2, words[:, :, None])
    return torch.stack(output.attentions).mean(1), losses


def scores(pattern: torch.Tensor, offset: int) -> torch.Tensor:
    """[layer, head]: attention of the second reading to the key `offset` before the query."""
    query = torch.arange(LENGTH + 1, 2 * LENGTH + 1)
    return pattern[:, :, query, query - offset].mean(-1)


def test_two_heads_do_what_they_are_named_for_and_no_other(attention):
    pattern, _ = attention
    for where, offset, least in ((PREVIOUS, 1, 0.5), (INDUCTION, LENGTH - 1, 0.2)):
        score = scores(pattern, offset)
        assert score[where] > least
        score[where] = 0
        assert score.max() < 0.05


def test_copying_pays_from_the_start(attention):
    _, losses = attention
    assert losses.mean() < 7.624 - 0.2  # ln 2048


def test_a_shape_that_cannot_copy_is_refused():
    for overrides in ("n_layer=1,n_head=2,n_embd=32", "n_layer=2,n_head=2,n_embd=30"):
        arguments = ModelArguments(
            config_name="gpt2", config_overrides=overrides, new_tokenizer_size=300, copying_start=True
        )
        with pytest.raises(InputError, match="copying_start"):
            load_base(arguments, 0, ["some text"])
