"""Base model and tokenizer: from the Hub, a folder, or random weights of a known shape; LoRA adapters on top."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gpt2_interp.checksums import NAME as CHECKSUMS
from gpt2_interp.checksums import changed_files
from gpt2_interp.errors import InputError, first_line, is_out_of_memory
from gpt2_interp.model.copying_start import start_copying
from gpt2_interp.model.fast_layers import use_fast_layers
from gpt2_interp.model.gpt2_from_scratch import ScratchGPT2LMHeadModel
from gpt2_interp.model.settings import IMPLEMENTATIONS, ModelArguments
from gpt2_interp.model.task_file import trained_task
from gpt2_interp.model.tokenizers import TOKENIZER_FILES, load_tokenizer, train_tokenizer
from gpt2_interp.run_paths import here_or_in_repository
from gpt2_interp.startup import reading

MODEL_CLASSES = {"huggingface": GPT2LMHeadModel, "scratch": ScratchGPT2LMHeadModel}  # --implementation
# The four published shapes; everything else (50,257 tokens, 1,024 positions) is GPT2Config's default.
GPT2_SHAPES = {
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "gpt2-large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "gpt2-xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
}


def load_config(name_or_path: str, overrides: str | None = None) -> GPT2Config:
    """Shape of a model with random weights, with `n_embd=160,n_layer=6,...` laid over it. Raises InputError."""
    if name_or_path in GPT2_SHAPES:
        config = GPT2Config(**GPT2_SHAPES[name_or_path])
    else:
        with reading("configuration", name_or_path, "--config_name"):
            config = GPT2Config.from_pretrained(here_or_in_repository(name_or_path))
    if overrides:
        try:
            config.update_from_string(overrides)
        except (ValueError, KeyError) as error:
            raise InputError(f"--config_overrides {overrides}: {error}; write name=value,name=value.") from None
    check_shape(config, name_or_path, "; change --config_overrides")
    return config


def check_shape(config: GPT2Config, name: str, advice: str = "") -> None:
    """Refuse a shape that no GPT-2 has. Raises InputError that names the setting."""
    for setting in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size"):
        if type(value := getattr(config, setting)) is not int or value < 1:
            raise InputError(f"{name}: {setting} is {value!r}, and must be a whole number of at least 1{advice}.")
    if config.n_embd % config.n_head:
        raise InputError(f"{name}: n_embd {config.n_embd} is not a multiple of n_head {config.n_head}{advice}.")


def check_unchanged(path: str) -> None:
    """Raise InputError if a file of a model folder that training wrote here is not as it was written."""
    if changed := changed_files(Path(path)):
        raise InputError(
            f"{path}: {', '.join(changed)} is not as training wrote it (its sha256 differs, or it is gone): restore "
            f"it, or delete {CHECKSUMS} if the change is meant."
        )


def load_base(
    arguments: ModelArguments, seed: int, training_texts: Iterable[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The untouched base in float32 and its tokenizer. Random weights depend on `seed` alone."""
    dropout = {name: getattr(arguments, name) for name in ("attn_pdrop", "resid_pdrop", "embd_pdrop")}
    if arguments.config_name:
        config = load_config(arguments.config_name, arguments.config_overrides)
        if arguments.new_tokenizer_size:
            tokenizer = train_tokenizer(training_texts, arguments.new_tokenizer_size)
        else:
            tokenizer = load_tokenizer(arguments.tokenizer_name or arguments.config_name)
        config.update(
            {
                **dropout,
                "vocab_size": len(tokenizer),
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            }
        )
        torch.manual_seed(seed)
        try:
            model = MODEL_CLASSES[arguments.implementation](config)
        except ValueError as error:  # a variant of GPT-2 that the one from scratch lacks
            raise InputError(f"--implementation {arguments.implementation}: {error}.") from None
        if arguments.copying_start:
            if config.n_layer < 2 or (config.n_embd // config.n_head) % 2:
                raise InputError("--copying_start takes at least 2 layers, and heads of an even width.")
            start_copying(model)
    else:
        name = here_or_in_repository(arguments.model_name_or_path)
        check_unchanged(name)
        if Path(name).is_dir():
            name = str(Path(name).resolve())  # an adapter names it, and is opened from other folders
        if (Path(name) / "adapter_config.json").exists():
            raise InputError(f"{name} is a LoRA adapter: start from a whole model, such as its base.")
        tokenizer = load_tokenizer(arguments.tokenizer_name or name)
        model = _load_whole(name, arguments.implementation, "--model_name_or_path", **dropout)
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens and the model only {model.config.vocab_size}: "
            f"they don't belong together."
        )
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    _tell_other_programs(model, tokenizer)
    use_fast_layers(model)
    return model, tokenizer


def _tell_other_programs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write where the context ends into what is saved beside the weights, for programs that truncate or convert."""
    end = model.config.n_positions
    tokenizer.model_max_length = end  # truncation=True cuts here
    model.config.n_ctx = end  # its old name, which llama.cpp's converter reads
    model.generation_config.max_length = end + 1  # a pipeline stops here: the last token is written, and never read


def load_trained(
    path: str,
    implementation: str = IMPLEMENTATIONS[0],
    base_model: str | None = None,
    device: torch.device | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model for use: in eval mode, float32, on `device` (by default the best there is), with its tokenizer.

    path: a folder with a whole model, a name on the Hub, or a folder with an adapter, which is merged into its base:
    `base_model`, or the one that adapter_config.json names. Raises InputError, also where merging is impossible.
    """
    check_unchanged(path)
    adapter = Path(path) / "adapter_config.json"
    if adapter.is_file():
        model, tokenizer = _load_adapted(adapter, implementation, base_model)
    else:
        if base_model is not None:
            raise InputError(f"--base_model belongs to a LoRA adapter, and {path} is none: leave it out.")
        model = _load_whole(path, implementation, "--model_path")
        use_fast_layers(model)
        tokenizer = load_tokenizer(path)
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens and the model only {model.config.vocab_size}: "
            f"they don't belong together."
        )
    return model.eval().to(device or best_device()), tokenizer


def _load_adapted(
    adapter: Path, implementation: str, base_model: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a base with the adapter merged into it, and their tokenizer. Raises InputError."""
    folder = adapter.parent
    name = here_or_in_repository(base_model) if base_model else _base_of(adapter)
    with reading("adapter", str(folder), "--model_path"):
        kind = PeftConfig.from_pretrained(folder)
    if kind.is_prompt_learning:
        raise InputError(
            f"{folder} is a {kind.peft_type.value} adapter: a learned prompt, which can't be merged into the weights "
            f"of {name}; load it with peft's AutoPeftModelForCausalLM."
        )
    model = _load_whole(name, implementation, "--base_model")
    has_tokenizer = any((folder / file).is_file() for file in TOKENIZER_FILES)
    tokenizer = load_tokenizer(str(folder) if has_tokenizer else name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's about tied embeddings, which are parted below
            if len(tokenizer) > model.config.vocab_size:
                _make_room(model, len(tokenizer), folder)
            use_fast_layers(model)
            adapted = PeftModel.from_pretrained(model, folder)
            _check_whole(adapted, folder)
            merged = _merge(adapted)
    except InputError:
        raise
    except Exception as error:  # peft checks little of an adapter's config, which anybody may have written
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"the adapter in {folder} can't be put on {name}: {first_line(error)}; give its base with --base_model."
        ) from None
    if merged is None:
        raise InputError(
            f"{folder} is a {kind.peft_type.value} adapter that answers otherwise once it is merged into {name}: load "
            f"it with peft's AutoPeftModelForCausalLM."
        )
    return merged, tokenizer


def _make_room(model: PreTrainedModel, tokens: int, folder: Path) -> None:
    """Lengthen the embeddings for an adapter that brings its own, with tokens of its own. Raises InputError."""
    if not any(name.endswith("wte.weight") for name in load_peft_weights(str(folder), device="cpu")):
        raise InputError(
            f"the tokenizer in {folder} has {tokens - model.config.vocab_size} tokens more than the base, and the "
            f"adapter holds no embeddings for them: save it with save_embedding_layers=True."
        )
    model.resize_token_embeddings(tokens, mean_resizing=False)


def _check_whole(adapted: PeftModel, folder: Path) -> None:
    """Refuse an adapter whose weights are not those that its config and the base ask for: peft would start the missing
    ones anew, and drop the others. Raises InputError."""
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    found = set(load_peft_weights(str(folder), device="cpu"))
    more = {name for name in found - wanted if re.search(r"\bh\.\d+\.", name)}
    if odd := sorted(wanted - found) or sorted(more):
        problem = "is missing" if wanted - found else "is not wanted"
        raise InputError(f"the adapter's weights in {folder} don't belong to its config or base: {odd[0]} {problem}.")


def _merge(adapted: PeftModel) -> PreTrainedModel | None:
    """Return the base with the adapter in its weights, or None where that is another function than the two together.

    Tied embeddings are parted first if one of their two uses is adapted: the other one was trained without.
    """
    ids = torch.linspace(0, adapted.config.vocab_size - 1, min(16, adapted.config.n_positions)).long()[None]
    adapted.eval()
    with torch.no_grad():
        apart = adapted(input_ids=ids).logits
    model = adapted.get_base_model()
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if model.config.tie_word_embeddings and any(isinstance(end, BaseTunerLayer) for end in ends):
        head = ends[1].get_base_layer() if isinstance(ends[1], BaseTunerLayer) else ends[1]
        head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False
    merged = adapted.merge_and_unload(safe_merge=True).eval()
    with torch.no_grad():
        together = merged(input_ids=ids).logits
    return merged if torch.allclose(apart, together, atol=1e-3 * apart.abs().max().item()) else None


def best_device() -> torch.device:
    """CUDA, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _base_of(adapter: Path) -> str:
    """Name or folder of an adapter's base. A relative folder is looked for here and in the repository.

    One that was trained here names its base by the absolute path; has that moved, it is looked for where the run's flag
    said.
    """
    try:
        name = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        if not isinstance(name, str):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{adapter} does not say which base it belongs to: give it with --base_model.") from None
    if Path(name).is_absolute() and not Path(name).is_dir():
        name = (trained_task(adapter.parent) or {}).get("base_model") or name
    return here_or_in_repository(name)


def _load_whole(name: str, implementation: str, flag: str, **dropout: float) -> PreTrainedModel:
    """Return a whole model, none of its weights missing: Hugging Face would draw missing ones at random.

    dropout: what its config should say. Raises InputError, which names `flag`.
    """
    if Path(name).is_file():
        raise InputError(f"{flag} {name} is a file: give the folder that holds it.")
    with reading("model", name, flag):
        config = GPT2Config.from_pretrained(name)
        if config.model_type != "gpt2":
            raise InputError(f"{name} is a {config.model_type} model; this project works with GPT-2 models.")
        check_shape(config, f"{name}/config.json")
        model, report = MODEL_CLASSES[implementation].from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **dropout
        )
    for weight, values in model.named_parameters():
        if not values.isfinite().all():
            raise InputError(f"the weights in {name} are broken: {weight} holds numbers that are not finite.")
    if mismatched := sorted(report["mismatched_keys"]):
        weight, found, wanted = mismatched[0]
        raise InputError(
            f"the weights in {name} don't belong to its config.json: {weight} has shape {list(found)} instead of "
            f"{list(wanted)}."
        )
    if missing := sorted(report["missing_keys"]):
        others = sorted(report["unexpected_keys"])
        hint = f"; they have {others[0]}, which GPT-2 has not" if others else ""
        raise InputError(f"the weights in {name} are incomplete: {missing[0]} is missing{hint}.")
    in_blocks = sorted(key for key in report["unexpected_keys"] if re.match(r"(transformer\.)?h\.\d+\.", key))
    if more := [key for key in in_blocks if not key.endswith((".attn.bias", ".attn.masked_bias"))]:  # masks, once
        raise InputError(f"the weights in {name} don't belong to its config.json, which has no {more[0]}.")
    for key, weight in model.state_dict().items():
        if not torch.isfinite(weight).all():
            raise InputError(f"the weights in {name} are damaged: {key} holds numbers that are not finite.")
    return model


def add_lora(model: GPT2LMHeadModel, arguments: ModelArguments, seed: int) -> PeftModel:
    """Freeze the base and put low-rank adapters beside the named matrices. Raises InputError."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=arguments.lora_target_modules,
        fan_in_fan_out=True,  # GPT-2's Conv1D stores [in, out]
    )
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # a name of transformers that peft still uses
            return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"--lora_target_modules: {first_line(error)}.") from None
