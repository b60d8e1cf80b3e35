"""Bad input is normal: one sentence on stderr, exit status not 0, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave is wrong. The message is one sentence: what is wrong and what to do."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; turn an `InputError` into one line and exit status 2, Ctrl-C into 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe left (`... | head`)
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
