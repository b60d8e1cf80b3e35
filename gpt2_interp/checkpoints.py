"""Which checkpoint a resumed run goes on from, and its weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import GPT2LMHeadModel, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from gpt2_interp.errors import InputError

# Without one of these the Trainer resumes silently wrong: fresh optimizer state, schedule or random numbers.
NEEDED = ("optimizer.pt", "scheduler.pt", TRAINER_STATE_NAME)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


def all_checkpoints(folder: Path) -> list[Path]:
    """checkpoint-<step> folders, oldest step first."""
    found = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    return [path for _, path in sorted(found)]


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint with all its files, or None."""
    for path in reversed(all_checkpoints(folder)):
        if _is_complete(path):
            return path
        print(f"  {path} is incomplete and skipped", flush=True)
    return None


def _is_complete(path: Path) -> bool:
    has_random_state = any(path.glob("rng_state*.pth"))
    return (
        has_random_state
        and all((path / name).is_file() for name in NEEDED)
        and any((path / name).is_file() for name in WEIGHTS)
    )


def load_finished(trainer, checkpoint: Path) -> bool:
    """Whether training had ended at this checkpoint; then the trainer holds its state and weights.

    Trainer.train(resume_from_checkpoint=...) would take one more step.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if state.global_step < state.max_steps:
        return False
    load_weights(trainer.model, checkpoint)
    trainer.state = state
    return True


def load_weights(model, checkpoint: Path) -> None:
    """Put a checkpoint's weights (whole model or LoRA adapter) into `model`, in place. Raises InputError."""
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(checkpoint), adapter_name="default", is_trainable=False)
        else:
            loaded = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32)
            model.load_state_dict(loaded.state_dict())
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{checkpoint} can't be loaded ({reason}); train again or delete it.") from None


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))
