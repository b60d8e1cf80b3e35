import json
import shutil

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from gpt2_interp.cli.parser import parse_arguments
from gpt2_interp.errors import InputError
from gpt2_interp.model.anatomy import model_sizes
from gpt2_interp.model.fast_layers import FastDropout
from gpt2_interp.model.load import GPT2_SHAPES, MODEL_CLASSES, add_lora, load_base, load_config, load_trained
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.model.tokenizers import load_tokenizer, train_tokenizer
from gpt2_interp.synthetic.running_text import pretraining_texts

# What OpenAI published (without the tied head), and what Hugging Face's checkpoints hold.
PARAMETERS = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}


@pytest.mark.parametrize("name", GPT2_SHAPES)
def test_the_four_published_sizes_are_known_offline(name):
    with torch.device("meta"):
        model = GPT2LMHeadModel(load_config(name))
    assert model_sizes(model)["parameters"] == PARAMETERS[name]


def test_config_overrides_and_their_mistakes():
    config = load_config("gpt2", "n_embd=160,n_layer=3,n_head=5,activation_function=gelu_pytorch_tanh")
    assert (config.n_embd, config.n_layer, config.activation_function) == (160, 3, "gelu_pytorch_tanh")
    for wrong in ("n_embed=3", "n_layer=many", "n_layer"):
        with pytest.raises(InputError, match="--config_overrides"):
            load_config("gpt2", wrong)
    with pytest.raises(InputError, match="not a multiple"):
        load_config("gpt2", "n_embd=100,n_head=12")


def test_lora_trains_the_published_numbers_of_parameters():
    """r = 8 on c_attn and *both* c_proj: 811,008; on attention alone 442,368."""
    for modules, trained in ((["c_attn", "c_proj"], 811_008), (["attn.c_attn", "attn.c_proj"], 442_368)):
        with torch.device("meta"):  # shapes only
            model = GPT2LMHeadModel(load_config("gpt2"))
            model = add_lora(model, ModelArguments(lora_target_modules=modules), seed=0)
        sizes = model_sizes(model)
        assert sizes["trainable_parameters"] == trained
        assert sizes["parameters"] == PARAMETERS["gpt2"] + trained
    preset = parse_arguments(["creative_writing"])[0]
    with torch.device("meta"):
        sizes = model_sizes(add_lora(GPT2LMHeadModel(load_config("gpt2")), preset, seed=0))
    assert f"{100 * sizes['trainable_parameters'] / sizes['parameters']:.3f}%" == "0.354%"
    with pytest.raises(InputError, match="--lora_target_modules"):
        add_lora(
            GPT2LMHeadModel(load_config("gpt2", "n_layer=1,n_embd=48")),
            ModelArguments(lora_target_modules=["q_proj"]),
            0,
        )


def test_random_weights_depend_on_the_seed_alone(toy_base):
    arguments = ModelArguments(config_name=str(toy_base))
    one, _ = load_base(arguments, 1, [])
    torch.rand(3)
    again, _ = load_base(arguments, 1, [])
    other, _ = load_base(arguments, 2, [])
    weight = "transformer.h.0.attn.c_attn.weight"
    assert torch.equal(one.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])


def test_a_base_is_float32_with_our_dropout(toy_base, tmp_path):
    GPT2LMHeadModel.from_pretrained(toy_base, dtype=torch.float16).save_pretrained(tmp_path)
    load_tokenizer(str(toy_base)).save_pretrained(tmp_path)
    model, tokenizer = load_base(ModelArguments(model_name_or_path=str(tmp_path), resid_pdrop=0.25), 0, [])
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (model.config.attn_pdrop, model.config.resid_pdrop) == (0.0, 0.25)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_a_new_tokenizer_merges_no_digits_and_keeps_every_byte():
    tokenizer = train_tokenizer([*pretraining_texts(100), "in 2026 1999 2026 2026"], 500)
    assert len(tokenizer) == 500
    assert not [token for token in tokenizer.get_vocab() if sum(c.isdigit() for c in token) > 1]
    text = 'Zürich paid 2026 € — "naïve" 日本 \n\t!'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_what_is_missing_is_said_at_once(tmp_path):
    for arguments in (ModelArguments(model_name_or_path="nobody/none"), ModelArguments(config_name="nobody/none")):
        with pytest.raises(InputError, match="can't be reached.*local folder"):
            load_base(arguments, 0, [])
    with pytest.raises(InputError, match=str(tmp_path)):
        load_base(ModelArguments(model_name_or_path=str(tmp_path)), 0, [])


def test_an_adapter_is_no_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="LoRA adapter"):
        load_base(ModelArguments(model_name_or_path=str(tmp_path), tokenizer_name=str(tmp_path)), 0, [])


def test_the_real_tokenizer_from_vocab_and_merges_alone(real_data):
    tokenizer = load_tokenizer(str(real_data / "gpt2_tokenizer"))
    assert (len(tokenizer), tokenizer.eos_token_id) == (50257, 50256)
    vectors = json.loads((real_data / "gpt2_tokenizer/test_vectors.json").read_text(encoding="utf-8"))
    pairs = [(v["text"], v["ids"]) for v in (vectors["vectors"] if isinstance(vectors, dict) else vectors)]
    assert len(pairs) == 44
    for text, ids in pairs:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text


@pytest.mark.parametrize("p", [0.1, 0.5, 0.937])
def test_fast_dropout_drops_p_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(300, 701, requires_grad=True)  # not a multiple of four
    y = FastDropout(p).train()(x)
    dropped = (y == 0).float().mean().item()
    assert dropped == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5)
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-3)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # the same mask and scale
    neighbours = (y[:, 1:] == 0) & (y[:, :-1] == 0)
    assert neighbours.float().mean().item() == pytest.approx(dropped**2, abs=0.01)  # independent
    torch.manual_seed(0)
    assert torch.equal(FastDropout(p).train()(x), y)
    assert FastDropout(p).eval()(x) is x


# --- a model for use ------------------------------------------------------------------------------------------

IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def adapter(toy_base, tmp_path_factory):
    """(folder of an adapter that changes the toy base, the logits of the two together)"""
    folder = tmp_path_factory.mktemp("adapter")
    model = add_lora(GPT2LMHeadModel.from_pretrained(toy_base), ModelArguments(), seed=0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
        logits = model(IDS).logits
    model.save_pretrained(folder)
    load_tokenizer(str(toy_base)).save_pretrained(folder)
    return folder, logits


def says_base(adapter, folder, name):
    """A copy of the adapter that names another base (None: none)."""
    shutil.copytree(adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))
    return folder


def logits_of(model):
    with torch.no_grad():
        return model(IDS.to(model.device)).logits.cpu()


@pytest.mark.parametrize("implementation", ["huggingface", "scratch"])
def test_a_whole_model_for_use(toy_base, tmp_path, implementation):
    GPT2LMHeadModel.from_pretrained(toy_base, dtype=torch.float16).save_pretrained(tmp_path)
    load_tokenizer(str(toy_base)).save_pretrained(tmp_path)
    model, tokenizer = load_trained(str(tmp_path), implementation)
    assert type(model) is MODEL_CLASSES[implementation]
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    half = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert torch.allclose(logits_of(model), logits_of(half), atol=1e-5)


@pytest.mark.parametrize("implementation", ["huggingface", "scratch"])
def test_an_adapter_for_use(toy_base, adapter, tmp_path, monkeypatch, implementation):
    """Merged into the base that it names; a relative name is looked for here, then in the repository."""
    folder, expected = adapter
    monkeypatch.chdir(toy_base.parent)
    monkeypatch.setattr("gpt2_interp.run_paths.REPOSITORY", toy_base.parent)
    here = says_base(folder, tmp_path / "here", toy_base.name)
    bare = says_base(folder, tmp_path / "bare", None)
    for path, base in ((folder, None), (here, None), (bare, str(toy_base))):
        model, tokenizer = load_trained(str(path), implementation, base)
        assert not model.training and not [name for name, _ in model.named_parameters() if "lora" in name]
        assert torch.allclose(logits_of(model), expected, atol=1e-4)
        assert len(tokenizer) == model.config.vocab_size
    assert not torch.allclose(logits_of(load_trained(str(toy_base))[0]), expected, atol=1e-2)
    monkeypatch.chdir(tmp_path)
    assert torch.allclose(logits_of(load_trained(str(here))[0]), expected, atol=1e-4)
    (here / "tokenizer.json").unlink()  # then the base's
    assert len(load_trained(str(here))[1]) == len(tokenizer)


def changed(model):
    """The model with every trained parameter moved away from its start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("implementation", ["huggingface", "scratch"])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["attn.c_attn", "wte"]},
        {"target_modules": ["attn.c_attn", "lm_head"]},
        {"target_modules": ["attn.c_attn"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["attn.c_attn"], "use_dora": True},
    ],
    ids=["wte", "lm_head", "head saved", "DoRA"],
)
def test_an_adapter_of_tied_embeddings_answers_as_it_was_trained(toy_base, tmp_path, settings, implementation):
    """Tied, the change of one of the two uses would reach the other too."""
    config = LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **settings)
    trained = changed(get_peft_model(GPT2LMHeadModel.from_pretrained(toy_base), config))
    trained.save_pretrained(tmp_path)
    model, _ = load_trained(str(tmp_path), implementation)
    assert torch.allclose(logits_of(model), logits_of(trained), atol=1e-4)
    assert not [name for name, _ in model.named_parameters() if "lora" in name]


def test_an_adapter_that_brings_tokens(toy_base, tmp_path):
    """The embeddings grow as AutoPeftModelForCausalLM lets them; without weights for the new tokens they may not."""
    tokenizer = load_tokenizer(str(toy_base))
    tokenizer.add_tokens(["<one>", "<two>"])
    base = GPT2LMHeadModel.from_pretrained(toy_base)
    base.resize_token_embeddings(len(tokenizer))
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["attn.c_attn"], fan_in_fan_out=True)
    trained = changed(get_peft_model(base, config))
    for folder, embeddings in ((tmp_path / "whole", True), (tmp_path / "lacking", False)):
        trained.save_pretrained(folder, save_embedding_layers=embeddings)
        tokenizer.save_pretrained(folder)
    model, loaded = load_trained(str(tmp_path / "whole"))
    assert len(loaded) == model.config.vocab_size == 602
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    assert torch.allclose(logits_of(model), logits_of(theirs), atol=1e-4)
    assert torch.allclose(logits_of(model), logits_of(trained), atol=1e-4)
    with pytest.raises(InputError, match="2 tokens more.*embeddings"):
        load_trained(str(tmp_path / "lacking"))


def test_adapters_that_are_no_change_of_weights_are_refused_by_name(toy_base, tmp_path):
    for config, name in (
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "PROMPT_TUNING"),
        (PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "PREFIX_TUNING"),
    ):
        get_peft_model(GPT2LMHeadModel.from_pretrained(toy_base), config).save_pretrained(tmp_path / name)
        with pytest.raises(InputError, match=f"{name}.*prompt"):
            load_trained(str(tmp_path / name))


def test_a_merge_that_changes_the_answers_is_refused(toy_base, tmp_path, monkeypatch):
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True)
    trained = changed(get_peft_model(GPT2LMHeadModel.from_pretrained(toy_base), config))
    trained.save_pretrained(tmp_path)
    assert torch.allclose(logits_of(load_trained(str(tmp_path))[0]), logits_of(trained), atol=1e-4)
    monkeypatch.setattr("peft.tuners.ia3.layer.Linear.merge", lambda *args, **kwargs: None)  # forgets the change
    with pytest.raises(InputError, match="IA3.*otherwise"):
        load_trained(str(tmp_path))


def test_a_base_that_has_moved_is_looked_for_where_the_flag_said(toy_base, adapter, tmp_path, monkeypatch):
    moved = says_base(adapter[0], tmp_path / "moved", str(tmp_path / "before" / toy_base.name))
    with pytest.raises(InputError, match="--base_model"):
        load_trained(str(moved))
    task = {"task": "summarization", "max_source_length": 8, "max_target_length": 8, "base_model": toy_base.name}
    (moved / "task.json").write_text(json.dumps(task))
    monkeypatch.setattr("gpt2_interp.run_paths.REPOSITORY", toy_base.parent)
    assert torch.allclose(logits_of(load_trained(str(moved))[0]), adapter[1], atol=1e-4)


def test_a_base_in_the_repository_is_found_from_any_folder_and_named_absolutely(toy_base, tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2_interp.run_paths.REPOSITORY", toy_base.parent)
    monkeypatch.chdir(tmp_path)
    model, _ = load_base(ModelArguments(model_name_or_path=toy_base.name), 0, ())
    add_lora(model, ModelArguments(), 0).save_pretrained(tmp_path / "adapter")
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(toy_base.resolve())


def test_what_can_not_be_loaded_is_said(toy_base, adapter, tmp_path, monkeypatch):
    folder, _ = adapter
    with pytest.raises(InputError, match="'nobody/none'.*--model_path"):
        load_trained("nobody/none")
    with pytest.raises(InputError, match="is a file"):
        load_trained(str(toy_base / "config.json"))
    with pytest.raises(InputError, match="--base_model belongs to a LoRA adapter"):
        load_trained(str(toy_base), base_model=str(toy_base))
    with pytest.raises(InputError, match="'nobody/none'.*--base_model"):
        load_trained(str(says_base(folder, tmp_path / "gone", "nobody/none")))
    with pytest.raises(InputError, match="does not say which base.*--base_model"):
        load_trained(str(says_base(folder, tmp_path / "bare", None)))
    other = tmp_path / "other"  # a base of another width
    config = load_config(str(toy_base), "n_embd=48")
    GPT2LMHeadModel(config).save_pretrained(other)
    with pytest.raises(InputError, match=f"{folder} can't be put on {other}.*--base_model"):
        load_trained(str(folder), base_model=str(other))
    with pytest.raises(InputError, match="has no tokenizer"):
        load_trained(str(other))


def test_damaged_weights_are_not_filled_with_noise(toy_base, tmp_path):
    shutil.copytree(toy_base, tmp_path / "deeper")
    config = json.loads((toy_base / "config.json").read_text())
    (tmp_path / "deeper" / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    with pytest.raises(InputError, match="incomplete: transformer.h.2"):
        load_trained(str(tmp_path / "deeper"))
    shutil.copytree(toy_base, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="cut"):
        load_trained(str(tmp_path / "cut"))


@pytest.mark.parametrize("implementation", ["huggingface", "scratch"])
def test_training_does_not_start_from_damaged_weights_either(toy_base, tmp_path, implementation):
    """Hugging Face would draw what is missing at random, and call the result the base."""

    def load(folder):
        load_base(ModelArguments(model_name_or_path=str(folder), implementation=implementation), 0, ())

    weights = load_file(toy_base / "model.safetensors")
    damaged = {
        "lacking": (
            {k: v for k, v in weights.items() if k != "transformer.h.1.mlp.c_fc.weight"},
            "h.1.mlp.c_fc.weight",
        ),
        "prefixed": ({f"_orig_mod.{k}": v for k, v in weights.items()}, "_orig_mod"),
    }
    for name, (tensors, said) in damaged.items():
        shutil.copytree(toy_base, tmp_path / name)
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
        with pytest.raises(InputError, match=said):
            load(tmp_path / name)
    shutil.copytree(toy_base, tmp_path / "cut")
    data = (toy_base / "model.safetensors").read_bytes()
    for bad in (data[:5000], b"\xff" * 16 + data[16:]):  # its end, its header
        (tmp_path / "cut" / "model.safetensors").write_bytes(bad)
        with pytest.raises(InputError, match="cut"):
            load(tmp_path / "cut")
    load(toy_base)


def _write(name, value):
    def damage(folder):
        (folder / name).write_text(json.dumps(value))

    return damage


def _change(name, **values):
    def damage(folder):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))

    return damage


def _not_finite(folder):
    weights = load_file(folder / "model.safetensors")
    weights["transformer.ln_f.weight"][3] = float("inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _shards(value):
    def damage(folder):
        (folder / "model.safetensors").unlink()
        _write("model.safetensors.index.json", value)(folder)

    return damage


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (_shards({}), "weight_map"),
        (_shards([]), "can't be loaded"),
        (_shards({"weight_map": {"a": 3}}), "metadata"),
        (_shards({"metadata": {}, "weight_map": {"transformer.wte.weight": "gone.safetensors"}}), "gone.safetensors"),
        (_write("config.json", []), "can't be loaded"),
        (_write("config.json", 3), "can't be loaded"),
        (_change("config.json", n_layer="2"), "n_layer"),
        (_change("config.json", n_layer=0), "n_layer"),
        (_change("config.json", n_layer=1), r"h\.1\."),
        (_change("config.json", n_layer=3), r"h\.2\."),
        (_change("config.json", n_head=0), "n_head"),
        (_change("config.json", n_head=3), "n_embd 32 is not a multiple of n_head 3"),
        (_change("config.json", n_positions=0), "n_positions is 0"),
        (_not_finite, r"transformer\.ln_f\.weight .* not finite"),
        (_change("config.json", n_embd=16), r"\[96\] instead of \[48\]"),
        (_change("config.json", activation_function="none"), "none"),
        (_change("config.json", eos_token_id="x"), "eos_token_id"),
        (_change("config.json", quantization_config=3), "can't be loaded"),
        (_write("generation_config.json", []), "can't be loaded"),
        (_write("tokenizer.json", {}), "tokenizer in .* can't be loaded"),
        (_write("tokenizer.json", 3), "tokenizer in .* can't be loaded"),
        (_write("tokenizer_config.json", []), "tokenizer in .* can't be loaded"),
        (_change("tokenizer_config.json", eos_token=3), "eos_token"),
    ],
)
def test_a_folder_that_means_nothing_is_refused_in_one_sentence(damage, word, toy_base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(toy_base, folder)
    damage(folder)
    for load in (lambda: load_trained(str(folder)), lambda: load_base(ModelArguments(str(folder)), 0, ())):
        with pytest.raises(InputError, match=word) as error:
            load()
        assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_masks_that_old_checkpoints_hold_are_no_mistake(toy_base, tmp_path):
    shutil.copytree(toy_base, tmp_path / "base")
    weights = load_file(toy_base / "model.safetensors")
    weights |= {"transformer.h.0.attn.bias": torch.ones(1), "transformer.h.0.attn.masked_bias": torch.ones(1)}
    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    load_trained(str(tmp_path / "base"))


def test_weights_that_are_no_numbers_are_refused(toy_base, tmp_path):
    """Their model would answer with nothing, and exit status 0."""
    shutil.copytree(toy_base, tmp_path / "base")
    weights = load_file(toy_base / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.bias"][3] = float("inf")
    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"h\.1\.mlp\.c_fc\.bias"):
        load_trained(str(tmp_path / "base"))


@pytest.fixture(scope="module")
def lora_of_toy(toy_base, tmp_path_factory):
    """A LoRA of the toy base, as peft saves it."""
    model = GPT2LMHeadModel.from_pretrained(toy_base)
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"])).save_pretrained(folder)
    return folder


def _weights(change):
    def damage(folder):
        path = folder / "adapter_model.safetensors"
        save_file(change(load_file(path)), path, {"format": "pt"})

    return damage


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (_write("adapter_config.json", []), "--base_model"),
        (_change("adapter_config.json", peft_type="NONE"), "NONE"),
        (_change("adapter_config.json", target_modules="("), "unterminated"),
        (_change("adapter_config.json", rank_pattern=3), "keys"),
        (_change("adapter_config.json", megatron_config=3), "megatron"),
        (_change("adapter_config.json", use_dora=True), "lora_magnitude_vector is missing"),
        (_weights(lambda weights: {"a": torch.ones(1)}), r"h\.0\..* is missing"),
        (_weights(lambda weights: {k: v for k, v in weights.items() if ".h.1." not in k}), r"h\.1\..* is missing"),
        (
            _weights(lambda w: w | {k.replace(".1.", ".7."): v.clone() for k, v in w.items() if ".1." in k}),
            r"h\.7\..* is not wanted",
        ),
        (_weights(lambda weights: {k: v * float("nan") for k, v in weights.items()}), "NaN"),
    ],
)
def test_an_adapter_that_means_nothing_is_refused_in_one_sentence(damage, word, lora_of_toy, tmp_path):
    """peft takes most of them, and starts what is missing anew: an adapter that changes nothing."""
    shutil.copytree(lora_of_toy, tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(InputError, match=word) as error:
        load_trained(str(tmp_path / "adapter"))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
