"""examples/train_from_scratch.py against the Trainer's own run, and against itself after a kill."""

import json
import math
import os
import runpy
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

from examples import train_from_scratch
from gpt2_interp.errors import InputError
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.run_paths import RunPaths
from tests.runs import FORKS
from tests.test_gpt2_summarization import run as run_trainer

BOOK, OTHER = "L_Frank_Baum_A_Kidnapped_Santa_Claus.txt", "Hans_Christian_Andersen_The_Little_Mermaid.txt"
# An epoch of 12 steps, the last of which has fewer batches, of which the last has fewer blocks.
SAME_FLAGS = [
    "--block_size=72", "--per_device_train_batch_size=4", "--gradient_accumulation_steps=3", "--max_steps=40",
    "--save_steps=15", "--learning_rate=3e-3", "--warmup_steps=5", "--weight_decay=0.1", "--max_grad_norm=0.8",
    "--logging_steps=1", "--seed=3",
]  # fmt: skip
TRAINER_FLAGS = [
    "--task=creative_writing", "--text_unit=document", "--implementation=scratch", "--config_name=gpt2",
    "--config_overrides=n_layer=2,n_head=2,n_embd=32,n_positions=72", "--resid_pdrop=0", "--embd_pdrop=0",
    "--train_sampling_strategy=random", "--precision=fp32", "--lr_scheduler_type=linear", "--use_cpu",
    "--probe_samples=8", "--measures=weights", "--samples_per_checkpoint=1", "--max_target_length=8",
]  # fmt: skip
SHAPE = ["--n_layer=2", "--n_head=2", "--n_embd=32"]


def run(*flags) -> None:
    argv, sys.argv = sys.argv, ["train_from_scratch.py", *map(str, flags)]
    try:
        train_from_scratch.main()
    finally:
        sys.argv = argv


def read_log(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- the Trainer's curve ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_losses_gradients_and_weights_are_the_trainers(real_data, toy_base, tmp_path):
    book, other = (real_data / "public_domain_books" / name for name in (BOOK, OTHER))
    files = [f"--train_file={book}", f"--validation_file={other}", f"--tokenizer_name={toy_base}"]
    run(*files, *SAME_FLAGS, *SHAPE, f"--output_dir={tmp_path / 'ours'}")
    assert run_trainer(
        *files, *SAME_FLAGS, *TRAINER_FLAGS, f"--test_file={other}", "--run_name=book", f"--root={tmp_path}"
    ) == 0  # fmt: skip
    blocks = len(train_from_scratch.read_blocks(str(book), load_tokenizer(str(toy_base)), 72))
    batches = -(-blocks // 4)
    assert blocks % 4 and batches % 3 and batches / 3 < 13, "more than three epochs, whose ends are no whole batches"

    paths = RunPaths("book", tmp_path)
    ours, theirs = read_log(tmp_path / "ours/checkpoint-40/log.jsonl"), read_log(paths.metrics / "training_log.jsonl")
    for name, steps in {
        "loss": range(1, 41), "grad_norm": range(1, 41), "learning_rate": range(1, 41),
        "eval_loss": [15, 30, 40], "eval_perplexity": [15, 30, 40],
    }.items():  # fmt: skip
        a, b = ({entry["step"]: entry[name] for entry in log if name in entry} for log in (ours, theirs))
        b.pop(0, None)  # the Trainer's script evaluates the base too
        assert list(a) == list(b) == list(steps)
        assert a == pytest.approx(b, rel=1e-5), name
    norms = [entry["grad_norm"] for entry in ours if "grad_norm" in entry]
    assert min(norms) < 0.8 < max(norms), "some gradients are clipped, some are not"
    assert ours[-1]["eval_loss"] < ours[15]["eval_loss"] < ours[0]["loss"] - 0.5
    folders = (tmp_path / "ours/checkpoint-40", paths.model_outputs / "final_model")
    a, b = (load_file(folder / "model.safetensors") for folder in folders)
    assert a.keys() == b.keys()
    for name in a:
        if name.endswith("c_attn.bias"):
            # A key's bias adds the same to all scores of a query, and softmax takes no notice: its gradient is nothing
            # but rounding, which Adam makes as large as any other.
            a[name][32:64] = b[name][32:64] = 0
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


# --- killed, and gone on with ----------------------------------------------------------------------------------------

SHORT = [
    *SHAPE, "--block_size=16", "--per_device_train_batch_size=3", "--max_steps=12", "--save_steps=4",
    "--warmup_steps=2", "--learning_rate=1e-2", "--dropout=0.2",
]  # fmt: skip


@pytest.fixture(scope="module")
def flags(toy_base, tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "boats.txt"
    lines = (f"Boat {i} lay in the street, and {i % 7} men asked for it." for i in range(40))
    text.write_text("\n<|endoftext|>\n".join(lines))
    return [f"--train_file={text}", f"--tokenizer_name={toy_base}", *SHORT]


@pytest.fixture(scope="module")
def straight(flags, tmp_path_factory):
    """The checkpoint of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    run(*flags, f"--output_dir={folder}")
    assert [path.name for path in folder.iterdir()] == ["checkpoint-12"], "older ones go"
    return folder / "checkpoint-12"


def _main(argv, function, count):
    """The script in a process that ends at the call number `count` of `function` as by a power cut."""
    owner, name = {"save": (torch, "save"), "step": (torch.optim.AdamW, "step")}[function]
    original, calls = getattr(owner, name), iter(range(1, count + 1))

    def counted(*args, **kwargs):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)
    sys.argv = argv
    runpy.run_path(train_from_scratch.__file__, run_name="__main__")


@pytest.mark.parametrize(
    ("function", "call", "left"),
    [
        ("step", 7, "checkpoint-4"),  # in the middle of step 7
        ("save", 2, "checkpoint-4"),  # while checkpoint-8 is written
        ("step", 2, None),  # before there is a checkpoint
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(flags, straight, tmp_path, function, call, left):
    argv = ["train_from_scratch.py", *flags, f"--output_dir={tmp_path}"]
    process = FORKS.Process(target=_main, args=(argv, function, call))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ([left] if left else [])
    run(*flags, f"--output_dir={tmp_path}", "--resume")
    resumed = tmp_path / "checkpoint-12"
    assert (resumed / "log.jsonl").read_text() == (straight / "log.jsonl").read_text()
    assert (resumed / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    ours, theirs = (torch.load(folder / "training_state.pt")["random"]["cpu"] for folder in (resumed, straight))
    assert torch.equal(ours, theirs)


def test_dropout_is_on_in_training_and_off_in_evaluation(flags, straight, tmp_path):
    run(*flags, "--dropout=0", "--max_steps=4", f"--output_dir={tmp_path}")
    without, with_it = read_log(tmp_path / "checkpoint-4/log.jsonl"), read_log(straight / "log.jsonl")
    assert without[0]["loss"] != with_it[0]["loss"] == pytest.approx(without[0]["loss"], rel=0.02)


def test_the_checkpoint_is_a_model_like_any_other(flags, straight, toy_base):
    """The last tenth of the blocks is held out, and Hugging Face's model has the loss that the log says."""
    model = GPT2LMHeadModel.from_pretrained(straight).eval()
    tokenizer = load_tokenizer(str(straight))
    blocks = train_from_scratch.read_blocks(flags[0].split("=")[1], tokenizer, 16)
    total = tokens = 0
    for block in blocks[-math.ceil(len(blocks) / 10) :]:
        ids = torch.tensor([block])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (len(block) - 1)
        tokens += len(block) - 1
    assert read_log(straight / "log.jsonl")[-1]["eval_loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_it_tells_how_it_goes_and_what_it_learned(flags, tmp_path, capsys):
    run(*flags, f"--output_dir={tmp_path}", "--max_steps=2", "--logging_steps=1", "--prompt=Boat 3", "--seed=1")
    output = capsys.readouterr().out
    assert "held out" in output and "step 1/2  loss " in output and "step 2/2  validation loss" in output
    sample = output.split("this is what it writes:\n\n")[1]
    assert sample.startswith("Boat 3") and len(sample) > 10
    run(*flags, f"--output_dir={tmp_path}", "--max_steps=2", "--prompt=Boat 3", "--seed=1", "--resume")  # finished
    again = capsys.readouterr().out
    assert "step" not in again.split("\n", 1)[1] and again.endswith(sample)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--n_head=3"], "--n_embd 32 is not a multiple of --n_head 3"),
        (["--gradient_accumulation_steps=0"], "--gradient_accumulation_steps must be at least 1"),
        (["--block_size=1"], "--block_size must be at least 2"),
        (["--learning_rate=nan"], "--learning_rate and --max_grad_norm must be above 0"),
        (["--dropout=1"], "--dropout must be"),
        (["--tokenizer_name=nowhere"], "--tokenizer_name nowhere is not a folder"),
        (["--train_file=rows.jsonl"], "rows.jsonl is not a .txt file"),
        (["--train_file=nowhere.txt"], "nowhere.txt does not exist"),
        (["--train_file={empty}"], "give more text"),
        (["--validation_file={empty}"], "give more text"),
        (["--train_file={one}"], "give more text"),
        (["--learning_rate=1e30", "--max_steps=4"], "lower --learning_rate"),
    ],
)
def test_bad_input_is_said(flags, tmp_path, more, words):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "one.txt").write_text("One block.")
    more = [flag.format(empty=tmp_path / "empty.txt", one=tmp_path / "one.txt") for flag in more]
    with pytest.raises(InputError, match=words):
        run(*flags, f"--output_dir={tmp_path / 'out'}", *more)
    assert not list(tmp_path.glob("out/checkpoint-*"))


def test_a_run_is_neither_overwritten_nor_gone_on_with_otherwise(flags, straight):
    before = (straight / "training_state.pt").read_bytes()
    with pytest.raises(InputError, match="has a run in it: go on with --resume"):
        run(*flags, f"--output_dir={straight.parent}")
    with pytest.raises(InputError, match="other settings.*--learning_rate, --seed"):
        run(*flags, f"--output_dir={straight.parent}", "--resume", "--seed=9", "--learning_rate=0.1")
    assert (straight / "training_state.pt").read_bytes() == before
