#!/usr/bin/env python
"""Train GPT-2 from random weights on a text, with nothing between you and PyTorch. Read it from top to bottom.

    python examples/train_from_scratch.py --train_file BOOK.txt --output_dir checkpoints/book
    python examples/train_from_scratch.py --train_file BOOK.txt --output_dir checkpoints/book --resume

text -> blocks of tokens -> shuffled batches -> loss -> gradients, added up -> clipped -> AdamW -> next learning rate

This is the Trainer of gpt2_summarization.py without all that is around it. From the same seed both draw the same random
weights and the same order of blocks, and have the same losses (a test holds them together), as long as there is no
dropout, whose random numbers they draw differently. Flags of the same name mean the same there; the others are

    python gpt2_summarization.py --run_name book --task creative_writing --text_unit document \\
        --implementation scratch --validation_file OTHER.txt --test_file OTHER.txt --tokenizer_name assets/tiny_gpt2 \\
        --config_name gpt2 --config_overrides n_layer=4,n_head=4,n_embd=128,n_positions=128 --resid_pdrop 0 \\
        --embd_pdrop 0 --train_sampling_strategy random --precision fp32 --lr_scheduler_type linear
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import argparse
import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from gpt2_interp.errors import InputError, run_script


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def flag(name: str, default, text: str) -> None:
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} ({default})")

    parser.add_argument("--train_file", required=True, help="plain text (.txt)")
    parser.add_argument("--validation_file", help="text to evaluate on (the last tenth of the blocks)")
    parser.add_argument("--output_dir", required=True, help="folder of the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --output_dir, if any")
    flag("tokenizer_name", str(Path(__file__).resolve().parents[1] / "assets" / "tiny_gpt2"), "folder with a tokenizer")
    flag("n_layer", 4, "blocks of the model")
    flag("n_head", 4, "heads of a block")
    flag("n_embd", 128, "numbers in the residual stream")
    flag("dropout", 0.0, "share of activations set to 0 while training")
    flag("block_size", 128, "tokens that the model sees at a time")
    flag("per_device_train_batch_size", 8, "blocks of a batch")
    flag("gradient_accumulation_steps", 2, "batches of an optimizer step")
    flag("max_steps", 400, "optimizer steps")
    flag("learning_rate", 1e-3, "highest learning rate")
    flag("warmup_steps", 20, "steps until it is reached")
    flag("weight_decay", 0.1, "each step shrinks matrices by this times the learning rate")
    flag("max_grad_norm", 1.0, "longer gradients are shortened to this")
    flag("logging_steps", 10, "steps between lines on the console")
    flag("save_steps", 100, "steps between checkpoints, each with an evaluation")
    flag("seed", 0, "what weights, order, dropout and sample text follow from")
    flag("prompt", "", "what the sample text begins with")
    settings = parser.parse_args()
    for name, value in vars(settings).items():
        at_least = {"seed": 0, "warmup_steps": 0, "block_size": 2}.get(name, 1)
        if type(value) is int and value < at_least:
            raise InputError(f"--{name} must be at least {at_least}.")
    if not (settings.learning_rate > 0 and settings.max_grad_norm > 0 and settings.weight_decay >= 0):
        raise InputError("--learning_rate and --max_grad_norm must be above 0, --weight_decay 0 or more.")
    if not 0 <= settings.dropout < 1:
        raise InputError("--dropout must be at least 0 and below 1.")
    if settings.n_embd % settings.n_head:
        raise InputError(f"--n_embd {settings.n_embd} is not a multiple of --n_head {settings.n_head}.")
    if not Path(settings.tokenizer_name).is_dir():
        raise InputError(f"--tokenizer_name {settings.tokenizer_name} is not a folder: give one with a tokenizer.")
    return settings


if __name__ == "__main__":
    run_script(parse_arguments)  # --help and mistakes don't wait for torch

import torch
import transformers
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config

from gpt2_interp.data.examples import IGNORED, cut_into_blocks
from gpt2_interp.data.local_files import records
from gpt2_interp.evaluation.losses import perplexity
from gpt2_interp.model.gpt2_from_scratch import ScratchGPT2LMHeadModel
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.training.progress import log_line

Block = list[int]  # the tokens that the model sees at a time, at most --block_size

# --- data ----------------------------------------------------------------------------------------------------------


def read_blocks(path: str, tokenizer, block_size: int) -> list[Block]:
    """Documents (what stands between <|endoftext|>, or the whole file), each ended by that token, cut into blocks."""
    if not path.endswith(".txt"):
        raise InputError(f"{path} is not a .txt file: give plain text.")
    blocks: list[Block] = []
    for _, record in records(Path(path), text_unit="document"):
        ids = tokenizer(record["text"], verbose=False)["input_ids"]
        blocks += cut_into_blocks([*ids, tokenizer.eos_token_id], block_size)
    return blocks


def optimizer_batches(blocks: list[Block], settings, step: int) -> Iterator[list[list[Block]]]:
    """The batches of each optimizer step after `step`. An epoch is once through all blocks, in an order that follows
    from seed and epoch alone: who resumes needs to know no more than the step."""
    size, accumulated = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    steps_an_epoch = math.ceil(math.ceil(len(blocks) / size) / accumulated)
    while True:
        epoch, done = divmod(step, steps_an_epoch)
        generator = torch.Generator().manual_seed(settings.seed + 1_000_003 * epoch)  # as trainer.EpochOrder
        order = torch.randperm(len(blocks), generator=generator)
        batches = [[blocks[i] for i in rows] for rows in order.split(size)]  # an epoch's last one may be smaller
        for first in range(done * accumulated, len(batches), accumulated):
            yield batches[first : first + accumulated]
            step += 1


def as_tensors(blocks: list[Block], device) -> tuple[torch.Tensor, torch.Tensor, int]:
    """input_ids [batch, longest]; labels, the same ids, of which position t is to predict t + 1; how many it predicts.

    A document's last block is shorter. Nothing is learned behind its end, and no token of it looks there, because
    attention only looks back: so there is no attention mask.
    """
    ids = [torch.tensor(block) for block in blocks]
    labels = pad_sequence(ids, batch_first=True, padding_value=IGNORED).to(device)
    return pad_sequence(ids, batch_first=True).to(device), labels, sum(len(block) - 1 for block in blocks)


# --- learning --------------------------------------------------------------------------------------------------------


def make_optimizer(model, settings):
    """AdamW (Loshchilov & Hutter 2019), and its learning rate: a straight line up while Adam's averages are young, then
    one down to 0. Weight decay pulls matrices towards 0, not biases and LayerNorms, which are vectors."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)  # fused: in one kernel

    def share(step: int) -> float:
        if step < settings.warmup_steps:
            return step / settings.warmup_steps
        return (settings.max_steps - step) / max(1, settings.max_steps - settings.warmup_steps)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def train_step(model, batches: list[list[Block]], optimizer, schedule, max_grad_norm: float) -> dict[str, float]:
    """Gradients of the batches add up, and must be those of one large batch: so each loss is divided by the tokens of
    all of them. A mean of the batches' mean losses would weigh a token more where a batch has few."""
    batches = [as_tensors(blocks, model.device) for blocks in batches]
    all_predictions = sum(predictions for _, _, predictions in batches)
    total = 0.0
    for input_ids, labels, _ in batches:
        loss = model(input_ids, labels=labels, num_items_in_batch=all_predictions).loss
        loss.backward()  # adds to what p.grad holds
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).item()  # what it was before
    if not math.isfinite(total + norm):
        raise InputError("the loss is no finite number any more: begin again with a lower --learning_rate.")
    rate = schedule.get_last_lr()[0]
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return {"loss": total, "grad_norm": norm, "learning_rate": rate}


@torch.no_grad()
def evaluate(model, blocks: list[Block], batch_size: int) -> dict[str, float]:
    """Loss over all tokens alike (nats/token), and its perplexity."""
    model.eval()  # no dropout
    total, all_predictions = 0.0, 0
    for first in range(0, len(blocks), batch_size):
        input_ids, labels, predictions = as_tensors(blocks[first : first + batch_size], model.device)
        total += model(input_ids, labels=labels, num_items_in_batch=1, use_cache=False).loss.item()  # by 1: the sum
        all_predictions += predictions
    model.train()
    return {"eval_loss": total / all_predictions, "eval_perplexity": perplexity(total / all_predictions)}


# --- checkpoints: all that the next step depends on ------------------------------------------------------------------


def save_checkpoint(folder: Path, model, tokenizer, history: list[dict], state: dict) -> None:
    """A folder has its name once it is complete, and only then the one before it goes: nothing is lost to a kill."""
    partial = folder.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))
    random = {"cpu": torch.get_rng_state(), "gpus": torch.cuda.get_rng_state_all()}  # dropout draws from it
    torch.save({**state, "random": random}, partial / "training_state.pt")
    partial.rename(folder)
    for older in set(folder.parent.glob("checkpoint-*")) - {folder}:
        shutil.rmtree(older)


def newest_checkpoint(output: Path) -> Path | None:
    return max(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), default=None)


def load_checkpoint(folder: Path, optimizer, schedule, kept: dict) -> list[dict]:
    """Restore everything but the weights; return what was logged until then."""
    state = torch.load(folder / "training_state.pt", map_location="cpu", weights_only=True)
    changed = [f"--{name}" for name in kept if state["settings"].get(name) != kept[name]]
    if changed:
        raise InputError(f"{folder} was made with other settings, and can't be gone on with: {', '.join(changed)}.")
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["random"]["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["random"]["gpus"])
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# --- all of it, in its order -----------------------------------------------------------------------------------------


def main() -> None:
    settings = parse_arguments()
    transformers.logging.disable_progress_bar()  # of reading and writing files
    output = Path(settings.output_dir)
    checkpoint = newest_checkpoint(output)
    if checkpoint and not settings.resume:
        raise InputError(f"{output} has a run in it: go on with --resume, or give another --output_dir.")

    tokenizer = load_tokenizer(settings.tokenizer_name)
    train = read_blocks(settings.train_file, tokenizer, settings.block_size)
    if settings.validation_file:
        held_out = read_blocks(settings.validation_file, tokenizer, settings.block_size)
    else:
        n = math.ceil(len(train) / 10)
        train, held_out = train[:-n], train[-n:]  # the end of the text
    if not train or not held_out:
        raise InputError("there is not a block of text to train on and one to hold out: give more text.")

    torch.manual_seed(settings.seed)
    config = GPT2Config(
        n_layer=settings.n_layer, n_head=settings.n_head, n_embd=settings.n_embd, n_positions=settings.block_size,
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        attn_pdrop=settings.dropout, resid_pdrop=settings.dropout, embd_pdrop=settings.dropout,
    )  # fmt: skip
    model = ScratchGPT2LMHeadModel.from_pretrained(checkpoint) if checkpoint else ScratchGPT2LMHeadModel(config)
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    optimizer, schedule = make_optimizer(model, settings)
    kept = {name: value for name, value in vars(settings).items() if name not in WITHOUT_EFFECT_ON_WEIGHTS}
    kept["train_file"] = hashlib.sha256(repr(train).encode()).hexdigest()  # what it says, not where it is
    history = load_checkpoint(checkpoint, optimizer, schedule, kept) if checkpoint else []
    first = history[-1]["step"] if history else 0
    print(
        f"{sum(map(len, train)):,} tokens in {len(train)} blocks, {len(held_out)} more held out; "
        f"{model.num_parameters():,} parameters, on {model.device}" + (f"; from {checkpoint}" if checkpoint else "")
    )

    started = time.perf_counter()
    for step, batches in enumerate(optimizer_batches(train, settings, first), first + 1):
        if step > settings.max_steps:
            break
        history.append({"step": step, **train_step(model, batches, optimizer, schedule, settings.max_grad_norm)})
        if step % settings.logging_steps == 0:
            left = (time.perf_counter() - started) / (step - first) * (settings.max_steps - step)
            print(log_line({**history[-1], "seconds_left": left}, step, settings.max_steps), flush=True)
        if step % settings.save_steps == 0 or step == settings.max_steps:
            history.append({"step": step, **evaluate(model, held_out, settings.per_device_train_batch_size)})
            print(log_line(history[-1], step, settings.max_steps), flush=True)
            checkpoint = output / f"checkpoint-{step}"
            state = {"settings": kept, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            save_checkpoint(checkpoint, model, tokenizer, history, state)

    print(f"weights, tokenizer and log are in {checkpoint}/; this is what it writes:\n")
    prompt = torch.tensor([tokenizer(settings.prompt)["input_ids"] or [tokenizer.eos_token_id]], device=model.device)
    torch.manual_seed(settings.seed)
    text = model.eval().generate(prompt, do_sample=True, top_p=0.9, max_length=settings.block_size)  # [1, length]
    print(tokenizer.decode(text[0], skip_special_tokens=True))


WITHOUT_EFFECT_ON_WEIGHTS = {"output_dir", "resume", "logging_steps", "save_steps", "validation_file", "prompt"}


if __name__ == "__main__":
    run_script(main)
