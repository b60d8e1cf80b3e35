"""examples/attention_maps.py: Hugging Face's attention, in two files that need no network."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from plotly.offline import get_plotlyjs
from transformers import GPT2LMHeadModel

from examples import attention_maps
from gpt2_interp.errors import InputError
from gpt2_interp.model.load import load_trained
from gpt2_interp.model.tokenizers import load_tokenizer
from tests.report.test_page import LINK_OUT

TEXT = "The mayor opened the new bridge on Monday, and <b>nobody</b> knew who had built it."


@pytest.fixture(scope="module")
def ids(toy_base):
    return load_tokenizer(str(toy_base))(TEXT)["input_ids"]


@pytest.fixture(scope="module")
def patterns(toy_base, ids):
    return attention_maps.attention_patterns(load_trained(str(toy_base), "scratch")[0].cpu(), ids)


def run(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["attention_maps.py", *map(str, argv)])
    attention_maps.main()


def test_maps_are_hugging_faces(toy_base, ids, patterns):
    theirs = GPT2LMHeadModel.from_pretrained(toy_base, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = torch.cat(theirs(torch.tensor([ids]), output_attentions=True).attentions)
    assert patterns.shape == expected.shape == (2, 2, len(ids), len(ids))
    np.testing.assert_allclose(patterns, expected, atol=1e-5)


def test_rows_sum_to_one_and_no_token_sees_later_ones(patterns):
    np.testing.assert_allclose(patterns.sum(-1), 1, atol=1e-5)
    assert not patterns[..., ~np.tri(patterns.shape[-1], dtype=bool)].any()
    assert patterns[..., np.tri(patterns.shape[-1], dtype=bool)].min() > 0


def test_files(toy_base, ids, patterns, tmp_path, monkeypatch):
    run(monkeypatch, "--model_path", toy_base, "--text", TEXT, "--output_dir", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"attention_maps.png", "attention_maps.html"}
    page = (tmp_path / "attention_maps.html").read_text()
    written = json.loads(re.search(r"const patterns = (.*);\n", page)[1])
    assert written[1][0][3][4:] == [None] * (len(ids) - 4)
    np.testing.assert_allclose(np.array(written[1][0][3][:4], float), patterns[1, 0, 3, :4], atol=1e-4)
    assert get_plotlyjs() in page and not LINK_OUT.search(page.replace(get_plotlyjs(), ""))
    assert "explanation" in page
    for name, count in (("layer", 2), ("head", 2)):
        select = re.search(f'<select id="{name}">(.*?)</select>', page)[1]
        assert re.findall(r"<option>(\d+)</option>", select) == [str(i) for i in range(count)]


def test_every_token_is_named_as_text_not_as_markup(toy_base, ids, patterns):
    labels = [f"{i}<b>" for i in range(len(ids))]
    page = attention_maps.page(patterns, labels).decode()
    ticks = json.loads(re.search(r'"ticktext":(\[.*?\])', page)[1])
    assert ticks == [f"{i}&lt;b&gt;" for i in range(len(ids))]


def test_picture_has_a_map_for_every_head_in_one_colour_range(tmp_path):
    """Two layers, three heads of one token each: all weights are 1, so all maps have the colour of 1."""
    (tmp_path / "maps.png").write_bytes(attention_maps.picture(np.ones((2, 3, 1, 1)), ["word"]))
    pixels = np.asarray(Image.open(tmp_path / "maps.png").convert("RGB")).reshape(-1, 3)
    brightest = np.all(np.abs(pixels - np.array([252, 253, 191])) < 3, axis=1)  # magma(1)
    assert 0.3 < brightest.mean() < 0.9


def test_a_long_text_is_cut_and_that_is_said(toy_base, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "--model_path", toy_base, "--text", TEXT, "--output_dir", tmp_path, "--max_tokens", 5)
    assert "the first 5 are read" in capsys.readouterr().err
    written = json.loads(re.search(r"const patterns = (.*);\n", (tmp_path / "attention_maps.html").read_text())[1])
    assert np.array(written).shape == (2, 2, 5, 5)


@pytest.mark.parametrize("flags", [["--text", ""], ["--text", "word", "--max_tokens", "0"]])
def test_nothing_to_read(toy_base, tmp_path, monkeypatch, flags):
    with pytest.raises(InputError, match="nothing to read"):
        run(monkeypatch, "--model_path", toy_base, *flags, "--output_dir", tmp_path)


def test_no_such_model(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--model_path"):
        run(monkeypatch, "--model_path", tmp_path / "none", "--text", "word", "--output_dir", tmp_path)
