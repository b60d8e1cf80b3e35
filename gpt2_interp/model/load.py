"""Base model and tokenizer: from the Hub, a folder, or random weights of a known shape; LoRA adapters on top."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gpt2_interp.errors import InputError, first_line
from gpt2_interp.model.copying_start import start_copying
from gpt2_interp.model.fast_layers import use_fast_layers
from gpt2_interp.model.gpt2_from_scratch import ScratchGPT2LMHeadModel
from gpt2_interp.model.settings import IMPLEMENTATIONS, ModelArguments
from gpt2_interp.model.tokenizers import TOKENIZER_FILES, load_tokenizer, train_tokenizer
from gpt2_interp.run_paths import REPOSITORY
from gpt2_interp.startup import not_found

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
        try:
            config = GPT2Config.from_pretrained(name_or_path)
        except (OSError, ValueError) as error:
            raise InputError(not_found("configuration", name_or_path, "--config_name", error)) from None
    if overrides:
        try:
            config.update_from_string(overrides)
        except (ValueError, KeyError) as error:
            raise InputError(f"--config_overrides {overrides}: {error}; write name=value,name=value.") from None
    if config.n_embd % config.n_head:
        raise InputError(
            f"n_embd {config.n_embd} is not a multiple of n_head {config.n_head}; change --config_overrides."
        )
    return config


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
        name = arguments.model_name_or_path
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

    path: a folder with a whole model, a name on the Hub, or a folder with a LoRA adapter, which is merged into
    its base: `base_model`, or the one that adapter_config.json names. Raises InputError.
    """
    folder = Path(path)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        name = base_model or _base_of(adapter)
        model = _load_whole(name, implementation, "--base_model")
        use_fast_layers(model)
        has_tokenizer = any((folder / file).is_file() for file in TOKENIZER_FILES)
        tokenizer = load_tokenizer(path if has_tokenizer else name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # a name of transformers that peft still uses
                model = PeftModel.from_pretrained(model, path).merge_and_unload(safe_merge=True)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
            raise InputError(
                f"the adapter in {path} can't be put on {name}: {first_line(error)}; give its base with --base_model."
            ) from None
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


def best_device() -> torch.device:
    """CUDA, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _base_of(adapter: Path) -> str:
    """Name or folder of an adapter's base. A relative folder is looked for here and in the repository."""
    try:
        name = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        if not isinstance(name, str):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{adapter} does not say which base it belongs to: give it with --base_model.") from None
    in_repository = REPOSITORY / name
    return str(in_repository) if not Path(name).is_dir() and in_repository.is_dir() else name


def _load_whole(name: str, implementation: str, flag: str, **dropout: float) -> PreTrainedModel:
    """Return a whole model, none of its weights missing: Hugging Face would draw missing ones at random.

    dropout: what its config should say. Raises InputError, which names `flag`.
    """
    if Path(name).is_file():
        raise InputError(f"{flag} {name} is a file: give the folder that holds it.")
    try:
        config = GPT2Config.from_pretrained(name)
        if config.model_type != "gpt2":
            raise InputError(f"{name} is a {config.model_type} model; this project works with GPT-2 models.")
        model, report = MODEL_CLASSES[implementation].from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **dropout
        )
    except (OSError, ValueError) as error:
        raise InputError(not_found("model", name, flag, error)) from None
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"the weights in {name} can't be loaded: {first_line(error)}.") from None
    if missing := sorted(report["missing_keys"]):
        others = sorted(report["unexpected_keys"])
        hint = f"; they have {others[0]}, which GPT-2 has not" if others else ""
        raise InputError(f"the weights in {name} are incomplete: {missing[0]} is missing{hint}.")
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
