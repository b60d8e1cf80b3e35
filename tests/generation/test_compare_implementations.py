import dataclasses
import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2LMHeadModel, pipeline

from gpt2_interp.errors import InputError
from gpt2_interp.generation import compare_implementations, decoding_from_scratch
from gpt2_interp.generation.compare_implementations import compare, first_difference
from gpt2_interp.model.gpt2_from_scratch import ScratchGPT2LMHeadModel
from gpt2_interp.model.tokenizers import load_tokenizer
from tests.conftest import decoding
from tests.generation.test_decoding_from_scratch import TINY

PROMPT = "Once upon a time there was a dog."


def other(found, name: str):
    return {setting.name: setting for setting in found.pipeline.other_settings}[name]


@pytest.mark.parametrize("method", ["greedy", "beam", "top_k"])  # the others are in the tests below
def test_all_agree(toy_base, method):
    extra = {"beam": {"num_beams": 3, "num_sequences": 2}, "top_k": {"top_p": 0.8, "num_sequences": 3}}.get(method, {})
    found = compare(str(toy_base), PROMPT, decoding(method, max_new_tokens=9, repetition_penalty=1.2, **extra))
    assert found.agrees
    assert len(found.continuations) == extra.get("num_sequences", 1)
    assert all(len(c.own) == 9 for c in found.continuations)
    assert len({tuple(c.own) for c in found.continuations}) == len(found.continuations)
    assert found.equal_weights
    assert found.largest_logit_difference < 1e-4 < found.largest_logit
    if method != "beam":  # where another beam may be the best of 256 tokens
        assert other(found, "max_new_tokens").parts_at == 9
    assert other(found, "repetition_penalty").here == 1.2
    text = str(found)
    assert text.count("transformers.generate, GPT2LMHeadModel: the same 9 tokens") == len(found.continuations)
    assert "the pipeline, given our settings: the same 9 tokens" in text
    assert json.loads(json.dumps(dataclasses.asdict(found)))["prompt_ids"] == found.prompt_ids


@pytest.mark.slow
def test_the_pipeline_is_the_one_that_anyone_makes_and_its_settings_explain_it(tmp_path):
    """A model that is stored in float16, which a pipeline keeps. Its generation config ends texts with the context."""
    GPT2LMHeadModel.from_pretrained(TINY, dtype=torch.float16).save_pretrained(tmp_path)
    load_tokenizer(str(TINY)).save_pretrained(tmp_path)
    found = compare(str(tmp_path), PROMPT, decoding(max_new_tokens=30))
    pipe = pipeline("text-generation", model=str(tmp_path), device="cpu")
    torch.manual_seed(0)
    assert found.pipeline.default_text == pipe(PROMPT)[0]["generated_text"]
    told = {"max_new_tokens": (30, None), "do_sample": (False, True), "temperature": (1.0, 0.7)}
    told["dtype"] = ("float32", "float16")
    assert {s.name: (s.here, s.pipeline) for s in found.pipeline.other_settings} == told
    assert other(found, "dtype").source == "the checkpoint"
    assert other(found, "do_sample").source == "the pipeline"
    assert other(found, "do_sample").parts_at < 30, "sampling alone changes the text"
    assert other(found, "temperature").parts_at is None, "without sampling it has no effect"
    assert found.pipeline.default_parts_at < 30
    assert found.pipeline.explicit_parts_at is None


def test_the_checkpoints_own_generation_settings_are_seen(toy_base, tmp_path):
    shutil.copytree(toy_base, tmp_path / "model")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "model")
    model.generation_config.update(do_sample=True, temperature=0.4, max_new_tokens=12, min_new_tokens=3)
    model.config.task_specific_params = {"text-generation": {"do_sample": True, "max_length": 50}}
    model.save_pretrained(tmp_path / "model")
    found = compare(str(tmp_path / "model"), PROMPT, decoding("top_p", max_new_tokens=6))
    assert (other(found, "temperature").pipeline, other(found, "temperature").source) == (0.4, "generation_config.json")
    assert (other(found, "max_new_tokens").pipeline, other(found, "top_p").source) == (12, "transformers")
    assert "max_length" not in [setting.name for setting in found.pipeline.other_settings]  # nobody reads these 50
    assert found.unknown_settings == {"min_new_tokens": 3}
    assert "min_new_tokens=3" in str(found)
    assert len(found.pipeline.default_ids) == 12
    assert found.agrees


def test_an_end_of_text_that_the_checkpoint_sets_is_seen(toy_base, tmp_path):
    shutil.copytree(toy_base, tmp_path / "model")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "model")
    model.generation_config.max_length = 40
    model.save_pretrained(tmp_path / "model")
    found = compare(str(tmp_path / "model"), PROMPT, decoding(max_new_tokens=6))
    length = other(found, "max_new_tokens")
    assert length.pipeline is None and "40" in length.source and "generation_config.json" in length.source
    assert len(found.prompt_ids) + len(found.pipeline.default_ids) <= 40
    assert found.agrees


def test_a_wrong_algorithm_and_a_wrong_model_are_found(toy_base, monkeypatch):
    right = decoding_from_scratch.decode
    with monkeypatch.context() as patch:
        patch.setattr(
            decoding_from_scratch, "decode", lambda *a: [[*ids[:4], (ids[4] + 1) % 600, *ids[5:]] for ids in right(*a)]
        )
        found = compare(str(toy_base), PROMPT, decoding(max_new_tokens=9))
    assert not found.agrees
    assert found.continuations[0].parts_at == 4
    own, theirs = found.continuations[0].probabilities["scratch"]
    assert own < theirs
    assert "another token at 5" in str(found)

    load = compare_implementations.load_trained

    def disturbed(path, implementation, base_model=None):
        model, tokenizer = load(path, implementation, base_model)
        if isinstance(model, ScratchGPT2LMHeadModel):
            model.transformer.wpe.weight.data[2, ::2] += 1
        return model, tokenizer

    monkeypatch.setattr(compare_implementations, "load_trained", disturbed)
    found = compare(str(toy_base), PROMPT, decoding(max_new_tokens=9))
    assert not found.equal_weights
    assert found.largest_logit_difference > 1e-2
    assert "DIFFERENT" in str(found)


def test_a_long_prompt_is_cut_here_and_fails_there(toy_base):
    assert compare(str(toy_base), PROMPT, decoding(max_new_tokens=5)).note is None
    found = compare(str(toy_base), PROMPT * 60, decoding(max_new_tokens=5))
    assert found.agrees and "beginning was cut" in found.note
    assert not found.pipeline.same_prompt_ids
    assert found.pipeline.default_error.startswith("IndexError")
    assert found.pipeline.default_text is None
    assert "does not keep to the context" in str(found)


def test_templates_and_empty_prompts(toy_base):
    found = compare(str(toy_base), PROMPT, decoding(max_new_tokens=4), task="summarization")
    assert found.text.startswith(PROMPT)
    assert found.text != PROMPT
    assert found.agrees
    found = compare(str(toy_base), "", decoding(max_new_tokens=4))
    tokenizer = load_tokenizer(str(toy_base))
    assert found.prompt_ids == [tokenizer.eos_token_id]
    assert found.pipeline.same_prompt_ids  # a pipeline begins it with bos, which GPT-2 shares with eos
    assert found.agrees


def test_an_adapter_is_a_model_like_any_other(toy_base, tmp_path):
    torch.manual_seed(0)  # the adapter is drawn: some draws leave eight tokens as they were
    base = GPT2LMHeadModel.from_pretrained(toy_base)
    adapted = get_peft_model(base, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False))
    for name, weight in adapted.named_parameters():
        weight.data *= 30 if "lora" in name else 1
    adapted.save_pretrained(tmp_path)
    settings = decoding("sampling", max_new_tokens=8)
    found = compare(str(tmp_path), PROMPT, settings, base_model=str(toy_base))
    assert found.agrees
    assert found.continuations[0].own != compare(str(toy_base), PROMPT, settings).continuations[0].own


def test_what_can_not_be_compared(toy_base, tmp_path):
    with pytest.raises(InputError, match="--max_seconds"):
        compare(str(toy_base), PROMPT, decoding(max_seconds=1.0))
    with pytest.raises(InputError):
        compare(str(tmp_path), PROMPT, decoding())


def test_what_a_pipeline_does_with_text(toy_base):
    """The facts in the module's docstring that `compare` does not show."""
    tokenizer = load_tokenizer(str(toy_base))
    tokenizer.padding_side = "right"
    pipe = pipeline(
        "text-generation", model=GPT2LMHeadModel.from_pretrained(toy_base), tokenizer=tokenizer, device="cpu"
    )
    assert tokenizer.padding_side == "left"
    end = tokenizer.eos_token
    assert pipe(f"a {end} b", max_new_tokens=1, do_sample=False)[0]["generated_text"].startswith(f"a {end} b")
    ids = tokenizer(f"a .{end} b")["input_ids"]
    written = {"generated_sequence": torch.tensor([[ids]]), "input_ids": torch.tensor([[]]), "prompt_text": "p"}
    for clean_up in (None, True):
        record = pipe.postprocess(written, clean_up_tokenization_spaces=clean_up)[0]
        assert record["generated_text"] == "pa . b"


def test_first_difference():
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 4, 3]) == 1
    assert first_difference([1, 2, 3], [1, 2]) == first_difference([1, 2], [1, 2, 3]) == 2
