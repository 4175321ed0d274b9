"""A run's folder while it is run: no other process is let in, and what happens to the folder is one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from envs.core.tokens import one_line
from marl_coop.runs.checkpoints import FULL, CheckpointError
from marl_coop.runs.rundir import LOCK, RunError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process out of a run while it is running; the lock dies with the process.

    Raises:
        RunError: another process runs it, or nothing can be locked there.
        CheckpointError: what runs in it meets a file of the folder that is gone, or cannot be read or written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"{str(folder)!r} is run by another process; wait for it, or stop it") from error
    except (OSError, NotImplementedError) as error:
        raise RunError(f"{str(folder)!r} cannot be kept from other processes: {one_line(error)}; mend this") from error
    try:
        yield
    except OSError as error:
        name = error.filename
        if error.errno in FULL or not isinstance(name, str | Path) or not _lies_in(Path(name), folder):
            raise
        raise CheckpointError(f"{str(folder)!r} cannot be used any longer: {one_line(error)}") from error
    finally:
        lock.release()


def _lies_in(file: Path, folder: Path) -> bool:
    return file.absolute().is_relative_to(folder.absolute())
