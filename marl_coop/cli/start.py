"""The start of the command line: from here on Ctrl-C and SIGTERM are one line and exit code 130.

What a command needs takes a second to load, so it is loaded here and not before.
"""

import os
import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from marl_coop.cli.entry import run_command

        return run_command(sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":  # of several processes, the first says the line
            print("stopped", file=sys.stderr)
        return 130
