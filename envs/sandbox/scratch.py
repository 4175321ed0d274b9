"""Folders for temporary files: removed whatever submitted code has made of them, and those of killed processes too."""

import contextlib
import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "marl-coop-held-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new folder where temporary files go, removed at the end. What resists that is a line of the log, no error.

    Raises:
        OSError: it cannot be made.
    """
    place, holder = held_folder()
    try:
        yield place
    finally:
        give_back(place, holder)


def held_folder(parent: Path | None = None) -> tuple[Path, int]:
    """A new folder, where temporary files go unless a parent is given, and a descriptor that keeps it for this process.

    The descriptor has the folder's lock (flock). The kernel gives it back with the process, however that ends, so there
    are no process ids that may be another's, and `remove_abandoned` sees it from another container too.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        place = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        with contextlib.suppress(FileNotFoundError):  # that was quicker than the lock
            holder = os.open(place, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks, where `remove_abandoned` gets none either
                fcntl.flock(holder, fcntl.LOCK_EX)
            if os.path.lexists(place):
                return Path(place), holder
            os.close(holder)


def give_back(place: Path, holder: int) -> None:
    """Remove a held folder, and then let go of it."""
    remove(place)
    os.close(holder)


def remove_abandoned() -> None:
    """Remove the folders of killed processes of this user, where temporary files go."""
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is in use, another user's, no folder, or has gone in the meantime
            holder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(holder).st_uid == os.geteuid():
                    fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(place)
            finally:
                os.close(holder)


def remove(place: Path) -> None:
    """Remove a folder, whatever is in it; what resists is a line of the log."""
    try:
        shutil.rmtree(place)
    except (OSError, RecursionError):  # a thousand folders in each other; one that is closed to its owner
        for words in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*words, "--", place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if os.path.lexists(place):
            logging.getLogger("envs.sandbox").warning("%s could not be removed: remove it", place)
