"""Fine-tune GPT-2, measure its inside at every checkpoint, and draw what changed."""

__version__ = "0.1.0"
__all__ = ["open_run"]


def __getattr__(name: str):
    """Import `open_run` when it is first asked for: the package itself stays light to import."""
    if name == "open_run":
        from gpt2_interp.analysis.measurements import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
