#!/usr/bin/env python
"""Hugging Face's own tests of GPT-2, run on gpt2_interp/model/gpt2_from_scratch.py.

    git clone --depth 1 --branch v5.23.0 https://github.com/huggingface/transformers
    pip install parameterized httpx
    python benchmarks/hf_gpt2_suite.py transformers            half a minute; more words go to pytest: -k generate

The tests stay as they are; only the classes that they test are others. A failure counts as a refusal where REFUSED
names the test and the reason. Exits with 1 if any other test fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
PROJECT = Path(__file__).resolve().parents[1]
sys.path.append(str(PROJECT))

SUITE = Path("tests/models/gpt2/test_modeling_gpt2.py")
REFUSED = {  # tests, and why they can't pass
    r"test_gpt2_sdpa_matches_eager_with_scaling_configs|test_gpt2_scale_attn_by_inverse_layer_idx": "other scalings",
    r"test_gpt2_reorder_and_upcast_attn": "other scalings",
    r"test_eager_matches_sdpa_inference_\w+_output_attentions": "the fused kernel has no attention weights to show",
    r"test_model_outputs_equivalence": "the fused kernel has no attention weights to show",
}
OTHER_CLASSES = r"test_gpt2_double_lm_head_model$"  # heads that only Hugging Face has


class Substitute:
    """A pytest plugin: puts the classes from scratch in the place of Hugging Face's, and notes how the tests end."""

    def __init__(self):
        self.passed, self.skipped, self.failed = set(), set(), {}  # names of tests, whose subtests report too

    def pytest_pycollect_makeitem(self, collector, name, obj):
        from transformers import GPT2Config

        from gpt2_interp.model.gpt2_from_scratch import ScratchGPT2LMHeadModel, Transformer

        if name == "GPT2ModelTester":
            obj.config_class, obj.base_model_class, obj.causal_lm_class = (
                GPT2Config,
                Transformer,
                ScratchGPT2LMHeadModel,
            )
            collector.obj.GPT2LMHeadModel = ScratchGPT2LMHeadModel
        if name == "GPT2ModelTest":
            Transformer.__name__ = "GPT2Model"  # its name tells the tests which inputs it takes
            obj.all_model_classes = (Transformer, ScratchGPT2LMHeadModel)
            obj.pipeline_model_mapping = {"feature-extraction": Transformer, "text-generation": ScratchGPT2LMHeadModel}

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if not re.search(OTHER_CLASSES, item.name)]

    def pytest_runtest_logreport(self, report):
        test = report.nodeid.split("::")[-1]
        if report.failed:
            self.failed[test] = report.longrepr.reprcrash.message.splitlines()[0] if report.longrepr else ""
        elif report.skipped:
            self.skipped.add(test)
        elif report.when == "call":
            self.passed.add(test)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", nargs="?", type=Path, help="folder of a git checkout of transformers")
    arguments, for_pytest = parser.parse_known_args()
    import transformers

    version = transformers.__version__
    if arguments.checkout is None or not (arguments.checkout / SUITE).is_file():
        parser.error(f"give the folder of a checkout of transformers v{version}, the one that has {SUITE}")
    there = re.search(r'__version__ = "(.*)"', (arguments.checkout / "src/transformers/__init__.py").read_text())[1]
    if there != version:
        parser.error(f"{arguments.checkout} is transformers {there}, installed is {version}: check out v{version}")
    missing = [name for name in ("parameterized", "httpx") if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"Hugging Face's tests need {' and '.join(missing)}: pip install {' '.join(missing)}")

    import pytest

    os.chdir(arguments.checkout)
    substitute = Substitute()
    pytest.main(
        [str(SUITE), "-q", "--tb=short", "-p", "no:cacheprovider", "-W", "ignore", *for_pytest], plugins=[substitute]
    )
    if not substitute.passed:
        print("no test ran")
        return 1
    return print_result(substitute)


def print_result(substitute: Substitute) -> int:
    """Print passes, refusals and failures; return the exit status."""
    refused = {
        test: reason for test in substitute.failed for tests, reason in REFUSED.items() if re.fullmatch(tests, test)
    }
    passed = substitute.passed - set(substitute.failed)
    failures = {test: message for test, message in substitute.failed.items() if test not in refused}
    print(f"\n{len(passed)} passed, {len(substitute.skipped)} skipped by Hugging Face's own conditions,")
    print(f"{len(refused)} refused, as docs/decisions.md lists:")
    for test, reason in refused.items():
        print(f"  {test}: {reason}")
    print(f"{len(failures)} failed")
    for test, message in failures.items():
        print(f"  {test}: {message}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
