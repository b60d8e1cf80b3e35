"""Every private member of another library that this project overrides or reads.

An upgrade that changes one of them must fail here, not in the middle of somebody's training. What is listed is what
requirements.txt pins and pyproject.toml narrows.
"""

import argparse
import inspect

import pytest
import torch
from matplotlib.figure import Figure
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    TextGenerationPipeline,
    Trainer,
    TrainingArguments,
)

# Methods of the Trainer that training/ overrides or calls, with the parameters that it relies on.
TRAINER = {
    "_run_epoch": ("epoch", "resume_from_checkpoint", "epochs_trained", "steps_trained_in_current_epoch", "model"),
    "_maybe_log_save_evaluate": ("tr_loss", "grad_norm", "model"),
    "_save_checkpoint": ("model", "trial"),
    "_get_output_dir": ("trial",),
    "_get_grad_norm": ("model", "grad_norm"),
    "_get_train_sampler": ("train_dataset",),
    "_get_num_items_in_batch": ("batch_samples", "device"),
}


@pytest.mark.parametrize("name", TRAINER)
def test_methods_of_the_trainer(name):
    assert set(TRAINER[name]) <= set(inspect.signature(getattr(Trainer, name)).parameters)


def test_what_a_trainer_counts_while_it_logs():
    source = inspect.getsource(Trainer)
    for name in ("_total_loss_scalar", "_globalstep_last_logged", "_tr_loss"):
        assert f"self.{name}" in source, name


def test_what_is_set_on_training_arguments(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    args._n_gpu = 1
    assert args.n_gpu == 1


def test_attention_of_a_model_is_read_and_set():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9))
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    assert {"generation_config"} <= set(inspect.signature(model._prepare_generation_config).parameters)


def test_the_parser_that_dataclasses_are_read_with():
    assert list(inspect.signature(HfArgumentParser._parse_dataclass_field).parameters) == ["parser", "field"]


def test_what_torch_says_of_the_processor():
    assert {torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported()} <= {True, False}


def test_the_parts_that_aligned_umap_is_built_from():
    """umap-learn makes no promise about these; analysis/projection.py says why its own AlignedUMAP is not used."""
    from umap.layouts import optimize_layout_aligned_euclidean
    from umap.spectral import spectral_layout
    from umap.umap_ import find_ab_params, fuzzy_simplicial_set

    wanted = {
        optimize_layout_aligned_euclidean: ("head_embeddings", "tail_embeddings", "heads", "tails", "relations"),
        spectral_layout: ("data", "graph", "dim", "random_state"),
        find_ab_params: ("spread", "min_dist"),
        fuzzy_simplicial_set: ("X", "n_neighbors", "random_state", "metric"),
    }
    for function, parameters in wanted.items():
        function = getattr(function, "py_func", function)
        assert set(parameters) <= set(inspect.signature(function).parameters), function.__name__


def test_the_rest_of_torch_transformers_matplotlib_and_argparse():
    assert torch._foreach_norm([torch.ones(4)], 2, dtype=torch.float32)[0] == 2
    assert TextGenerationPipeline._default_generation_config.max_new_tokens == 256
    points = Figure().add_subplot(projection="3d").scatter([1.0], [2.0], [3.0])
    assert [float(axis[0]) for axis in points._offsets3d] == [1, 2, 3]
    assert "--help" in argparse.ArgumentParser()._option_string_actions
