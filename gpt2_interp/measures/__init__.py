"""Pure measures: arrays in, arrays out; each has one row in `gpt2_interp.snapshots.store.MEASURES`."""
