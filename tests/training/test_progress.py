"""What the console shows of training."""

import pytest

from gpt2_interp.training.progress import duration, log_line


def test_a_log_entry_is_one_short_line():
    logs = {"loss": 2.5, "learning_rate": 5e-5, "grad_norm": 1.25, "tokens_per_second": 1234.5, "memory_gb": 3.14,
            "seconds_left": 750, "epoch": 0.5, "examples_per_second": 2.0}  # fmt: skip
    line = log_line(logs, 20, 500)
    assert line == "  step 20/500  loss 2.5000  lr 5e-05  gradient norm 1.25  1,234 tokens/s  3.1 GB  12 min left"
    evaluation = log_line({"eval_loss": 2.0, "eval_perplexity": 7.389, "eval_runtime": 3.21, "epoch": 1.0}, 100, 500)
    assert evaluation == "  step 100/500  validation loss 2.0000  perplexity 7.389  in 3.2 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89.6, "90 s"),
        (720, "12 min"),
        (3600 * 3.3, "3 h 18 min"),
        (3600 * 23.995, "1 d 0 h"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
