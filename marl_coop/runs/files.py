"""Files that are whole or not there: a run that is killed, or a disk that is full, leaves no half of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def replaced(file: Path) -> Iterator[TextIO]:
    """A file beside `file` to write, which takes its place at the end; whatever stops it, the old one stays."""
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with unfinished.open("w", encoding="utf-8") as out:
            yield out
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(file: Path, text: str) -> None:
    """Write a text into a file; whatever stops it, the old one stays."""
    with replaced(file) as out:
        out.write(text)
