"""A Trainer whose checkpoints are sealed and whose stops lose nothing.

A run that is killed or interrupted at any moment and resumed ends bit for bit like one that was not.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import Trainer, set_seed

from gpt2_interp.errors import DiskFullError, InputError, Interrupted, is_disk_full, raise_full_disk_of_threads
from gpt2_interp.files import write_atomically
from gpt2_interp.training import checkpoints

NAMED_EXAMPLES = 4  # of a batch in a message; the others are counted


class DurableTrainer(Trainer):
    """Seals each checkpoint after all that belongs to its step is written, and only then lets older ones go.

    flush_before_seal: folders outside the checkpoint (snapshots, log, samples, event files) that must be on disk before
    it counts. `save_total_limit` is taken out of the arguments: the Trainer would rotate before a new one is complete.
    """

    def __init__(self, *args, flush_before_seal: Iterable[Path] = (), **kwargs):
        super().__init__(*args, **kwargs)
        self.flush_before_seal = tuple(flush_before_seal)
        self.save_total_limit = self.args.save_total_limit or None
        self.args.save_total_limit = None
        self.args.restore_callback_states_from_checkpoint = True  # early stopping counts on
        self._unsealed: Path | None = None  # a checkpoint that was begun
        self._sealed_step = -1
        self._batches: list[tuple[list[str], torch.Tensor]] = []  # (example ids, loss) of this optimizer step
        self._signal = _StopSignal()

    # --- beginning, also in the middle ---------------------------------------------------------------------------

    def resume_point(self) -> Path | None:
        """The newest intact checkpoint, or None. What is newer and damaged or unsealed is named and removed."""
        found: list[Path | None] = [None]
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir)
            found[0] = checkpoints.newest_intact(folder)
            checkpoints.remove_newer(folder, found[0])
        if self.args.world_size > 1:
            torch.distributed.broadcast_object_list(found, src=0)
        return found[0]

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Trainer.train. Raises `Interrupted` after a signal, InputError for a non-finite loss and for a full disk."""
        self._eval_on_start = self.args.eval_on_start
        if resume_from_checkpoint is not None:
            self.args.eval_on_start = False  # the run has started long ago: its log has that evaluation
        try:
            with self._signal.caught():
                result = super().train(resume_from_checkpoint, **kwargs)
        except Exception as error:
            if self._unsealed is not None and self.is_world_process_zero():
                checkpoints.remove(self._unsealed)
            if is_disk_full(error) and not isinstance(error, InputError):
                raise DiskFullError(f"writing what belongs to step {self.state.global_step}") from None
            raise
        if number := self._signal_of_any_process():  # it came after the last step
            self._raise_interrupted(number)
        return result

    def _run_epoch(self, *, epoch, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch, **kwargs):
        # The order of an epoch's batches is drawn when it begins. It must be the same again for a run that is resumed
        # in its middle, and the Trainer restores random numbers only after it.
        set_seed(_epoch_seed(self.args.seed, epoch))
        self.args.eval_on_start = self._eval_on_start  # as given, for training_args.bin of the checkpoints to come
        self._batches = []
        if resume_from_checkpoint is not None and epoch == epochs_trained:
            self._restore_running_loss(Path(resume_from_checkpoint))
            if steps_trained_in_current_epoch == 0:
                resume_from_checkpoint = None  # nothing to skip, and the random numbers are those of any beginning
        super()._run_epoch(
            epoch=epoch,
            resume_from_checkpoint=resume_from_checkpoint,
            epochs_trained=epochs_trained,
            steps_trained_in_current_epoch=steps_trained_in_current_epoch,
            **kwargs,
        )
        self._stop_if_asked(kwargs["model"])

    # --- saving --------------------------------------------------------------------------------------------------

    def _maybe_log_save_evaluate(self, tr_loss, grad_norm, model, *args, **kwargs):
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, *args, **kwargs)
        self._seal()  # now: every callback has written what it had to for this step
        # At the end of an epoch the Trainer comes here once more, for what is due at every epoch.
        ends = self.control.should_training_stop or self.control.should_epoch_stop
        if not (ends or float(self.state.epoch).is_integer()):
            self._stop_if_asked(model)

    def _save_checkpoint(self, model, trial):
        self._refuse_non_finite_weights()
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        with self._removed_on_failure(folder):
            if self.is_world_process_zero():
                self._refuse_without_space(folder)
                checkpoints.remove(folder)  # no file of an earlier attempt may stay in it
            self.accelerator.wait_for_everyone()
            self._unsealed = folder
            super()._save_checkpoint(model, trial)
            write_atomically(self._running_loss_file(folder), json.dumps(self._running_loss()).encode())

    def _seal(self, interruption: bool = False) -> None:
        """Seal the checkpoint of this step, if one was just saved, and rotate."""
        if self._unsealed is None:
            return
        folder = self._unsealed
        self.accelerator.wait_for_everyone()  # each process writes its random state
        if self.is_world_process_zero():
            with self._removed_on_failure(folder):
                raise_full_disk_of_threads()
                for path in self._outside():
                    checkpoints.flush_to_disk(path)
                checkpoints.seal(folder, interruption=interruption)
            checkpoints.rotate(folder.parent, self.save_total_limit, self.state.best_global_step)
        self._unsealed, self._sealed_step = None, self.state.global_step
        self.accelerator.wait_for_everyone()  # a process that ended now could take this one with it

    def _outside(self) -> Iterator[Path]:
        """Files, and the folders that hold their names."""
        for path in self.flush_before_seal:
            yield from (p for p in (path, *path.rglob("*")) if p.exists())

    @contextmanager
    def _removed_on_failure(self, folder: Path) -> Iterator[None]:
        """Leave no half-written checkpoint, and say it in one sentence where the disk is full."""
        try:
            yield
        except Exception as error:
            if self.is_world_process_zero():
                checkpoints.remove(folder)
            self._unsealed = None
            if is_disk_full(error) and not isinstance(error, InputError):
                raise DiskFullError(f"saving {folder.name}") from None
            raise

    def _refuse_without_space(self, folder: Path) -> None:
        """Raise DiskFullError before a byte is written if the checkpoint can't fit."""
        needed, free = self._checkpoint_bytes(folder.parent), shutil.disk_usage(_existing(folder.parent)).free
        if free < needed:
            sizes = f"{needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free"
            raise DiskFullError(f"saving {folder.name} ({sizes})")

    def _checkpoint_bytes(self, folder: Path) -> int:
        """Size of the newest checkpoint, or before the first one of the weights to save and Adam's two moments."""
        if newest := checkpoints.newest_sealed(folder):
            return sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        return sum(3 * p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)

    # --- the loss since the last log, which the Trainer forgets --------------------------------------------------

    def _running_loss_file(self, folder: Path) -> Path:
        process = f"_{self.args.process_index}" if self.args.world_size > 1 else ""
        return folder / f"running_loss{process}.json"

    def _running_loss(self) -> dict[str, float]:
        return {
            "since_last_log": self._tr_loss.item(),  # float32, which JSON's digits give back exactly
            "before": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
        }

    def _restore_running_loss(self, folder: Path) -> None:
        values = json.loads(self._running_loss_file(folder).read_text())
        self._tr_loss = torch.tensor(values["since_last_log"], device=self.args.device)
        self._total_loss_scalar = values["before"]
        self._globalstep_last_logged = values["last_logged_step"]

    def log(self, logs, start_time=None):
        # The summary at the end is of this process: after a resume its times and mean loss are not the run's.
        if not {"train_runtime", "train_loss"} <= set(logs):
            super().log(logs, start_time)

    # --- stopping on a signal ------------------------------------------------------------------------------------

    def _signal_of_any_process(self) -> int:
        """The number of the signal that came, or 0; the same in every process."""
        number = self._signal.number
        if self.args.world_size > 1:
            shared = torch.tensor(number, device=self.args.device)
            torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
            number = int(shared)
        return number

    def _stop_if_asked(self, model) -> None:
        """Save this step after a signal, without log, evaluation or snapshot: these come when they are due."""
        number = self._signal_of_any_process()
        if not number:
            return
        if self._sealed_step != self.state.global_step:
            self._save_checkpoint(model, None)
            self._seal(interruption=True)
        self._raise_interrupted(number)

    def _raise_interrupted(self, number: int) -> None:
        raise Interrupted(
            f"stopped by {signal.Signals(number).name} after step {self.state.global_step} of {self.state.max_steps}; "
            f"nothing is lost: go on with --resume",
            number,
        )

    # --- stopping on numbers that are none -----------------------------------------------------------------------

    def training_step(self, model, inputs, num_items_in_batch=None):
        ids = inputs.pop("ids", [])
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._batches.append((ids, loss))
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        self._refuse_non_finite(torch.as_tensor(norm))
        return norm

    def _refuse_non_finite(self, norm: torch.Tensor) -> None:
        """Raise InputError, before the weights change, if a loss or the gradient's norm [] is not a finite number.

        One look at all micro-batches of an optimizer step, because each look makes a GPU wait for the CPU.
        """
        batches, self._batches = self._batches, []
        losses = torch.stack([loss for _, loss in batches])  # [micro-batch]
        # fp16: an overflow while the loss is scaled up is normal; the scaler skips the step and scales less.
        scaler = getattr(self.accelerator, "scaler", None)
        norm_counts = scaler is None or scaler.get_scale() <= 1
        numbers = torch.cat([losses, norm.to(losses).reshape(1)]) if norm_counts else losses
        if not self._on_any_process(not torch.isfinite(numbers).all()):
            return
        culprits = [ids for (ids, _), loss in zip(batches, losses.tolist(), strict=True) if not math.isfinite(loss)]
        what = "loss" if self._on_any_process(bool(culprits)) else "gradient"
        suspects = culprits if what == "loss" else [ids for ids, _ in batches]
        ids = self._from_all_processes([i for batch in suspects for i in batch])
        raise InputError(
            f"the {what} of optimizer step {self.state.global_step + 1} is not a finite number, on "
            f"{_some(ids)}: stopped before the weights changed, {self._last_good()}; begin again under "
            f"another --run_name with a lower --learning_rate, --precision bf16 instead of fp16, or without these "
            f"examples."
        )

    def _refuse_non_finite_weights(self) -> None:
        if all(torch.isfinite(p).all() for p in self.model.parameters() if p.requires_grad):
            return
        raise InputError(
            f"optimizer step {self.state.global_step} made weights that are not finite numbers: they are not saved, "
            f"{self._last_good()}; begin again under another --run_name with a lower --learning_rate."
        )

    def _last_good(self) -> str:
        newest = checkpoints.newest_sealed(Path(self.args.output_dir))
        return f"the last good checkpoint is {newest}" if newest else "and there is no checkpoint yet"

    def _on_any_process(self, flag: bool | torch.Tensor) -> bool:
        if self.args.world_size > 1:
            shared = torch.tensor(int(flag), device=self.args.device)
            torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
            flag = int(shared)
        return bool(flag)

    def _from_all_processes(self, ids: list[str]) -> list[str]:
        gathered = [ids]
        if self.args.world_size > 1:
            gathered = [None] * self.args.world_size
            torch.distributed.all_gather_object(gathered, ids)
        return [i for part in gathered for i in part]


class _StopSignal:
    """SIGINT and SIGTERM as a wish to stop after this step; a second one stops at once."""

    # A launcher passes on the Ctrl-C that the terminal has sent to every process already: that is no second wish.
    ECHO_SECONDS = 1.0

    def __init__(self):
        self.number = 0
        self.came = 0.0
        self.pid = os.getpid()

    @contextmanager
    def caught(self) -> Iterator[None]:
        self.number, self.pid = 0, os.getpid()
        if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame) -> None:
        if os.getpid() != self.pid:  # a worker of the data loader, forked while this was set
            return
        now = time.monotonic()
        if not self.number:
            self.number, self.came = number, now
            # os.write: print may be what was interrupted.
            os.write(2, b"\nfinishing this step, then saving; again to stop at once\n")
        elif now - self.came > self.ECHO_SECONDS:
            os._exit(128 + number)


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed for numpy's range that no other (seed, epoch) is likely to share."""
    return random.Random(f"{seed} {epoch}").getrandbits(32)


def _some(ids: list[str]) -> str:
    """The first few ids and how many more there are."""
    if not ids:
        return "examples without ids"
    more = f" and {len(ids) - NAMED_EXAMPLES} more" if len(ids) > NAMED_EXAMPLES else ""
    return f"examples {', '.join(ids[:NAMED_EXAMPLES])}{more}"


def _existing(folder: Path) -> Path:
    """Return `folder`, or the nearest one above it that exists."""
    return folder if folder.exists() else _existing(folder.parent)
