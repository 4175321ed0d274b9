"""The start of the command line: from here on Ctrl-C, SIGTERM and SIGHUP are one line and exit code 130.

What a command needs takes a second to load, so it is loaded here and not before.
"""

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence

from marl_coop.stops import STOPPED, hear_stops


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""

    def command() -> int:
        from marl_coop.cli.entry import run_command

        return run_command(sys.argv[1:] if argv is None else list(argv))

    return _until_stopped(command)


def run_script(work: Callable[[], int | None]) -> int:
    """Run the work of a script, as those of benchmarks/ are, and return its exit code: what stops it is told as a
    command tells it."""

    def script() -> int:
        from marl_coop.cli.entry import told_in_one_line

        return told_in_one_line(lambda: work() or 0)

    return _until_stopped(script)


def _until_stopped(work: Callable[[], int]) -> int:
    hear_stops()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: no terminal is too poor for a table's marks
    try:
        return work()
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
