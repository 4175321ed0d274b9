"""The terminal as a run writes to it."""

import errno
import sys
from typing import NoReturn

from rich.console import Console


class _RunConsole(Console):
    def on_broken_pipe(self) -> NoReturn:
        """rich's own would end the run without a word."""
        raise BrokenPipeError(errno.EPIPE, "nobody reads what is printed any longer")


def run_console(quiet: bool) -> Console:
    """A console whose tables are never cut, and lines never broken.

    Its `print` raises BrokenPipeError where what reads the output has ended.
    """
    console = _RunConsole(file=sys.stdout, quiet=quiet, soft_wrap=True, markup=False, emoji=False)
    console.width = max(console.width, 112)  # of the table; a line of text is never broken
    return console
