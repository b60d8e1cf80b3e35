"""The embedded base model is what its card and the presets say."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt2_interp.data.examples import ExampleBuilder
from gpt2_interp.evaluation.losses import perplexity, target_losses
from gpt2_interp.model.anatomy import model_sizes
from gpt2_interp.model.load import load_base
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.synthetic.running_text import pretraining_texts

TINY = Path(__file__).resolve().parents[1] / "assets" / "tiny_gpt2"


@pytest.fixture(scope="module")
def base():
    return load_base(ModelArguments(model_name_or_path=str(TINY)), 0, [])


def test_size_and_format(base):
    model, tokenizer = base
    assert 1_000_000 <= model_sizes(model)["parameters"] <= 3_000_000
    assert sum(path.stat().st_size for path in TINY.iterdir()) <= 6_000_000
    assert {tensor.dtype for tensor in load_file(TINY / "model.safetensors").values()} == {torch.float16}
    assert len(tokenizer) == model.config.vocab_size
    config = json.loads((TINY / "config.json").read_text())
    assert config["model_type"] == "gpt2" and config["use_cache"]


def test_it_copies(base):
    """Induction score of the best head on 64 random sequences read twice (docs/metrics.md; Olsson et al. 2022)."""
    model, tokenizer = base
    seen = torch.tensor(sorted({i for text in pretraining_texts(500, seed=1) for i in tokenizer(text)["input_ids"]}))
    generator, length = torch.Generator().manual_seed(0), 50
    words = torch.stack([seen[torch.randperm(len(seen), generator=generator)[:length]] for _ in range(64)])
    ids = torch.cat([torch.full((64, 1), tokenizer.eos_token_id), words, words], dim=1)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions = model(ids, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    assert len(attentions) == model.config.n_layer
    query = torch.arange(length + 1, 2 * length + 1)
    scores = torch.stack(attentions)[..., query, query - length + 1].mean(dim=(1, 3))  # [layer, head]
    assert scores.max() > 0.5


def test_it_has_learned_the_world_that_it_was_trained_on(base):
    """Held-out running text: the perplexity that the card reports, within what 100 texts can tell."""
    model, tokenizer = base
    rows = [{"id": i, "source": "", "target": t} for i, t in enumerate(pretraining_texts(100, seed=12345))]
    examples, _ = ExampleBuilder(tokenizer, "creative_writing", 1, 448, 512).build(rows)
    assert perplexity(target_losses(model, examples, 16).mean_per_token()) < 4
    assert "loss" in (TINY / "README.md").read_text()
