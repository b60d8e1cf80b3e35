"""The snippets of docs/other_tools.md, where their packages are installed."""

import importlib.util
import re
import runpy
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from gpt2_interp.model.load import add_lora
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.model.tokenizers import load_tokenizer

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "other_tools.md").read_text()
SNIPPETS = dict(re.findall(r"## (\S+)\n\n```python\n(.*?)```", PAGE, re.DOTALL))
OPEN = SNIPPETS.pop("Open")
STATED = '"model_outputs/quickstart/best_model", False'


@pytest.mark.slow
@pytest.mark.parametrize("is_lora", [False, True])
@pytest.mark.parametrize("package", SNIPPETS)
def test_the_snippet_runs(toy_base, tmp_path, monkeypatch, package, is_lora):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if package == "onnxruntime":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    if package == "tuned_lens" and importlib.util.find_spec("transformer_lens"):
        pytest.skip("tuned_lens 0.2.0 can't be imported beside TransformerLens 4")
    folder = toy_base
    if is_lora:
        folder = tmp_path / "adapter"
        add_lora(GPT2LMHeadModel.from_pretrained(toy_base), ModelArguments(), 0).save_pretrained(folder)
        load_tokenizer(str(toy_base)).save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    assert STATED in OPEN
    program = tmp_path / "program.py"  # a file, because nnsight reads the source of its own caller
    program.write_text(OPEN.replace(STATED, f"{str(folder)!r}, {is_lora}") + SNIPPETS[package])
    names = runpy.run_path(str(program))
    theirs = names["model"](names["ids"]).logits
    if "logits" in names:
        assert torch.allclose(names["logits"], theirs, atol=1e-3)
