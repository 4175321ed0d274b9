"""The terminal as commands write their tables to it."""

from rich.console import Console

COLUMNS = 150  # of the widest table that has no names of runs in its head; a narrower terminal breaks its lines


def wide_console() -> Console:
    """A console that cuts no cell of a table for want of room, in a narrow terminal and in a file."""
    console = Console(soft_wrap=True)
    console.width = max(console.width, COLUMNS)
    return console
