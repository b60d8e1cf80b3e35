"""Fine-tune GPT-2, measure its inside at every checkpoint, and draw what changed."""

__version__ = "0.1.0"
