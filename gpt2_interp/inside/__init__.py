"""Looking into a model and changing it for a moment: hooks, attention, losses, ablation, grafts, gradients."""
