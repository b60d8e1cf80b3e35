"""--precision auto is a rule: the same model on the same device trains in the same precision, whatever else runs."""

import pytest
import torch
from transformers import GPT2Config, TrainingArguments

from gpt2_interp.errors import InputError
from gpt2_interp.model import precision
from gpt2_interp.model.precision import Precision, choose_precision, set_precision

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("device", "width", "native", "name"),
    [
        (CPU, 768, True, "bf16"),
        (CPU, 256, True, "bf16"),
        (CPU, 160, True, "fp32"),  # a stopwatch said now this, now that
        (CPU, 768, False, "fp32"),
        (CUDA, 160, True, "bf16"),
        (CUDA, 768, False, "fp16"),
        (MPS, 768, True, "fp32"),
    ],
)
def test_auto_depends_on_device_and_width_alone(monkeypatch, device, width, native, name):
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    config = GPT2Config(n_embd=width, n_head=4)
    assert choose_precision("auto", config, device).name == name
    assert choose_precision("fp32", config, device) == Precision("fp32", "as asked for")


def test_nothing_is_timed(monkeypatch):
    def clock():
        raise AssertionError("a clock was read")

    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("time.monotonic", clock)
    choose_precision("auto", GPT2Config(n_embd=768, n_head=12), CPU)


def test_fp16_wants_a_gpu(tmp_path):
    with pytest.raises(InputError, match="--precision fp16"):
        set_precision(TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), Precision("fp16", ""))
