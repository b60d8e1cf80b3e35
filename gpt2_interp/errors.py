"""Bad input is normal: one sentence on stderr, exit status not 0, no traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

# Characters that would change a terminal (an escape sequence can clear it or set its title), each as its number.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class InputError(Exception):
    """An error in what the user gave. The message is one sentence: what is wrong and what to do."""


LESS_MEMORY = "shorten --max_source_length, use --activation_checkpointing or --tuning lora, or take a smaller model"


class DiskFullError(InputError):
    """An error for what does not fit the disk; nothing written earlier is touched."""

    def __init__(self, what: str, advice: str | None = None):
        super().__init__(f"disk is full while {what}: {advice or DISK_ADVICE}")


class Interrupted(KeyboardInterrupt):
    """A signal stopped training after everything was saved; the message says how to go on.

    A KeyboardInterrupt, so that no `except Exception` on the way mistakes it for a failure.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number  # what a shell reports: 130 for SIGINT, 143 for SIGTERM


MEMORY_ADVICE = (
    "halve --per_device_train_batch_size and double --gradient_accumulation_steps, lower --per_device_eval_batch_size "
    f"or --probe_samples, {LESS_MEMORY}; --resume goes on from the last checkpoint."
)
DISK_ADVICE = "earlier checkpoints are intact; free some space and go on with --resume."

# How torch.save (a RuntimeError of its zip writer) and safetensors (an error of its own) say what errno says.
DISK_FULL_WORDS = (
    "no space left on device",
    "disk quota exceeded",
    "file too large",
    "pytorchstreamwriter failed writing",
    "unexpected pos",
    "iostream error",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means too little memory, as Python, CUDA (torch.OutOfMemoryError is a RuntimeError), MPS
    or the CPU allocator report it."""
    text = str(error).lower()
    is_memory_error = isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    return isinstance(error, MemoryError) or is_memory_error


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error means no space, no quota, or a file beyond the size allowed, as Python, torch and
    safetensors report it."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(words in str(error).lower() for words in DISK_FULL_WORDS)


_full_in_threads: list[BaseException] = []


def _thread_failed(failure) -> None:
    """Take the place of threading.excepthook: keep a full disk for `raise_full_disk_of_threads`, show anything else."""
    if is_disk_full(failure.exc_value):
        _full_in_threads.append(failure.exc_value)
    else:
        threading.__excepthook__(failure)


def raise_full_disk_of_threads() -> None:
    """Raise the full disk that a thread met, before it is too late: TensorBoard writes in threads, and closing it hides
    what failed there."""
    if _full_in_threads:
        raise _full_in_threads.pop()


_in_main = False


def leave_at_ctrl_c() -> None:
    """Let Ctrl-C end a script's imports without a traceback; call first, before anything else is imported.

    A KeyboardInterrupt in an import can come out as any other error: C code that imports turns it into its own.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where Ctrl-C is ignored, as by nohup
        signal.signal(signal.SIGINT, _at_ctrl_c)


def _at_ctrl_c(_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt in a script's `main`; leave at once before it and in every import, with status 130."""
    is_import = not _in_main
    while frame is not None and not is_import:
        is_import = frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    if not is_import:
        raise KeyboardInterrupt
    with contextlib.suppress(Exception):  # what was printed; the stream may be closed, or be in use just now
        sys.stdout.flush()
    os.write(2, b"interrupted\n")
    os._exit(130)


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; turn an `InputError`, a full memory or disk, or a file that can't be used into one line
    and exit status 2, Ctrl-C into 130."""
    global _in_main
    _in_main, was_in_main = True, _in_main
    hook, threading.excepthook = threading.excepthook, _thread_failed
    try:
        main()
    except InputError as error:
        _fail(str(error), 2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe left (`... | head`)
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if is_out_of_memory(error):
            _fail(f"out of memory: {MEMORY_ADVICE}", 2)
        if is_disk_full(error):
            place = getattr(error, "filename", None) or "its results"
            _fail(str(DiskFullError(f"writing {place}")), 2)
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            _fail(f"{error.filename} can't be used: {error.strerror}; check the path and who may use it.", 2)
        raise
    finally:
        threading.excepthook = hook
        _in_main = was_in_main


def _fail(message: str, status: int) -> None:
    print(f"error: {message.translate(CONTROLS)}", file=sys.stderr)
    sys.exit(status)


def first_line(error: Exception) -> str:
    """Return the first line that holds anything, with the next one if it ends in a colon, 200 characters at most,
    without its full stop; else the error's kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
    return words[:200].rstrip(".")
