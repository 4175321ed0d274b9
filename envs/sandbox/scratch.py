"""A folder for a run of submitted code, and its removal whatever the code has made of it."""

import contextlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch(prefix: str = "marl-coop-") -> Iterator[Path]:
    """A new folder where temporary files go, removed at the end. What resists that is a line of the log, no error.

    Raises:
        OSError: it cannot be made.
    """
    place = tempfile.mkdtemp(prefix=prefix)
    try:
        yield Path(place)
    finally:
        try:
            shutil.rmtree(place)
        except (OSError, RecursionError):  # a thousand folders in each other; one that is closed to its owner
            for words in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
                subprocess.run([*words, "--", place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if os.path.lexists(place):
                logging.getLogger("envs.sandbox").warning("%s could not be removed: remove it", place)
