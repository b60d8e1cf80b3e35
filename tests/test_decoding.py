import pytest
import torch
from transformers import GPT2LMHeadModel

from gpt2_interp.decoding import generate
from gpt2_interp.models import load_tokenizer

PROMPTS = [[40, 41, 42], [50] * 20, [60, 61, 62, 63, 64, 65, 66], [7]]


@pytest.fixture(scope="module")
def toy(toy_base):
    return GPT2LMHeadModel.from_pretrained(toy_base), load_tokenizer(str(toy_base))


@pytest.mark.parametrize("num_beams", [1, 3])
def test_batched_equals_one_by_one_in_the_given_order(toy, num_beams):
    model, tokenizer = toy
    together = generate(model, tokenizer, PROMPTS, 12, num_beams=num_beams, batch_size=4)
    alone = [generate(model, tokenizer, [prompt], 12, num_beams=num_beams)[0] for prompt in PROMPTS]
    assert together == alone
    assert len(set(together)) > 1


def test_greedy_equals_the_argmax_loop(toy):
    model, tokenizer = toy
    model.eval()
    ids = list(PROMPTS[2])
    for _ in range(12):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    expected = tokenizer.decode(ids[len(PROMPTS[2]) :], skip_special_tokens=True).strip()
    assert generate(model, tokenizer, [PROMPTS[2]], 12) == [expected]


def test_sampling_is_seeded_and_leaves_random_state_and_mode(toy):
    model, tokenizer = toy
    model.train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = generate(model, tokenizer, PROMPTS, 12, top_p=0.9, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert first == generate(model, tokenizer, PROMPTS, 12, top_p=0.9, seed=1)
    assert first != generate(model, tokenizer, PROMPTS, 12, top_p=0.9, seed=2)


def test_autocast_casts_weights_once_and_not_for_every_token(toy):
    model, tokenizer = toy

    shape = list(model.transformer.h[0].attn.c_attn.weight.shape)
    with torch.profiler.profile(record_shapes=True) as profile:
        generate(model, tokenizer, [PROMPTS[0]], 12, context=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    casts = [
        e for e in profile.events() if e.name == "aten::_to_copy" and e.input_shapes and e.input_shapes[0] == shape
    ]
    assert len(casts) == model.config.n_layer
