"""The terminal as commands write their tables to it."""

from typing import Any

from rich.console import Console

COLUMNS = 240  # of the widest table that has no names of runs in its head; a narrower terminal breaks its lines


def plain_console(**options: Any) -> Console:
    """A console to which brackets and colons in names, logs and replies are no markup."""
    return Console(markup=False, emoji=False, **options)


def wide_console() -> Console:
    """A console that cuts no cell of a table for want of room, in a narrow terminal and in a file."""
    console = plain_console(soft_wrap=True)
    console.width = max(console.width, COLUMNS)
    return console
