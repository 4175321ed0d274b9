"""The start of the command line: from here on Ctrl-C, SIGTERM and SIGHUP are one line and exit code 130.

What a command needs takes a second to load, so it is loaded here and not before.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence

from marl_coop.stops import STOPPED, hear_stops


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    hear_stops()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: no terminal is too poor for a table's marks
    try:
        from marl_coop.cli.entry import run_command

        return run_command(sys.argv[1:] if argv is None else list(argv))
    except SystemExit as stop:
        if stop.code == STOPPED:  # a run, which has said how to go on
            _end_at_once_if_asked_again()
        raise
    except KeyboardInterrupt:
        _end_at_once_if_asked_again()
        if os.environ.get("RANK", "0") == "0":  # of several processes, the first says the line
            print("stopped", file=sys.stderr)
        return STOPPED


def _end_at_once_if_asked_again() -> None:
    """Another Ctrl-C would be a traceback of a process that is ending; where that waits for something, it helps."""
    sys.stdout.flush()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os._exit(STOPPED))
