"""GPT-2 and its decoding from scratch beside Hugging Face's, on one prompt: what --compare_implementations prints.

Three questions, each answered by running both sides on the CPU in float32:

1. Do `gpt2_from_scratch` and `GPT2LMHeadModel` compute the same logits from the same weights?
2. Do the algorithms of `decoding_from_scratch` and `transformers.generate` write the same tokens?
3. Why does `transformers.pipeline("text-generation")` write something else? It has settings of its own: 256 new tokens,
   sampling at temperature 0.7 from the top 50, the checkpoint's dtype. Each is tried alone, to see which changes this
   text; and when it is given ours, it must write the same.

What a pipeline does with text (transformers 5.23, pipelines/text_generation.py): the prompt is tokenized as it is, with
no template, cut or end-of-text token; nothing keeps prompt and new tokens within the context, so that a long prompt
fails with an IndexError; an empty one begins with the bos token. What it returns begins with the prompt as typed, and
special tokens are dropped from the rest; spaces stay as they are (`clean_up_tokenization_spaces` is ignored for BPE).
The tokenizer that it is given is changed to left padding. `task_specific_params` of a config.json, as GPT-2's own has,
are ignored.
"""

from __future__ import annotations

import contextlib
import copy
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, pipeline
from transformers.activations import ACT2FN
from transformers.utils import logging

from gpt2_interp.errors import InputError, first_line
from gpt2_interp.generation import decoding_from_scratch
from gpt2_interp.generation.generate import generate as generate_texts
from gpt2_interp.generation.prompts import PromptBuilder
from gpt2_interp.generation.settings import Decoding
from gpt2_interp.model.load import load_trained
from gpt2_interp.model.task_file import trained_task

# Fields of a GenerationConfig that choose no token, and those without effect where `generate_arguments` is silent.
BOOKKEEPING = {"transformers_version", "_from_model_config", "bos_token_id", "use_cache", "output_attentions"}
BOOKKEEPING |= {"output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"}
ELSEWHERE = {"max_length", "temperature", "top_k", "top_p", "early_stopping", "length_penalty"}


@dataclass(frozen=True)
class BothContinuations:
    """One sequence, written by both. Ids are new tokens, with the end of text where it was written."""

    own: list[int]
    transformers: list[int]
    generate_text_agrees: (
        bool  # `generate.generate`, by which generate_text.py writes, gives the tokens of transformers
    )
    parts_at: int | None  # index of the first new token that differs, or that one side does not have; None: the same
    probabilities: dict[
        str, list[float]
    ]  # there, of both sides' tokens: {"scratch": [own, theirs], "huggingface": ...}


@dataclass(frozen=True)
class OtherSetting:
    """A setting that the pipeline chooses otherwise when nobody gives it."""

    name: str
    here: Any
    pipeline: Any
    source: str  # who says so
    parts_at: int | None  # all else as here, the first new token that this setting alone changes; None: none
    error: str | None  # what it raises, alone


@dataclass(frozen=True)
class PipelineRun:
    same_prompt_ids: bool  # what it reads of the prompt, and what stands in the other's prompt
    default_text: str | None  # all that it returns with its defaults; None where it raises `default_error`
    default_ids: list[int]
    default_parts_at: int | None
    default_error: str | None
    other_settings: list[OtherSetting]
    explicit_same_prompt_ids: bool
    explicit_ids: list[int]  # with our settings given
    explicit_parts_at: int | None


@dataclass(frozen=True)
class ImplementationComparison:
    model: str
    text: str  # the prompt, as text
    note: str | None  # what was cut of it
    prompt_ids: list[int]
    pieces: dict[int, str]  # text of every token that occurs
    settings: dict[str, Any]
    parameters: int
    equal_weights: bool
    largest_logit_difference: float
    largest_logit: float
    continuations: list[BothContinuations]
    unknown_settings: dict[str, Any]  # of the model's generation_config.json, which the own algorithms do not know
    pipeline: PipelineRun

    @property
    def agrees(self) -> bool:
        """Return whether our model and algorithm, transformers, generate_text.py, and the pipeline with our settings
        write the same."""
        same = all(c.parts_at is None and c.generate_text_agrees for c in self.continuations)
        return same and self.pipeline.explicit_parts_at is None

    def __str__(self) -> str:
        return "\n".join(_report(self))


def compare(
    model_path: str,
    prompt: str,
    decoding: Decoding,
    *,
    task: str = "text",
    base_model: str | None = None,
) -> ImplementationComparison:
    """Run both implementations on one prompt. model_path, base_model: as for `load_trained`; task: as for
    `PromptBuilder`. Raises InputError."""
    if decoding.max_seconds is not None:
        raise InputError("--max_seconds can't be compared, the clock never cuts at the same token twice: leave it out.")
    own = load_trained(model_path, "scratch", base_model)[0].cpu()
    theirs, tokenizer = load_trained(model_path, "huggingface", base_model)
    theirs = _as_it_comes(theirs.cpu())
    builder = PromptBuilder(tokenizer, own.config.n_positions, task, trained_task(model_path))
    prompt_ids, room, note = builder.build(prompt, decoding)
    arguments = generate_arguments(decoding, room, tokenizer)
    logits = [_logits(model, prompt_ids) for model in (own, theirs)]
    weights = [model.state_dict() for model in (own, theirs)]
    continuations = _continuations(own, theirs, tokenizer, prompt_ids, room, decoding, arguments)
    text = prompt if task == "text" else tokenizer.decode(prompt_ids)
    seed = 0 if decoding.seed is None else decoding.seed  # a pipeline draws even where we do not
    ours = continuations[0].transformers
    run = _run_pipelines(model_path, theirs, tokenizer, text, prompt_ids, arguments, seed, ours)
    seen = {*prompt_ids, *run.default_ids, *run.explicit_ids}
    seen.update(token for c in continuations for token in (*c.own, *c.transformers))
    return ImplementationComparison(
        model=model_path,
        text=text,
        note=note,
        prompt_ids=prompt_ids,
        pieces={token: tokenizer.decode([token]) for token in sorted(seen)},
        settings=decoding.record(),
        parameters=sum(p.numel() for p in own.parameters()),
        equal_weights=weights[0].keys() == weights[1].keys()
        and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]),
        largest_logit_difference=float((logits[0] - logits[1]).abs().max()),
        largest_logit=float(logits[1].abs().max()),
        continuations=continuations,
        unknown_settings={
            name: value
            for name, value in theirs.generation_config.to_diff_dict().items()
            if name not in {*arguments, *BOOKKEEPING, *ELSEWHERE}
        },
        pipeline=run,
    )


def generate_arguments(decoding: Decoding, room: int, tokenizer) -> dict[str, Any]:
    """Return filled settings as arguments of `generate`. Everything that chooses a token is given, so that no default
    decides."""
    arguments = {
        "max_new_tokens": room,
        "do_sample": decoding.is_random,
        "num_beams": decoding.num_beams,
        "repetition_penalty": decoding.repetition_penalty,
        "no_repeat_ngram_size": decoding.no_repeat_ngram,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if decoding.is_random:
        top_k, top_p = decoding.top_k or 0, 1.0 if decoding.top_p is None else decoding.top_p
        arguments |= {"temperature": decoding.temperature, "top_k": top_k, "top_p": top_p}
    if decoding.is_beam:
        arguments |= {"early_stopping": decoding.early_stopping, "length_penalty": decoding.length_penalty}
    return arguments


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Index of the first token that differs or that only one has; None if they are the same."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            return i
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def _as_it_comes(model: PreTrainedModel) -> PreTrainedModel:
    """Hugging Face's activation back in the place of the faster one that `load_trained` puts there."""
    for block in model.transformer.h:
        block.mlp.act = ACT2FN[model.config.activation_function]
    return model


@torch.no_grad()
def _logits(model, ids: list[int]) -> torch.Tensor:
    """Return [len(ids), vocabulary]"""
    ids = torch.tensor([ids])
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]


def _continuations(own, theirs, tokenizer, prompt_ids, room, decoding, arguments) -> list[BothContinuations]:
    """Write every sequence with both, the k-th of a sampling mode with seed + k."""
    eos = tokenizer.eos_token_id
    written = decoding_from_scratch.decode(own, prompt_ids, decoding, room, eos)
    if decoding.is_random:
        expected = [_generate(theirs, prompt_ids, arguments, decoding.seed + k)[0] for k in range(len(written))]
    else:
        expected = _generate(theirs, prompt_ids, {**arguments, "num_return_sequences": len(written)}, None)
    script = generate_texts(theirs, tokenizer, [prompt_ids], decoding)[0]
    found = []
    for ours, others, generated in zip(written, expected, script, strict=True):
        parts_at = first_difference(ours, others)
        probabilities = {}
        if parts_at is not None and parts_at < min(len(ours), len(others)):
            pair, before = [ours[parts_at], others[parts_at]], [*prompt_ids, *ours[:parts_at]]
            for name, model in {"scratch": own, "huggingface": theirs}.items():
                probabilities[name] = _logits(model, before)[-1].softmax(-1)[pair].tolist()
        script_agrees = list(generated.ids) == [token for token in others if token != eos]
        found.append(BothContinuations(ours, others, script_agrees, parts_at, probabilities))
    return found


def _generate(model, prompt_ids: list[int], arguments: dict[str, Any], seed: int | None) -> list[list[int]]:
    """New tokens of transformers.generate, a list a sequence; the padding behind an end of text removed."""
    ids = torch.tensor([prompt_ids])
    with torch.random.fork_rng(devices=[]), _quiet():
        if seed is not None:
            torch.manual_seed(seed)
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **arguments)
    return [_until_end(row[len(prompt_ids) :], arguments["eos_token_id"]) for row in output.tolist()]


def _until_end(ids: list[int], eos: int) -> list[int]:
    return ids[: ids.index(eos) + 1] if eos in ids else ids


# --- the pipeline ----------------------------------------------------------------------------------------------------


@dataclass
class _Call:
    """One call of `generate` inside a pipeline: what reached it, what it made of the settings, and what came out."""

    prompt_ids: list[int]
    settings: dict[str, Any]
    new_ids: list[int]
    text: str | None = None
    error: str | None = None


def _run_pipelines(path: str, theirs, tokenizer, text: str, prompt_ids, arguments, seed: int, ours) -> PipelineRun:
    """A pipeline as anyone would make it, one with our `arguments`, and one for each of its own settings alone.

    text: what the user would give it. ours: the new tokens that transformers.generate wrote.
    """
    # An adapter's base may stand where only `load_trained` finds it, so the pipeline gets the model that it found.
    is_adapter = (Path(path) / "adapter_config.json").is_file()
    as_anyone = _make_pipeline(theirs if is_adapter else path, tokenizer)
    told = _make_pipeline(theirs, tokenizer)
    read_prompt = tokenizer.decode(prompt_ids)  # the cuts and templates that a pipeline does not make, as text
    default = _call(as_anyone, text, {}, seed)
    explicit = _call(told, read_prompt, arguments, seed)

    others = []
    for name, value in default.settings.items():
        here = explicit.settings[name]
        if value != here:
            alone = _call(told, read_prompt, {**arguments, name: value}, seed)
            others.append(OtherSetting(name, here, value, _source(as_anyone, name), *_effect(ours, alone)))
    dtypes = [str(pipe.model.dtype).removeprefix("torch.") for pipe in (told, as_anyone)]
    if dtypes[0] != dtypes[1]:
        alone = _call(as_anyone, read_prompt, arguments, seed)
        others.append(OtherSetting("dtype", *dtypes, "the checkpoint", *_effect(ours, alone)))
    return PipelineRun(
        same_prompt_ids=default.prompt_ids == prompt_ids,
        default_text=default.text,
        default_ids=default.new_ids,
        default_parts_at=first_difference(ours, default.new_ids),
        default_error=default.error,
        other_settings=others,
        explicit_same_prompt_ids=explicit.prompt_ids == prompt_ids,
        explicit_ids=explicit.new_ids,
        explicit_parts_at=first_difference(ours, explicit.new_ids),
    )


def _make_pipeline(model: str | PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
    """All defaults, but on the CPU, and with a tokenizer of its own because it changes that."""
    with _quiet():
        return pipeline("text-generation", model=model, tokenizer=copy.deepcopy(tokenizer), device="cpu")


def _call(pipe, text: str, given: dict[str, Any], seed: int) -> _Call:
    """Call a pipeline once, and record what it passes to `generate`."""
    generate, call = pipe.model.generate, _Call([], {}, [])

    def listening(**kwargs):
        config, _ = pipe.model._prepare_generation_config(None, **kwargs)  # what `generate` itself begins with
        call.settings = {name: value for name, value in config.to_dict().items() if name not in BOOKKEEPING}
        input_ids = kwargs["input_ids"]  # [1, prompt], or None for an empty prompt: then there is a bos token
        call.prompt_ids = input_ids[0].tolist() if input_ids is not None else [config.bos_token_id]
        output = generate(**kwargs)  # [1, prompt + new]
        call.new_ids = _until_end(output[0, len(call.prompt_ids) :].tolist(), config.eos_token_id)
        return output

    pipe.model.generate = listening
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(seed)
            call.text = pipe(text, **given)[0]["generated_text"]
    except (IndexError, RuntimeError, ValueError) as error:  # such as: no position embedding behind the context
        call.error = f"{type(error).__name__}: {first_line(error)}"
    finally:
        del pipe.model.generate
    return call


def _source(pipe, name: str) -> str:
    """Return where transformers takes `name` from if nobody gives it: it looks in this order."""
    config = pipe.model.generation_config
    if name in config.to_diff_dict():
        return "generation_config.json"
    if name == "max_new_tokens" and config.max_length is not None:  # takes the place of the pipeline's own number
        return f"max_length {config.max_length} of generation_config.json"
    if name in pipe._default_generation_config.to_diff_dict():
        return "the pipeline"
    return "transformers"


def _effect(ours: list[int], alone: _Call) -> tuple[int | None, str | None]:
    """Return (first token that one setting alone changed, what it raised)"""
    return None if alone.error else first_difference(ours, alone.new_ids), alone.error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice of transformers about settings, which are tried here on purpose."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


# --- as text ---------------------------------------------------------------------------------------------------------


def _report(found: ImplementationComparison) -> Iterator[str]:
    """Lines for the terminal."""
    pieces = found.pieces
    yield f"GPT-2 from scratch beside Hugging Face's: {found.model}, CPU, float32"
    yield ""
    same = "the same" if found.equal_weights else "DIFFERENT"
    yield f"weights    {same}, {found.parameters:,} numbers"
    shown = ("... " if len(found.prompt_ids) > 40 else "") + _pieces(found.prompt_ids[-40:], pieces)
    yield from _wrapped(f"prompt     {len(found.prompt_ids)} tokens: {shown}", indent=11)
    yield (
        f"logits     differ by {found.largest_logit_difference:.1e} at most, over the whole prompt "
        f"(the largest is {found.largest_logit:.1f})"
    )
    flags = " ".join(f"--{name} {value}" for name, value in found.settings.items())
    yield from _wrapped(f"settings   {flags}", indent=11)
    for name, value in found.unknown_settings.items():
        yield f"           generation_config.json also asks for {name}={value}, which the own algorithms do not know"
    for k, continuation in enumerate(found.continuations):
        yield ""
        yield from _continuation_lines(continuation, pieces, k, len(found.continuations))
    yield ""
    yield from _pipeline_lines(found)


def _continuation_lines(c: BothContinuations, pieces: dict[int, str], k: int, count: int) -> Iterator[str]:
    yield f"own algorithm, scratch model{f' ({k + 1} of {count})' if count > 1 else ''}: {len(c.own)} new tokens"
    yield from _wrapped(_pieces(c.own, pieces))
    yield f"transformers.generate, GPT2LMHeadModel: {_verdict(c.own, c.transformers, c.parts_at, pieces)}"
    for name, (own, theirs) in c.probabilities.items():
        yield f"    probabilities of these two, {name}: {own:.7f}, {theirs:.7f}"
    yield f"generate_text.py: {'the same' if c.generate_text_agrees else 'DIFFERENT'}"


def _pipeline_lines(found: ImplementationComparison) -> Iterator[str]:
    run, ours, pieces = found.pipeline, found.continuations[0].transformers, found.pieces
    yield 'transformers.pipeline("text-generation") with its defaults'
    if not run.same_prompt_ids:
        yield "    it reads other prompt tokens: it knows no template and cuts nothing"
    if run.default_error:
        yield f"    it fails: {run.default_error} (it does not keep to the context)"
    else:
        yield from _wrapped(_pieces(run.default_ids, pieces))
        yield f"    tokens: {_verdict(ours, run.default_ids, run.default_parts_at, pieces)}"
    if run.other_settings:
        yield ""
        rows = [("its settings", "here", "pipeline", "from", "alone, all else as here")]
        for other in run.other_settings:
            effect = other.error or _effect_in_words(other.parts_at, len(ours))
            rows.append((other.name, str(other.here), str(other.pipeline), other.source, effect))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for row in rows:
            yield "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)).rstrip()
        yield ""
    if not run.explicit_same_prompt_ids:
        yield "the prompt's text, tokenized by the pipeline, gives other tokens than it came from"
    yield f"the pipeline, given our settings: {_verdict(ours, run.explicit_ids, run.explicit_parts_at, pieces)}"


def _verdict(ours: list[int], others: list[int], parts_at: int | None, pieces: dict[int, str]) -> str:
    if parts_at is None:
        return f"the same {len(ours)} tokens"
    if parts_at == len(ours):
        return f"the same {parts_at} tokens, then {len(others) - parts_at} more"
    if parts_at == len(others):
        return f"the same {parts_at} tokens, then it ends"
    ours_there, theirs_there = repr(pieces[ours[parts_at]]), repr(pieces[others[parts_at]])
    return f"another token at {parts_at + 1}: {theirs_there} instead of {ours_there}"


def _effect_in_words(parts_at: int | None, length: int) -> str:
    if parts_at is None:
        return "changes nothing"
    return "another length" if parts_at == length else f"another token at {parts_at + 1} of {length}"


def _pieces(ids: Sequence[int], pieces: dict[int, str]) -> str:
    """Write tokens as Once| upon| a| time, so that every token is seen."""
    return "|".join(pieces[token] for token in ids).replace("\n", "\\n")


def _wrapped(text: str, indent: int = 4) -> list[str]:
    first = "" if indent > 4 else " " * indent  # a label stands in the first line
    return textwrap.wrap(text, 110, initial_indent=first, subsequent_indent=" " * indent, drop_whitespace=False)
