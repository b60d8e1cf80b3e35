"""The written-out GPT-2 against Hugging Face's, and against activations that somebody else stored."""

import base64
import copy
import inspect
import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import (
    AttentionInterface,
    DataCollatorWithFlattening,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    StaticCache,
    TrainingArguments,
)

from gpt2_interp.data.examples import ExampleBuilder
from gpt2_interp.errors import InputError
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.model.gpt2_from_scratch import ScratchGPT2LMHeadModel
from gpt2_interp.model.load import GPT2_SHAPES, MODEL_CLASSES, add_lora, load_base, load_config
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.recording.capture import capture
from gpt2_interp.recording.plan import wanted_names
from gpt2_interp.snapshots.table import GROUPS
from gpt2_interp.synthetic.rows import news_rows
from gpt2_interp.training.trainer import SupervisedTrainer
from tests.conftest import REPOSITORY

TINY_BASE = REPOSITORY / "assets" / "tiny_gpt2"
IMPLEMENTATIONS = ("sdpa", "eager")


def small(**overrides) -> GPT2Config:
    return GPT2Config(n_layer=3, n_embd=48, n_head=3, vocab_size=101, n_positions=64, bos_token_id=0, eos_token_id=0,
                      initializer_range=0.2, **overrides)  # fmt: skip


def pair(config: GPT2Config) -> tuple[GPT2LMHeadModel, ScratchGPT2LMHeadModel]:
    """Both with the same random weights, each with a config of its own."""
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(copy.deepcopy(config))
    ours = ScratchGPT2LMHeadModel(copy.deepcopy(config))
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval(), ours.eval()


def random_ids(*shape: int, vocab: int = 101) -> torch.Tensor:
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(1))


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def relatively_close(gradient: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-4 of the gradient's norm."""
    assert torch.linalg.vector_norm(gradient - expected) <= 1e-4 * torch.linalg.vector_norm(expected)


# --- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GPT2_SHAPES)
def test_names_and_shapes_of_the_published_sizes(name):
    config = load_config(name)
    with torch.device("meta"):
        theirs, ours = GPT2LMHeadModel(config), ScratchGPT2LMHeadModel(config)
    shapes = [{key: tuple(value.shape) for key, value in m.state_dict().items()} for m in (theirs, ours)]
    assert shapes[0] == shapes[1]
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    assert ours.lm_head.weight is ours.transformer.wte.weight


def test_one_seed_gives_both_the_same_weights_and_leaves_the_same_random_state():
    models = []
    for kind in MODEL_CLASSES.values():
        torch.manual_seed(3)
        models.append((kind(small()), torch.rand(1)))
    (theirs, after_theirs), (ours, after_ours) = models
    assert after_theirs == after_ours
    for (name, a), b in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_saved_weights_go_both_ways(tmp_path):
    theirs, ours = pair(small())
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    ids = random_ids(2, 9)
    from_theirs, info = ScratchGPT2LMHeadModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(info.values())
    from_ours, info = GPT2LMHeadModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    close(from_theirs.eval()(ids).logits, theirs(ids).logits, 1e-5)
    close(from_ours.eval()(ids).logits, ours(ids).logits, 1e-5)


# --- one forward and backward pass ---------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_logits_loss_and_every_gradient(attention):
    theirs, ours = pair(small())
    ids = random_ids(3, 20)
    labels = ids.masked_fill(random_ids(3, 20) < 30, -100)
    outputs = []
    for model in (theirs, ours):
        model.set_attn_implementation(attention)
        outputs.append(model(ids, labels=labels))
        outputs[-1].loss.backward()
    close(outputs[1].logits, outputs[0].logits)
    close(outputs[1].loss, outputs[0].loss, 1e-5)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert b.grad.abs().sum() > 0, name
        relatively_close(a.grad, b.grad)
    close(ours(ids, labels=labels, num_items_in_batch=7).loss, theirs(ids, labels=labels, num_items_in_batch=7).loss)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_dropout_falls_on_the_same_numbers(attention):
    theirs, ours = pair(small(attn_pdrop=0.2, resid_pdrop=0.1, embd_pdrop=0.3))
    logits = []
    for model in (theirs, ours):
        model.set_attn_implementation(attention)
        torch.manual_seed(4)
        logits.append(model.train()(random_ids(2, 20)).logits)
    close(logits[1], logits[0])
    assert (logits[0] - theirs.eval()(random_ids(2, 20)).logits).abs().max() > 0.1  # there was dropout


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_padding_changes_nothing(attention, padding_side):
    theirs, ours = pair(small())
    ids, mask = random_ids(2, 12), torch.ones(2, 12, dtype=torch.long)
    real = slice(5, None) if padding_side == "left" else slice(0, 7)
    mask[0] = 0
    mask[0, real] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for model in (theirs, ours):
        model.set_attn_implementation(attention)
    padded = ours(ids, attention_mask=mask, position_ids=positions).logits
    assert padded.isfinite().all()
    close(padded[0, real], ours(ids[:1, real]).logits[0], 1e-5)
    expected = theirs(ids, attention_mask=mask, position_ids=positions).logits
    close(padded[mask.bool()], expected[mask.bool()])


def test_attention_patterns_and_hidden_states():
    theirs, ours = pair(small())
    for model in (theirs, ours):
        model.set_attn_implementation("eager")
    ids = random_ids(2, 15)
    a, b = (model(ids, output_attentions=True, output_hidden_states=True) for model in (ours, theirs))
    assert len(a.attentions) == 3 and a.attentions[0].shape == (2, 3, 15, 15) and len(a.hidden_states) == 4
    for ours_layer, theirs_layer in zip(a.attentions, b.attentions, strict=True):
        close(ours_layer, theirs_layer, 1e-6)
        assert ours_layer.triu(1).eq(0).all()
        close(ours_layer.sum(-1), torch.ones(2, 3, 15), 1e-5)
    for ours_layer, theirs_layer in zip(a.hidden_states, b.hidden_states, strict=True):
        close(ours_layer, theirs_layer, 1e-5)
    assert ours(ids).attentions is None and ours(ids).hidden_states is None
    ours.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="eager"):  # Hugging Face returns an empty tuple
        ours(ids, output_attentions=True)


def test_chosen_logits_embeddings_and_tuples():
    theirs, ours = pair(small())
    ids = random_ids(2, 10)
    whole = ours(ids).logits
    close(ours(ids, logits_to_keep=2).logits, whole[:, -2:], 1e-6)
    close(ours(ids, logits_to_keep=torch.tensor([0, 4])).logits, whole[:, [0, 4]], 1e-6)
    close(ours(inputs_embeds=ours.get_input_embeddings()(ids)).logits, whole, 1e-6)
    close(ours(ids, return_dict=False)[0], whole, 1e-6)


def test_checkpointed_activations_give_the_same_gradients():
    _, ours = pair(small(resid_pdrop=0.1))
    gradients = []
    for on in (False, True):
        ours.zero_grad()
        if on:
            ours.gradient_checkpointing_enable()
        torch.manual_seed(0)
        ours.train()(random_ids(2, 20), labels=random_ids(2, 20)).loss.backward()
        gradients.append([p.grad.clone() for p in ours.parameters()])
    assert ours.is_gradient_checkpointing
    for a, b in zip(*gradients, strict=True):
        close(a, b, 1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"add_cross_attention": True},
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False},
        {"reorder_and_upcast_attn": True},
        {"activation_function": "silu"},
    ],
)
def test_what_is_not_written_out_is_refused(wrong, tmp_path, toy_base):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScratchGPT2LMHeadModel(small(**wrong))
    small(**wrong).save_pretrained(tmp_path)
    arguments = ModelArguments(config_name=str(tmp_path), tokenizer_name=str(toy_base), implementation="scratch")
    with pytest.raises(InputError, match="--implementation scratch"):
        load_base(arguments, 0, [])


# --- each argument of Hugging Face's forward ---------------------------------------------------------------------


def filled_cache(model) -> DynamicCache:
    """Of 4 earlier tokens."""
    return model(random_ids(2, 4), use_cache=True).past_key_values


def visible_in_4_axes(seen: torch.Tensor) -> torch.Tensor:
    """[batch, 1, 12, 12]: no later key, nor one where `seen` is 0."""
    return seen.bool()[:, None, None, :] & torch.ones(12, 12, dtype=torch.bool).tril()


IDS = random_ids(2, 12)
SEEN = torch.ones(2, 12, dtype=torch.long).index_put((torch.tensor([1, 1]), torch.tensor([10, 11])), torch.tensor(0))
PACKED = {"position_ids": torch.tensor([[*range(5), *range(7)], [*range(12)]]), "use_cache": False}
LABELS = {"labels": IDS.masked_fill(IDS < 30, -100)}
GIVEN = {  # argument: calls of it, each the arguments for one model
    "input_ids": [lambda model: {}],
    "past_key_values": [
        lambda model: {"past_key_values": filled_cache(model)},
        lambda model: {"past_key_values": StaticCache(config=model.config, max_cache_len=20), "use_cache": True},
    ],
    "attention_mask": [
        lambda model: {"attention_mask": SEEN},
        lambda model: {"attention_mask": torch.zeros(2, 1, 12, 12).masked_fill(~visible_in_4_axes(SEEN), -1e9)},
        lambda model: {"attention_mask": SEEN, "past_key_values": StaticCache(config=model.config, max_cache_len=20)},
    ],
    "token_type_ids": [lambda model: {"token_type_ids": IDS % 3}],
    "position_ids": [
        lambda model: {"position_ids": torch.arange(7, 19)[None]},
        lambda model: {**PACKED},
        lambda model: {"position_ids": PACKED["position_ids"], "attention_mask": torch.ones_like(IDS)},  # one text
    ],
    "inputs_embeds": [lambda model: {"input_ids": None, "inputs_embeds": model.get_input_embeddings()(IDS)}],
    "labels": [
        lambda model: LABELS,
        lambda model: {**LABELS, "num_items_in_batch": 7},
        lambda model: {**LABELS, "shift_labels": IDS.flip(1)},
        lambda model: {"shift_labels": IDS},  # no loss without labels
    ],
    "use_cache": [lambda model: {"use_cache": True}, lambda model: {"use_cache": False}],
    "logits_to_keep": [lambda model: {"logits_to_keep": 3}, lambda model: {"logits_to_keep": torch.tensor([0, 5])}],
    "kwargs": [
        lambda model: {"output_hidden_states": True},
        lambda model: {"return_dict": False},
        lambda model: {"encoder_hidden_states": None},
    ],
}
NOT_GIVEN = {"encoder_hidden_states": torch.zeros(2, 3, 48), "encoder_attention_mask": torch.ones(2, 3)}
FORWARD = [name for name in inspect.signature(GPT2LMHeadModel.forward).parameters if name != "self"]


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("argument", FORWARD)
def test_each_argument_does_what_it_does_there_or_is_refused(argument, attention):
    models = pair(small())
    for model in models:
        model.set_attn_implementation(attention)
    if argument in NOT_GIVEN:
        with pytest.raises(TypeError, match=argument):
            models[1](IDS, **{argument: NOT_GIVEN[argument]})
        return
    for call in GIVEN[argument]:  # an argument that is new in transformers: decide here what it does
        with torch.no_grad():
            theirs, ours = (model(**{"input_ids": IDS, **call(model)}) for model in models)
        if isinstance(theirs, tuple):
            close(ours[0], theirs[0])
            continue
        real = SEEN.bool() if "attention_mask" in call(models[0]) else slice(None)  # nobody looks at padding
        close(ours.logits[real], theirs.logits[real])
        assert (ours.loss is None) == (theirs.loss is None)
        assert (ours.past_key_values is None) == (theirs.past_key_values is None)
        if theirs.loss is not None:
            close(ours.loss, theirs.loss, 1e-5)
        if theirs.hidden_states:
            close(torch.stack(ours.hidden_states), torch.stack(theirs.hidden_states))


def test_arguments_stand_in_the_same_order():
    ours = inspect.signature(ScratchGPT2LMHeadModel.forward).parameters
    positional = [name for name, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD and name != "self"]
    assert positional == FORWARD[: len(positional)]


def test_a_bool_mask_of_4_axes_is_the_mask_of_2():
    _, ours = pair(small())
    for attention in IMPLEMENTATIONS:
        ours.set_attn_implementation(attention)
        masked = ours(IDS, attention_mask=visible_in_4_axes(SEEN)).logits[SEEN.bool()]
        close(masked, ours(IDS, attention_mask=SEEN).logits[SEEN.bool()], 1e-5)


@pytest.mark.parametrize(
    "error, named, wrong",
    [
        (TypeError, "attention_maks", {"attention_maks": torch.ones(2, 12)}),
        (ValueError, "inputs_embeds", {"inputs_embeds": torch.zeros(2, 12, 48)}),
        (ValueError, "inputs_embeds", {"input_ids": None}),
        (ValueError, "input_ids", {"input_ids": IDS[0]}),
        (ValueError, r"attention_mask.*\[2, 11\].*12", {"attention_mask": torch.ones(2, 11)}),
        (ValueError, "attention_mask", {"attention_mask": torch.ones(2, 1, 12)}),
        (ValueError, "position_ids.*use_cache", {**PACKED, "use_cache": True}),
    ],
)
def test_wrong_arguments_are_named(error, named, wrong):
    _, ours = pair(small())
    with pytest.raises(error, match=named):
        ours(**{"input_ids": IDS, **wrong})


def test_another_attention_function_takes_its_own_arguments():
    seen = []

    def attend(module, query, key, value, visible, scaling, dropout=0.0, note=None):
        seen.append((visible, note))
        return query.transpose(1, 2), None

    AttentionInterface.register("test_noting", attend)
    _, ours = pair(small())
    ours.set_attn_implementation("test_noting")
    ours(IDS, attention_mask=SEEN, note="a", use_cache=False)
    assert seen == [(None, "a")] * 3  # as Hugging Face: no mask for a function whose kind of mask is not registered
    mask = visible_in_4_axes(SEEN)
    ours(IDS, attention_mask=mask, use_cache=False)
    assert seen[-1][0] is mask


def test_rows_packed_by_the_collator_have_the_loss_of_one_by_one():
    theirs, ours = pair(small(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    texts = [random_ids(1, n)[0].tolist() for n in (5, 9, 3, 14)]
    batch = DataCollatorWithFlattening()([{"input_ids": ids} for ids in texts])
    assert batch["input_ids"].shape == (1, 31)
    with torch.no_grad():
        one_by_one = [
            ours(torch.tensor([ids]), labels=torch.tensor([ids]), num_items_in_batch=27).loss for ids in texts
        ]
        for attention in IMPLEMENTATIONS:
            for model in (theirs, ours):
                model.set_attn_implementation(attention)
                close(model(**batch, use_cache=False).loss, sum(one_by_one), 1e-5)
        ours.set_attn_implementation("sdpa")
        close(ours.train()(**batch).loss, sum(one_by_one), 1e-5)  # in training there is no cache


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_a_static_cache_as_the_growing_one(attention):
    theirs, ours = pair(small())
    ids, mask = random_ids(3, 9), torch.ones(3, 9, dtype=torch.long)
    mask[1, :4] = 0  # left-padded
    settings = {"attention_mask": mask, "max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    for model in (theirs, ours):
        model.set_attn_implementation(attention)
    expected = theirs.generate(ids, **settings)
    assert torch.equal(ours.generate(ids, **settings, cache_implementation="static"), expected)

    whole, cache, steps = ours(ids).logits, StaticCache(config=ours.config, max_cache_len=30), []
    for part in ids.split([4, 1, 3, 1], dim=1):
        steps.append(ours(part, past_key_values=cache).logits)
    close(torch.cat(steps, dim=1), whole, 1e-5)


def test_its_checkpoints_name_the_architecture_that_every_program_knows(tmp_path):
    ours = ScratchGPT2LMHeadModel(small())
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["GPT2LMHeadModel"]
    assert copy.deepcopy(ours).state_dict().keys() == ours.state_dict().keys()


# --- one token after another ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_with_a_cache_as_without(attention):
    _, ours = pair(small())
    ours.set_attn_implementation(attention)
    ids = random_ids(2, 20)
    whole = ours(ids).logits
    cache, steps = DynamicCache(config=ours.config), []
    for part in ids.split([6, 1, 1, 5, 1, 1, 1, 1, 1, 1, 1], dim=1):  # a prompt, single tokens, and several at once
        steps.append(ours(part, past_key_values=cache, use_cache=True).logits)
    close(torch.cat(steps, dim=1), whole, 1e-5)
    assert ours(ids, use_cache=False).past_key_values is None


def test_generate_with_a_cache_as_without():
    theirs, ours = pair(small())
    ids, mask = random_ids(3, 9), torch.ones(3, 9, dtype=torch.long)
    mask[1, :4] = 0  # left-padded
    for settings in ({}, {"num_beams": 3}):
        settings |= {"attention_mask": mask, "max_new_tokens": 25, "do_sample": False, "pad_token_id": 0}
        tokens = [m.generate(ids, **settings, use_cache=cached) for m in (theirs, ours) for cached in (True, False)]
        assert all(torch.equal(tokens[0], other) for other in tokens[1:])


@pytest.mark.slow
@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_embedded_base_writes_the_same_on_100_real_prompts(real_data, num_beams):
    tokenizer = load_tokenizer(str(TINY_BASE))
    tokenizer.padding_side = "left"
    models = [kind.from_pretrained(TINY_BASE, dtype=torch.float32).eval() for kind in MODEL_CLASSES.values()]
    with open(real_data / "cnn_dailymail" / "validation.jsonl", encoding="utf-8") as file:
        texts = [json.loads(line)["article"][: 40 + 3 * k] for k, line in zip(range(100), file, strict=False)]
    assert len(texts) == 100
    for first in range(0, 100, 25):
        batch = tokenizer(texts[first : first + 25], return_tensors="pt", padding=True)
        settings = {"max_new_tokens": 10, "num_beams": num_beams, "do_sample": False}
        theirs, ours = (m.generate(**batch, **settings, pad_token_id=tokenizer.pad_token_id) for m in models)
        assert torch.equal(theirs, ours)


# --- real shapes and real weights ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large"])
def test_logits_and_gradients_in_the_published_sizes(name):
    """One set of random weights, shared by both models; gpt2-xl is compared by its shapes alone, above."""
    config = load_config(name)
    with torch.device("meta"):
        models = [kind(copy.deepcopy(config)).eval() for kind in MODEL_CLASSES.values()]
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, shape in ((key, value.shape) for key, value in models[0].state_dict().items() if key != "lm_head.weight"):
        weights[key] = torch.empty(shape).normal_(
            1 if "ln_" in key and "weight" in key else 0, 0.02, generator=generator
        )
    ids = random_ids(1, 12, vocab=config.vocab_size)
    results = []
    for model in models:
        model.load_state_dict(weights, strict=False, assign=True)
        model.tie_weights()
        output = model(ids, labels=ids)
        ends = (model.transformer.wpe, model.transformer.h[0], model.transformer.h[-1], model.transformer.ln_f)
        parameters = [p for module in ends for p in module.parameters()]
        results.append((output.logits.detach(), torch.autograd.grad(output.loss, parameters)))
    (their_logits, their_gradients), (our_logits, our_gradients) = results
    assert their_logits.std() > 0.1
    close(our_logits, their_logits)
    for ours, theirs in zip(our_gradients, their_gradients, strict=True):
        relatively_close(ours, theirs)


def test_the_embedded_base():
    theirs, ours = (kind.from_pretrained(TINY_BASE, dtype=torch.float32).eval() for kind in MODEL_CLASSES.values())
    ids = random_ids(2, 200, vocab=theirs.config.vocab_size)
    logits = []
    for model in (theirs, ours):
        output = model(ids, labels=ids)
        output.loss.backward()
        logits.append(output.logits)
    close(logits[1], logits[0])
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        relatively_close(a.grad, b.grad)


def test_a_real_trained_model_as_its_author_measured_it(real_data):
    """sorting_gpt: every stored activation of the residual stream and of the first block, and it sorts."""
    folder = real_data / "sorting_gpt"
    stored = {
        name: torch.from_numpy(np.frombuffer(base64.b64decode(entry["data"]), dtype=np.float32).copy()).reshape(
            entry["shape"]
        )
        for name, entry in json.loads((folder / "stored_activations.json").read_text()).items()
        if name != "config"
    }
    model = ScratchGPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    first, seen = model.transformer.h[0], {}
    for name, module in {
        "ln1": first.ln_1, "qkv": first.attn.c_attn, "yProj": first.attn.c_proj, "ln2": first.ln_2,
        "fc": first.mlp.c_fc, "gelu": first.mlp.act, "mlp": first.mlp.c_proj,
    }.items():  # fmt: skip
        module.register_forward_hook(lambda module, args, output, name=name: seen.update({name: output}))
    ids = stored["idx"].long()  # [3, 11]
    with torch.no_grad():
        output = model(ids, output_hidden_states=True, output_attentions=True)
    seen |= {"x": output.hidden_states[0], "block0": output.hidden_states[1], "block1": output.hidden_states[2]}
    seen |= {"ln_f": output.hidden_states[3], "lm_head": output.logits, "attSm": output.attentions[0]}
    seen |= {"probs": output.logits.softmax(-1)}
    for name, values in seen.items():
        close(values.reshape(stored[name].shape), stored[name], 1e-5)
    assert len(seen) == 14

    digits = torch.cartesian_prod(*[torch.arange(3)] * 6)  # all 729
    everything = torch.ones_like(digits)  # a 0 is no padding
    written = model.generate(digits, attention_mask=everything, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert torch.equal(written[:, 6:], digits.sort(dim=1).values)


# --- everywhere that the other one goes ----------------------------------------------------------------------------


def test_lora_trains_it_alike_and_saves_for_both(toy_base, tmp_path):
    arguments = ModelArguments(lora_target_modules=["attn.c_attn", "c_proj"], lora_dropout=0)
    ids = random_ids(2, 20)
    results = []
    for implementation, kind in MODEL_CLASSES.items():
        model = add_lora(kind.from_pretrained(toy_base, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0), arguments, seed=0)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        for _ in range(2):
            optimizer.zero_grad()
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
        results.append((loss.detach(), model.eval()(input_ids=ids).logits.detach()))
        model.save_pretrained(tmp_path / implementation)
    close(results[1][0], results[0][0], 1e-5)
    close(results[1][1], results[0][1])
    for implementation, kind in MODEL_CLASSES.items():  # each reads the other's adapter
        other = next(name for name in MODEL_CLASSES if name != implementation)
        loaded = PeftModel.from_pretrained(kind.from_pretrained(toy_base), tmp_path / other).eval()
        close(loaded(input_ids=ids).logits, results[0][1])


def examples_of(toy_base, count: int = 8):
    tokenizer = load_tokenizer(str(toy_base))
    rows = [{"id": r["id"], "source": r["article"], "target": r["highlights"]} for r in news_rows(count)]
    return ExampleBuilder(tokenizer, "summarization", 60, 40, 384).build(rows)[0], tokenizer


def test_the_trainer_trains_it_alike(toy_base, tmp_path):
    """Packed rows, accumulation, fast layers with dropout: loss and gradient norm of every step."""
    examples, tokenizer = examples_of(toy_base)
    logs = []
    for implementation in MODEL_CLASSES:
        arguments = ModelArguments(model_name_or_path=str(toy_base), implementation=implementation)
        model, _ = load_base(arguments, 0, [])
        training = TrainingArguments(
            tmp_path / implementation, max_steps=4, learning_rate=1e-2, save_strategy="no", logging_steps=1,
            per_device_train_batch_size=2, gradient_accumulation_steps=2, use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = SupervisedTrainer(
            model=model, args=training, train_examples=examples, eval_examples=examples, processing_class=tokenizer
        )
        trainer.train()
        logs.append([(line["loss"], line["grad_norm"]) for line in trainer.state.log_history if "loss" in line])
    assert len(logs[0]) == 4
    assert logs[1] == pytest.approx(np.array(logs[0]), rel=1e-4)


def test_snapshots_measure_the_same(toy_base):
    examples, _ = examples_of(toy_base)
    probes = ProbeSet(tuple(examples), tuple(examples[:1]))
    names = wanted_names(GROUPS, {"light", "heavy", "ends"})
    arrays = []
    for kind in MODEL_CLASSES.values():
        model = kind.from_pretrained(toy_base)
        arrays.append(capture(model, probes, names, base=BaseWeights(model)))
        assert model.training == kind.from_pretrained(toy_base).training and model.config._attn_implementation == "sdpa"
    assert arrays[0].keys() == arrays[1].keys() and len(arrays[0]) > 20
    for name, theirs in arrays[0].items():
        np.testing.assert_allclose(arrays[1][name], theirs, rtol=2e-3, atol=2e-5, err_msg=name)
