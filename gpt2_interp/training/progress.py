"""Training on the console: a bar where there is a terminal, and one short line for each entry of the log."""

from __future__ import annotations

from collections.abc import Mapping

from tqdm import tqdm
from transformers import ProgressCallback

# log entry -> how it is written; what is not named here is left to the log and TensorBoard
FORMATS = {
    "loss": "loss {:.4f}",
    "learning_rate": "lr {:.3g}",
    "grad_norm": "gradient norm {:.3g}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "memory_gb": "{:.1f} GB",
    "eval_loss": "validation loss {:.4f}",
    "eval_perplexity": "perplexity {:.4g}",
    "eval_runtime": "in {:.1f} s",
}


class Progress(ProgressCallback):
    """The console's bar and lines, in place of the Trainer's ProgressCallback and PrinterCallback, which write the
    log's dictionary."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:  # disable=None: no bar where the output is a file
            self.training_bar = tqdm(total=state.max_steps, dynamic_ncols=True, disable=args.disable_tqdm or None)
        self.current_step = 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.write(log_line(logs, state.global_step, state.max_steps))


def log_line(logs: Mapping[str, float], step: int, max_steps: int) -> str:
    """Write one entry of the log: " step 20/500 loss 3.1416 lr 5e-05 ... 12 min left"."""
    parts = [f"  step {step}/{max_steps}"]
    parts += [text.format(logs[name]) for name, text in FORMATS.items() if name in logs]
    if "seconds_left" in logs:
        parts.append(f"{duration(logs['seconds_left'])} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Write seconds in the largest unit that fits and the next smaller one: "45 s", "12 min", "3 h 20 min", "2 d 4
    h"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"
