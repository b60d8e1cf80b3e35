"""Your own Hugging Face Trainer, with snapshots: a whole program. The three lines that matter are marked.

    python examples/record_any_trainer.py
    python visualize_metrics.py --run_name my_trainer          figures and the report, without the model

It trains the embedded base for a minute on sentences of its own. The recorder measures step 0 and every checkpoint on
examples that are not trained on, and leaves weights, optimizer, random numbers and loss exactly as they would be.
"""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", default=".", help="folder that holds the output folders (default: .)")
parser.add_argument("--max_steps", type=int, default=40, help="optimizer steps (default: 40)")
arguments = parser.parse_args()

from transformers import (  # after --help, which need not wait for it
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

REPOSITORY = Path(__file__).resolve().parents[1]
from gpt2_interp.data.examples import Example
from gpt2_interp.probes.choose import choose_probes
from gpt2_interp.recording.recorder import SnapshotRecorder
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore

# --- your model, your data --------------------------------------------------------------------------------------
base = REPOSITORY / "assets" / "tiny_gpt2"
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
PEOPLE, PLACES = ("The mayor", "A nurse", "The baker", "A pilot"), ("Oslo", "the harbour", "an old mill", "the school")
texts = [
    f"{who} found {count} letters in {where} on Monday. Nobody knew who had written them."
    for who in PEOPLE
    for where in PLACES
    for count in range(2, 40)
]
ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
held_out, trained = ids[::10], [row for i, row in enumerate(ids) if i % 10]

# --- 1. the probes: examples `source | template | target` that are not trained on; plain text is all target ---------
probes = choose_probes([Example(f"text {i}", f"text {i}", (), (), tuple(row)) for i, row in enumerate(held_out)])

# --- 2. the recorder: where snapshots go, and what they measure ---------------------------------------------------
recorder = SnapshotRecorder(SnapshotStore(RunPaths("my_trainer", arguments.root)), probes, tokenizer=tokenizer)

trainer = Trainer(
    model,
    TrainingArguments(
        output_dir=str(Path(arguments.root) / "checkpoints" / "my_trainer"),
        max_steps=arguments.max_steps,
        save_steps=10,
        logging_steps=5,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        report_to="none",
    ),
    train_dataset=[{"input_ids": row} for row in trained],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    callbacks=[recorder],  # --- 3. the rest is your Trainer
)
trainer.train()
