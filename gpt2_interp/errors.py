"""Bad input is normal: one sentence on stderr, exit status not 0, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave is wrong. The message is one sentence: what is wrong and what to do."""


LESS_MEMORY = "shorten --max_source_length, use --activation_checkpointing or --tuning lora, or take a smaller model"
MEMORY_ADVICE = (
    "halve --per_device_train_batch_size and double --gradient_accumulation_steps, lower --per_device_eval_batch_size "
    f"or --probe_samples, {LESS_MEMORY}; --resume goes on from the last checkpoint."
)


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's, CUDA's (torch.OutOfMemoryError is a RuntimeError), MPS's and the CPU allocator's ways to say it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; turn an `InputError` into one line and exit status 2, Ctrl-C into 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(f"error: out of memory: {MEMORY_ADVICE}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe left (`... | head`)
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
