"""Whole test runs: any command in a copy of a directory, inside of bubblewrap.

The command sees the system's programs and libraries and this Python's folders read-only, empty folders for temporary
files, its copy of the directory at `/tree`, and nothing else: no other file, process or network. Where bubblewrap does
not work, a weaker tier of another name runs it, in the copy's own place.
"""

import contextlib
import functools
import json
import math
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envs.sandbox import kernel, tiers
from envs.sandbox.verdicts import Status

MAX_OUTPUT = 65_536  # bytes that are kept of what a command prints, and of each file that is read back

_HERE = Path(__file__).parent
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_SETTINGS = ("ld.so.cache", "alternatives", "localtime", "passwd", "group", "nsswitch.conf", "hosts", "ssl/openssl.cnf")
_TEMPORARY = 2**28  # bytes in /tmp, and as many in /dev/shm


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRun:
    """How a command ended in its copy of the tree. `output` is the end of what it printed on both streams.

    The command may have run submitted code, which can print anything, end with any exit code and write any file. So
    this says what happened to the process, and is no verdict on the code by itself.
    """

    status: Status  # OK: it ended by itself, whatever its exit code; TIMEOUT; FAULT: it could not be started
    exit_code: int | None  # negative: ended by that signal; None unless the status is OK
    output: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)  # of `read_back`, those that are plain files
    seconds: float
    tier: str


def run_in_tree(
    tree: Path,
    command: Sequence[str],
    *,
    timeout_s: float,
    memory_mb: int = 2048,
    processes: int = 256,
    file_mb: int = 256,
    readable: Sequence[Path] = (),
    read_back: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> TreeRun:
    """Run a command in a copy of a directory that is thrown away afterwards; the directory itself stays as it is.

    Args:
        tree: the directory to copy, symbolic links as links.
        command: a program, found as the sandbox sees it, and its arguments.
        timeout_s: wall time in seconds for everything that the command starts, above 0.
        memory_mb: address space in MiB of each process, at least 64.
        processes: how many there may be at once.
        file_mb: how large a file may become, in MiB.
        readable: more files and folders that the command may read, each at its own path.
        read_back: files to return, relative to the tree, at most 64 KiB of each. Links are not followed.
        environment: more variables; PATH, HOME, LANG, TMPDIR, PYTHONDONTWRITEBYTECODE and PYTHONHASHSEED are set.

    Raises:
        ValueError: a limit is out of its range, or there is no such directory.
        SandboxError: MARL_COOP_SANDBOX demands bubblewrap, which does not work here.
    """
    if not timeout_s > 0:
        raise ValueError(f"timeout_s is {timeout_s!r}; it must be above 0 seconds.")
    for name, value, least in (("memory_mb", memory_mb, 64), ("processes", processes, 1), ("file_mb", file_mb, 1)):
        if value < least:
            raise ValueError(f"{name} is {value!r}; it must be at least {least}.")
    if not tree.is_dir():
        raise ValueError(f"tree is {str(tree)!r}, which is no directory.")
    used = tier()
    with tempfile.TemporaryDirectory(prefix="marl-coop-", ignore_cleanup_errors=True) as place:
        copy = Path(place, "tree")
        shutil.copytree(tree, copy, symlinks=True)
