"""The files of one run besides its snapshots: whether they may be written, models and their cards, samples,
provenance."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from gpt2_interp import files
from gpt2_interp.checksums import NAME as CHECKSUMS
from gpt2_interp.checksums import write_checksums
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError
from gpt2_interp.files import json_bytes, read_json, write_atomically, write_json
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.model.task_file import TASK_FILE
from gpt2_interp.run_paths import RunPaths, measured_runs
from gpt2_interp.training.checkpoints import best_intact_step, load_weights, remove_leftovers, step_of

RECORDED_PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets", "evaluate", "numpy", "tokenizers")


# --- before ----------------------------------------------------------------------------------------------------


def check_free(paths: RunPaths, resume: bool, overwrite: bool, n_null: int = 0) -> None:
    """Refuse to touch an earlier run of this name, or its null runs, unless a flag allows it, and ever to touch another
    run that has the name of one of the `n_null` null runs to come. Raises InputError."""
    ours = null_runs(paths)
    for null in (null_paths(paths, number) for number in range(1, n_null + 1)):
        if null.metrics.exists() and null not in ours:
            raise InputError(
                f"--null_training would make a run {null.run_name!r}, and there is another one of this name: give "
                f"another --run_name."
            )
    exists = any(path.exists() for path in paths.all())
    if (exists or ours) and not (resume or overwrite):
        raise InputError(
            f"run {paths.run_name!r} already exists: --resume goes on with it, --overwrite deletes it first, "
            f"another --run_name keeps both."
        )
    if resume and not exists:
        raise InputError(
            f"there is no run {paths.run_name!r} to resume: leave out --resume, or check --run_name and --root."
        )
    if exists:
        lock_run(paths)


def null_paths(paths: RunPaths, number: int) -> RunPaths:
    """Return the places of a run's null run with this number, from 1 on. Raises InputError where its name is too
    long."""
    return RunPaths(f"{paths.run_name}-null-{number}", paths.root)


def null_runs(paths: RunPaths) -> list[RunPaths]:
    """Return the places of all null runs that `--null_training` made for this run."""
    return [
        RunPaths(name, paths.root)
        for name in measured_runs(paths.root)
        if name.startswith(f"{paths.run_name}-null-")
        and _null_training_of(RunPaths(name, paths.root)) == paths.run_name
    ]


def _null_training_of(paths: RunPaths) -> str | None:
    try:
        return read_json(paths.metrics / "run.json").get("null_training_of")
    except InputError:  # whoever reads that run says so
        return None


def put_in_place(made: RunPaths, paths: RunPaths) -> None:
    """Move a whole null run's measurements to where runs are read. Its run.json comes last: without it there is no
    run."""
    for here, there in ((made.attention, paths.attention), (made.latent, paths.latent), (made.metrics, paths.metrics)):
        shutil.rmtree(there, ignore_errors=True)  # what a killed process left
        there.parent.mkdir(parents=True, exist_ok=True)
        if here.exists():
            shutil.move(here, there)
    shutil.rmtree(made.root)


LATER = ("claims.json",)  # visualize_metrics.py writes it, as often as it runs


def is_finished(paths: RunPaths) -> bool:
    """Return whether training and scoring have ended: metrics.json is written last."""
    return (paths.model_outputs / "metrics.json").is_file()


_locks: dict[Path, Any] = {}  # lock file -> its open file, held until this process ends


def lock_run(paths: RunPaths) -> None:
    """Keep other processes from this run until this one ends, however it ends. Raises InputError if one has it.

    Of a distributed run only the first process, the one that writes, takes it.
    """
    path = paths.checkpoints.with_name(f".{paths.run_name}.lock").absolute()
    if path in _locks or os.environ.get("RANK", "0") != "0":
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+")  # noqa: SIM115, closing it would give the lock back
    try:
        is_ours = files.lock(file)
    except OSError as error:  # some network file systems know no locks
        is_ours = True
        print(f"  note: {path} can't be locked ({error}): let no second process use this run", flush=True)
    if not is_ours:
        file.seek(0)
        raise InputError(
            f"run {paths.run_name!r} is in use by process {file.read().strip() or 'unknown'}: wait until it ends, stop "
            f"it, or give another --run_name."
        )
    file.truncate(0)
    print(os.getpid(), file=file, flush=True)
    _locks[path] = file


def prepare_run(paths: RunPaths, resume: bool, overwrite: bool) -> None:
    """Delete the earlier run if that was asked for; make the folders. Called once everything given has proved good."""
    lock_run(paths)
    check_free(paths, resume, overwrite)  # once more: until now another process could begin and end this run
    if resume:  # what a kill left of an atomic write; pictures are others' business
        remove_leftovers(path for path in paths.all() if path != paths.visualizations)
        (paths.model_outputs / CHECKSUMS).unlink(
            missing_ok=True
        )  # of a run that was killed just before it was finished
    if overwrite:  # first what says that there is a run to resume: a kill may leave the rest
        try:
            (paths.model_outputs / "metrics.json").unlink(missing_ok=True)
            for path in (paths.checkpoints, *paths.all(), *(path for null in null_runs(paths) for path in null.all())):
                _empty(path)
        except OSError as error:
            raise InputError(f"--overwrite can't delete {error.filename}: {error.strerror}.") from None
    for path in (paths.checkpoints, paths.model_outputs, paths.logs):
        path.mkdir(parents=True, exist_ok=True)


def _empty(folder: Path) -> None:
    """Delete all that is in `folder`, and the folder unless it is a link: to another disk, say, where the next run
    belongs too. Raises OSError."""
    if not folder.is_symlink():
        if folder.exists():
            shutil.rmtree(folder)
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def provenance() -> dict[str, Any]:
    """Return when this runs, with which code and which versions."""
    try:
        here = Path(__file__).resolve().parent
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None  # not a checkout, or no git
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
        },
        "git_commit": commit,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


# --- samples ---------------------------------------------------------------------------------------------------


def cut_samples(path: Path, checkpoint: Path | None) -> None:
    """Forget the samples after the checkpoint that a run is resumed from."""
    if path.is_file():
        last = step_of(checkpoint) if checkpoint else -1
        lines = [line for line in path.read_text(encoding="utf-8").split("\n")[:-1] if json.loads(line)["step"] <= last]
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


# --- models ----------------------------------------------------------------------------------------------------


def save_models(
    trainer, tokenizer, paths: RunPaths, model_args: ModelArguments, data: DataArguments, plain_text: bool
) -> int:
    """final_model/ (the last weights) and best_model/ (the intact checkpoint with the lowest evaluation loss).

    Returns the best step, whose weights the model then has. For LoRA both folders hold the adapter only. plain_text: no
    row had a prompt, so that the model continues texts.
    """
    trained = {
        "task": "text" if plain_text else data.task,
        "max_source_length": data.max_source_length,
        "max_target_length": data.max_target_length,
        **({"base_model": model_args.model_name_or_path} if model_args.tuning == "lora" else {}),  # as the flag had it
    }
    dtype = getattr(torch, model_args.save_dtype)
    final, best = paths.model_outputs / "final_model", paths.model_outputs / "best_model"
    metric = f"eval_{trainer.args.metric_for_best_model.removeprefix('eval_')}"
    best_step = best_intact_step(paths.checkpoints, trainer.state, metric, bool(trainer.args.greater_is_better))
    _save(trainer.model, tokenizer, final, dtype, trained)
    if best_step == trainer.state.global_step:
        shutil.rmtree(best, ignore_errors=True)
        shutil.copytree(final, best)
    else:
        load_weights(trainer.model, paths.checkpoints / f"checkpoint-{best_step}")
        _save(trainer.model, tokenizer, best, dtype, trained)
    return best_step


def _save(model, tokenizer, folder: Path, dtype: torch.dtype, trained: dict[str, Any]) -> None:
    """Weights, tokenizer, and in task.json what `generation.prompts` needs to ask as in training."""
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left of it
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    if isinstance(model, PeftModel):
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
    else:
        model.save_pretrained(folder, state_dict=state)
        config = folder / "config.json"
        said = {"dtype": str(dtype).removeprefix("torch.")}
        config.write_text(json.dumps({**json.loads(config.read_text()), **said}, indent=2) + "\n")
    tokenizer.save_pretrained(folder)
    write_json(folder / TASK_FILE, trained)
    write_checksums(folder, sorted(path for path in folder.iterdir() if path.is_file()))  # the card is yet to come


def finish(paths: RunPaths, metrics: Mapping[str, Any]) -> None:
    """Write the checksums of the run's text files, then metrics.json, whose presence says that the run is finished.

    Arrays, checkpoints and models have checksums of their own.
    """
    of_snapshots = [path for path in paths.metrics.iterdir() if path.suffix in (".json", ".jsonl")]
    texts = [*of_snapshots, *paths.model_outputs.glob("*.jsonl")]
    ours = sorted(path for path in texts if path.name not in LATER)
    write_checksums(paths.model_outputs, ours, {"metrics.json": json_bytes(metrics)})
    write_json(paths.model_outputs / "metrics.json", metrics)
