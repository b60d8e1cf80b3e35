"""Settings of the optimizer step that only the libraries can judge, tried on a model of a few numbers before data are
read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, get_scheduler

from gpt2_interp.errors import InputError, first_line

STEPS = 100  # of a schedule that is only made


def rehearse(training: TrainingArguments) -> None:
    """Make what one optimizer step needs, and throw it away. Raises InputError that names the flags at fault."""
    weight = torch.nn.Parameter(torch.ones(2, 2))
    with _named("optim", f"{training.optim.value}", optim_args=training.optim_args):
        make, settings = Trainer.get_optimizer_cls_and_kwargs(training)
        if torch.optim.__name__ in make.__module__:
            _refuse_unread(training.optim_args, settings)
        optimizer = make([weight], **settings)
    with _named(
        "lr_scheduler_type", training.lr_scheduler_type.value, lr_scheduler_kwargs=training.lr_scheduler_kwargs
    ):
        get_scheduler(
            training.lr_scheduler_type,
            optimizer,
            training.get_warmup_steps(STEPS),
            STEPS,
            scheduler_specific_kwargs=training.lr_scheduler_kwargs,
        )
    if training.activation_checkpointing_kwargs:
        with _named("activation_checkpointing_kwargs", training.activation_checkpointing_kwargs):
            _checkpoint_activations(**training.activation_checkpointing_kwargs)
    if training.torch_compile:
        _check_compiler(training.torch_compile_backend, training.torch_compile_mode)


def _refuse_unread(given: str | None, read: dict[str, Any]) -> None:
    """Raise ValueError for a setting of --optim_args that the optimizer would not see."""
    for one in (given or "").replace(" ", "").split(","):
        if one and (name := one.partition("=")[0]) not in read:
            raise ValueError(f"it has no setting {name!r}")


def _checkpoint_activations(every_n_layers: int = 1, offload: bool = False, **settings: Any) -> None:
    """Forward and backward through two small blocks, checkpointed as the Trainer does it."""
    size = {"n_layer": 2, "n_head": 1, "n_embd": 4, "n_positions": 4, "vocab_size": 4}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0, use_cache=False)).train()
    model.activation_checkpointing_enable(settings or None, every_n_layers=every_n_layers, offload=offload)
    ids = torch.tensor([[0, 1, 2]])
    model(input_ids=ids).logits.sum().backward()


def _check_compiler(backend: str, mode: str | None) -> None:
    import torch._dynamo  # here: takes seconds

    if backend not in torch._dynamo.list_backends(exclude_tags=()):
        usual = ", ".join(torch._dynamo.list_backends())
        raise InputError(f"--torch_compile_backend {backend} does not exist: use one of {usual}.")
    if mode is not None and backend != "inductor":
        raise InputError(f"--torch_compile_mode {mode} is of the backend inductor: leave one of the two out.")
    if mode is not None and mode not in (modes := torch._inductor.list_mode_options()):
        raise InputError(f"--torch_compile_mode {mode}: use one of {', '.join(modes)}.")


@contextmanager
def _named(flag: str, value: Any, **others: Any) -> Iterator[None]:
    """Turn what a library raises into one sentence that begins with the flags behind it."""
    try:
        yield
    except Exception as error:  # whatever it is: the same would stop training
        given = [f"--{flag} {value}", *(f"--{name} {one}" for name, one in others.items() if one)]
        raise InputError(f"{' with '.join(given)} can't be used: {first_line(error)}.") from None
