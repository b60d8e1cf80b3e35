"""The Trainer, sealed checkpoints, resuming, memory and pace."""
