"""What makes a step faster or smaller, by its flag, against the plain way: the same losses."""

import pytest
from transformers import GPT2LMHeadModel

from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from tests.runs import Run

FLAGS = [
    "--dataset_name=synthetic_news", "--max_source_length=200", "--max_train_samples=32", "--max_eval_samples=8",
    "--max_predict_samples=2", "--probe_samples=8", "--max_target_length=24", "--max_steps=6", "--save_steps=3",
    "--logging_steps=1", "--learning_rate=1e-3", "--resid_pdrop=0", "--embd_pdrop=0",
    "--attn_pdrop=0", "--per_device_train_batch_size=4", "--gradient_accumulation_steps=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def logs(toy_base, tmp_path_factory):
    """logs(*flags) -> lines of training_log.jsonl of a run with these flags."""
    root = tmp_path_factory.mktemp("speed")
    base = root / "base"  # one block: compiling two takes twice as long
    GPT2LMHeadModel.from_pretrained(toy_base, n_layer=1).save_pretrained(base)
    load_tokenizer(str(toy_base)).save_pretrained(base)
    found = {}

    def log(*flags):
        if flags not in found:
            name = f"run{len(found)}"
            run = Run(root, base, name, FLAGS)
            assert run.finish(run.start(*flags), timeout=200) == 0, run.output
            found[flags] = SnapshotStore(RunPaths(name, root)).read_log()
        return found[flags]

    return log


def values(log, key):
    return [line[key] for line in log if key in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "tolerance"),
    [
        (["--activation_checkpointing"], 1e-5),
        (["--optim=adamw_torch"], 1e-4),
        (["--train_sampling_strategy=random"], None),  # other batches: that the comparison can fail
        (["--precision=bf16"], 1e-3),
        (["--torch_compile_mode=default"], 1e-4),
    ],
    ids=str,
)
def test_the_losses_are_those_of_the_plain_way(logs, flags, tolerance):
    plain, fast = logs("--precision=fp32"), logs("--precision=fp32", *flags)
    for key in ("loss", "grad_norm", "eval_loss"):
        a, b = values(plain, key), values(fast, key)
        assert len(a) == len(b) >= 2
        if tolerance is None:
            assert key != "loss" or a != pytest.approx(b, rel=1e-3)
        else:
            assert a == pytest.approx(b, rel=tolerance if key != "grad_norm" else 10 * tolerance), key
