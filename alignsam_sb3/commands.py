"""How a command ends: in one line where something is the user's to mend, and in one that says where to go on after Ctrl-C."""

import sys
from collections.abc import Callable
from typing import Any

EXPECTED: tuple[type[Exception], ...] = (ValueError, OSError, ImportError, RuntimeError)
"""What is the user's to mend: said in one line, without a traceback."""
INTERRUPTED = 130  # as shells have it
GOES_ON = "what was written is whole, and the same command uses it"


def run_command(name: str, command: Callable[[], Any], debug: bool = False) -> int:
    """Run a command; its exit status.

    :param name: what stands before what is said
    :param debug: let errors through, with the place where they were raised
    """
    try:
        code = command()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; {GOES_ON}", file=sys.stderr)
        return INTERRUPTED
    except EXPECTED as error:
        if debug:
            raise
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0
