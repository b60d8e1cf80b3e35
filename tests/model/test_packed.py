"""A packed batch against its examples one by one, in every way in which a model is trained."""

import contextlib

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2LMHeadModel

from gpt2_interp.data.examples import IGNORED, Example, collate
from gpt2_interp.model import packed
from gpt2_interp.model.fast_layers import use_fast_layers
from gpt2_interp.model.packed import pack, packed_attention, packed_loss, packed_token_losses

LENGTHS = ((30, 12), (3, 1), (50, 20), (1, 2), (0, 25))  # source, target; the last is plain text


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(0)

    def ids(n):
        return tuple(torch.randint(5, 600, (n,), generator=generator).tolist())

    return [Example(f"e{i}", "c", ids(s), ids(2) if s else (), ids(t)) for i, (s, t) in enumerate(LENGTHS)]


@pytest.fixture
def model(toy_base):
    return GPT2LMHeadModel.from_pretrained(toy_base).eval()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def separate(model, examples):
    """Token-weighted mean over examples of Hugging Face's own loss, each alone, on every position."""
    total = tokens = 0
    for example in examples:
        batch = collate([example], pad_id=0)
        n = (batch["labels"][:, 1:] != IGNORED).sum()
        total, tokens = total + model(**batch).loss * n, tokens + n
    return total / tokens


def packed_batch_loss(model, examples):
    with packed_attention(model):
        return packed_loss(model, pack(examples))


def assert_same_gradients(ours, theirs, rtol=1e-4, atol=1e-6):
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=rtol, atol=atol, msg=name)


def test_layout(examples):
    batch = pack(examples[:2])
    assert batch["input_ids"][0].tolist() == [*examples[0].input_ids, *examples[1].input_ids]
    assert batch["position_ids"][0].tolist() == [*range(44), *range(6)]
    labels = [*examples[0].labels[1:], IGNORED, *examples[1].labels[1:], IGNORED]
    assert batch["shift_labels"][0].tolist() == labels
    flat = batch["input_ids"][0][batch["padded"]]  # [segment, longest]
    assert flat[0].tolist() == list(examples[0].input_ids) and flat[1, :6].tolist() == list(examples[1].input_ids)
    assert torch.equal(flat.flatten()[batch["unpadded"]], batch["input_ids"][0])


@pytest.mark.parametrize("rows", [slice(None), slice(2, 3), slice(1, 4)])
def test_loss_and_gradients_are_those_of_the_examples_one_by_one(model, examples, rows):
    theirs = separate(model, examples[rows])
    theirs_gradients = gradients(model, theirs)
    ours = packed_batch_loss(model, examples[rows])
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert_same_gradients(gradients(model, ours), theirs_gradients)


def test_neighbours_do_not_see_each_other(model, examples):
    """Another neighbour changes nothing, to the bit; without packed attention it would."""
    a, b, c = examples[0], examples[2], examples[4]
    n = len(a.target_ids)
    with packed_attention(model), torch.no_grad():
        first, second = (packed_token_losses(model, pack([a, other]))[:n] for other in (b, c))
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)
        behind = [packed_token_losses(model, pack([other, a]))[-n:] for other in (b, c)]
        torch.testing.assert_close(behind[0], behind[1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(behind[0], first, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        ids, positions = (pack([b, a])[name] for name in ("input_ids", "position_ids"))
        contaminated = model(ids, position_ids=positions, attention_mask=torch.ones_like(ids)).logits[0, -n - 1 : -1]
        losses = torch.nn.functional.cross_entropy(contaminated, torch.tensor(a.target_ids), reduction="none")
    assert (losses - first).abs().max() > 1e-3


def test_many_supervised_tokens_are_computed_in_pieces(model, examples, monkeypatch):
    whole = packed_batch_loss(model, examples)
    whole_gradients = gradients(model, whole)
    monkeypatch.setattr(packed, "LOGITS_AT_ONCE", 7 * model.config.vocab_size)
    largest = []
    handle = model.lm_head.register_forward_hook(lambda module, args, output: largest.append(output[..., 0].numel()))
    pieces = packed_batch_loss(model, examples)
    pieces_gradients = gradients(model, pieces)
    handle.remove()
    assert max(largest) == 7
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-6)
    assert_same_gradients(pieces_gradients, whole_gradients)


def test_logits_exist_only_at_supervised_positions(model, examples):
    shapes = []
    handle = model.lm_head.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    packed_batch_loss(model, examples)
    handle.remove()
    supervised = sum(len(e.target_ids) for e in examples) - 1  # plain text's first token is predicted by nothing
    assert sorted(shapes) == [(1, 1, 600), (supervised, 600)]


def test_activation_checkpointing_changes_nothing(model, examples):
    def one_step():
        with packed_attention(model):  # around backward too
            return gradients(model, packed_loss(model, pack(examples)))

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = one_step()
    calls = []
    handle = model.transformer.h[0].ln_1.register_forward_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same_gradients(one_step(), plain)
    handle.remove()
    assert len(calls) == 2  # it did compute the block again


def test_lora_trains_the_same(model, examples):
    adapted = get_peft_model(model, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False))
    adapted.eval()
    theirs = gradients(adapted, separate(adapted, examples))
    assert theirs and all("lora" in name for name in theirs)
    assert_same_gradients(gradients(adapted, packed_batch_loss(adapted, examples)), theirs)


def test_attention_is_restored(model, examples):
    before = model.config._attn_implementation
    with contextlib.suppress(RuntimeError), packed_attention(model):
        assert model.config._attn_implementation == packed.PACKED
        raise RuntimeError
    assert model.config._attn_implementation == before


def test_bf16_is_close_to_fp32(model, examples):
    full = packed_batch_loss(model, examples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = packed_batch_loss(model, examples)
    assert half.dtype == torch.float32 and half.item() != full.item()
    assert half.item() == pytest.approx(full.item(), rel=2e-3)


def test_fast_layers_are_the_same_functions(model, examples):
    theirs = separate(model, examples)
    theirs_gradients = gradients(model, theirs)
    use_fast_layers(model)
    assert isinstance(model.transformer.h[0].mlp.act, torch.nn.GELU)
    ours = separate(model, examples)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert_same_gradients(gradients(model, ours), theirs_gradients)


@pytest.mark.slow
def test_compiled_is_the_same(toy_base, examples):
    model = GPT2LMHeadModel.from_pretrained(toy_base, n_layer=1).eval()  # each block is compiled for itself
    theirs = packed_batch_loss(model, examples)
    theirs_gradients = gradients(model, theirs)
    compiled = torch.compile(model, dynamic=True)  # once for both shapes
    ours = packed_batch_loss(compiled, examples)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert_same_gradients(gradients(model, ours), theirs_gradients, rtol=1e-3, atol=1e-5)
    assert packed_batch_loss(compiled, examples[1:4]).item() == pytest.approx(
        packed_batch_loss(model, examples[1:4]).item(), rel=1e-5
    )
