"""What several tests need."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries are imported: no test may wait for the network
os.environ["MPLBACKEND"] = "agg"  # a notebook leaves its own to what it starts
os.environ["NUMBA_NUM_THREADS"] = "1"  # numba shares OpenMP with torch: umap's first run sets the number for both

import pytest
import torch
from common import DATA  # of benchmarks/: one setting for both

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.generation.settings import Decoding, DecodingSettings
from gpt2_interp.run_paths import RunPaths
from tests.fake_store import write_fake_run
from tests.toy import make_toy_base

REPOSITORY = Path(__file__).resolve().parents[1]


def decoding(*method: str, **settings) -> Decoding:
    return DecodingSettings(*method, **settings).resolve()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real text and real model artefacts: $GPT2_INTERP_DATA, by default ../shared/data."""
    if not DATA.is_dir():
        pytest.skip(f"real data not found at {DATA}: name their folder with GPT2_INTERP_DATA")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors are faster on one thread, and results don't depend on the number of cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory) -> Path:
    """Folder of a small random base model with its tokenizer."""
    return make_toy_base(tmp_path_factory.mktemp("toy_base"))


@pytest.fixture(scope="session")
def measurements(tmp_path_factory) -> Measurements:
    """A run with planted effects, as the figures read it; nothing may be written to it."""
    root = tmp_path_factory.mktemp("fake_run")
    write_fake_run(root)
    return Measurements(RunPaths("fake", root))
