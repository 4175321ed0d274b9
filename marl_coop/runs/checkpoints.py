"""Checkpoints on disk, each of them whole or not there.

One is written aside, in `.unfinished/`. Once all processes have written their parts it gets a manifest, the size and
the digest of every file, and is renamed to `checkpoint-<step>`: whatever stops a run, no folder of that name is half
written. What damages one later is found by its manifest. The adapters of a finished run are written aside too.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from typing_extensions import TypedDict

from envs.core.tokens import one_line

ASIDE, MANIFEST = ".unfinished", "manifest.json"
BEST = "best.json"  # in the folder of a run: which checkpoint had the best evaluation while it trained
CRITICS = "critics.safetensors"  # of a whole policy: it is written last
NEEDED = (CRITICS, "trainer_state.json", "optimizer.pt", "scheduler.pt")  # without which a run would go on otherwise
RESULTS = "results.json"  # in the folder of a run: what came of it, which it writes last
END = (CRITICS, "after.jsonl", RESULTS)  # of a run: what it comes to where it ends
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk, a quota and a limit of the shell say


class CheckpointError(OSError):
    """Something in the folder of a run that could not be written or read; the text is one line that says why."""


class Best(TypedDict):
    """The checkpoint with the best evaluation while a run trained, after which update that was, and by which metric."""

    checkpoint: str
    update: int
    metric: str
    value: float


_BEST = TypeAdapter(Best)


def all_checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint of a run by its step, whole or damaged."""
    return sorted((path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()), key=step_of)


def whole_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run that it can go on from, by their steps."""
    return [path for path in all_checkpoints(folder) if flaw(path) is None]


def has_ended(folder: Path) -> bool:
    """Whether the run said what came of it."""
    return (folder / RESULTS).is_file()


def best_checkpoint(folder: Path) -> Best | None:
    """The best checkpoint of a run by its `best.json`; None: no evaluation while it trained gave a value.

    Raises:
        CheckpointError: the file cannot be read.
    """
    file = folder / BEST
    if not file.is_file():
        return None
    try:
        return _BEST.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{str(file)!r} cannot be read: remove it, and no checkpoint is the best") from error


def step_of(checkpoint: Path) -> int:
    """Optimisation steps that made a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def flaw(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None: it is whole."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        for name in sorted({*NEEDED, *manifest}):
            file = checkpoint / name
            if name not in manifest or not file.is_file():
                return f"{name} is missing"
            if (size := file.stat().st_size) != manifest[name]["bytes"]:
                return f"{name} has {size} bytes, not {manifest[name]['bytes']}"
            if _digest(file) != manifest[name]["sha256"]:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return f"it cannot be read: {one_line(error)}"
    return None


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Make one kind of error of what stops something from being written.

    Raises:
        CheckpointError: Python, torch or safetensors could not write, each with a word of its own for a full disk.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = one_line(error)
        raise CheckpointError(
            f"{what} could not be written in {str(folder)!r}: {reason}. Mend this; earlier checkpoints are whole."
        ) from error


def publish(unfinished: Path, folder: Path, limit: int | None, keep: int | None = None) -> None:
    """Make a checkpoint that is written one of the run's, then drop the oldest.

    Args:
        unfinished: the checkpoint, aside.
        folder: the run's.
        limit: the last checkpoints, so many, are kept; None: all.
        keep: step of one that is kept whatever its age.

    Raises:
        OSError: it is not whole, or cannot be made so.
    """
    manifest = {}
    for file in sorted(path for path in unfinished.rglob("*") if path.is_file()):
        _to_disk(file)
        manifest[str(file.relative_to(unfinished))] = {"bytes": file.stat().st_size, "sha256": _digest(file)}
    (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _to_disk(unfinished / MANIFEST)
    if problem := flaw(unfinished):
        raise OSError(problem)
    place = folder / unfinished.name
    if place.exists():  # damaged, or of an earlier way from the checkpoint where this run was resumed
        drop(place)
    unfinished.rename(place)
    _to_disk(folder)
    if limit:
        for oldest in all_checkpoints(folder)[:-limit]:
            if step_of(oldest) != keep:
                drop(oldest)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A folder aside to write adapters and critics in, which at the end take the places of those in `folder`.

    Whatever stops it, each adapter in `folder` is whole, and critics are there only where all is of one policy.
    """
    unfinished = folder / ASIDE
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    unfinished.mkdir(parents=True)
    yield unfinished
    adapters = sorted(path for path in unfinished.iterdir() if path.is_dir())
    for file in filter(Path.is_file, unfinished.rglob("*")):
        _to_disk(file)
    (folder / CRITICS).unlink(missing_ok=True)
    _to_disk(folder)
    for adapter in adapters:
        place = folder / adapter.name
        if place.exists():
            drop(place)
        adapter.rename(place)
    _to_disk(folder)
    (unfinished / CRITICS).rename(folder / CRITICS)
    _to_disk(folder)
    shutil.rmtree(unfinished)


def set_aside(place: Path) -> Path:
    """Give a checkpoint, or a file of a run, a name under which nothing reads it, and return that."""
    numbers = (f".superseded-{n}" for n in count(1))
    return place.rename(next(p for p in map(place.with_suffix, numbers) if not p.exists()))


def set_later_aside(folder: Path, checkpoint: Path) -> Iterator[str]:
    """A line of each checkpoint after the one where a run goes on, which makes them anew: it is set aside."""
    for later in all_checkpoints(folder):
        if step_of(later) > step_of(checkpoint):
            why = flaw(later) or "it comes after"
            yield f"{later.name} is now {set_aside(later).name}, {why}: the run goes on from {checkpoint.name}"


def set_end_aside(folder: Path) -> Iterator[str]:
    """A line of each file that says that a run has ended, which is to go on: it is set aside."""
    for file in (path for path in (folder / name for name in END) if path.exists()):
        yield f"{file.name} is now {set_aside(file).name}: the run had ended, and goes on"


def drop(place: Path) -> None:
    """Delete a checkpoint or an adapter in a way that leaves no part of it under its name."""
    aside = place.parent / ASIDE / f"dropped-{place.name}"
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    place.rename(aside)
    shutil.rmtree(aside)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
