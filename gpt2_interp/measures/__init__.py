"""Functions from arrays or weights to numbers; `gpt2_interp.snapshots.table` has a row for each number."""
