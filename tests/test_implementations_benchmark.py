"""benchmarks/implementations.py at toy size: what it measures is done, and what it prints is what was measured."""

import json
import re
import statistics
import sys
from types import SimpleNamespace

import implementations  # of benchmarks/, which pytest has on its path
import pytest
import torch

LINE = re.compile(r"(.+): (scratch|at once) is ([\d.]+) times as fast as .+ \(([\d.]+)-([\d.]+); bar: ([\d.]+)\)")


def run(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["implementations.py", "--quick", "--device=cpu", *map(str, argv)])
    implementations.main()


def test_every_part_is_measured_and_printed(tmp_path, monkeypatch, capsys):
    run(monkeypatch, "--repeats=3", "--out", tmp_path / "figures.json")
    first, *lines = capsys.readouterr().out.splitlines()
    assert "toy model" in first and "on cpu" in first
    found = [LINE.match(line) for line in lines]
    assert [(match[1], match[6]) for match in found] == [
        ("forward + backward, this project's dropout", "1.0"),
        ("forward + backward, no dropout", "1.0"),
        ("cached generation of 8 tokens", "1.0"),
        ("16 prompts, scratch", "4.0"),
        ("16 prompts, huggingface", "4.0"),
    ]
    figures = json.loads((tmp_path / "figures.json").read_text())
    measured = {name: seconds for part in implementations.PARTS for name, seconds in figures[part].items()}
    for match in found:
        seconds = measured[match[1]]
        ratios = [b / a for a, b in zip(seconds["first"], seconds["second"], strict=True)]
        assert len(ratios) == 3 and min(ratios) > 0
        expected = statistics.median(ratios), min(ratios), max(ratios)
        assert [float(match[i]) for i in (3, 4, 5)] == pytest.approx(expected, abs=0.0051)


def test_the_slower_one_is_called_slower():
    text = implementations.line("training", "x", {"first": [2.0, 4.0, 1.0], "second": [1.0, 1.0, 1.0]})
    assert text.startswith("x: scratch is 0.50 times as fast as Hugging Face's (0.25-1.00; bar: 1.0)")
    assert text.endswith("2.000 s against 1.000 s")


def test_turns_alternate_and_the_first_is_no_measurement():
    calls = []
    seconds = implementations.take_turns(lambda: calls.append("a"), lambda: calls.append("b"), 2, "cpu")
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert len(seconds["first"]) == len(seconds["second"]) == 2


def test_both_models_compute_the_same_with_their_own_layers():
    models = implementations.make_models("cpu", quick=True, dropout=0.0)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        ours, theirs = (models[name].eval()(ids).logits for name in ("scratch", "huggingface"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert {name: type(model).__module__.split(".")[0] for name, model in models.items()} == {
        "scratch": "gpt2_interp",
        "huggingface": "transformers",
    }
    layers = {type(module).__module__.split(".")[0] for module in models["huggingface"].modules()}
    assert layers == {"torch", "transformers"}, "stock layers"


def test_texts_that_differ_are_no_comparison(monkeypatch):
    models = implementations.make_models("cpu", quick=True, dropout=0.0)
    models["scratch"].generate = lambda prompt, **flags: torch.zeros(1, 24, dtype=torch.long)
    monkeypatch.setattr(implementations, "make_models", lambda *args: models)
    with pytest.raises(AssertionError, match="not the same tokens"):
        implementations.generation(SimpleNamespace(device="cpu", quick=True, repeats=1))


@pytest.mark.parametrize(
    ("flags", "words"), [(["--repeats=0"], "--repeats"), (["--device=cuda", "--only=training"], "no GPU")]
)
def test_bad_flags_are_said(monkeypatch, flags, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=f"error: .*{words}"):
        run(monkeypatch, *flags)
