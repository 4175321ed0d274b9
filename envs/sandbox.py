"""Runs code that a model wrote, in a process of its own, and says which expressions on it are true.

What it does: a fresh isolated interpreter per call (`-I -S -B`) in its own session, an empty environment, a temporary
working directory; limits on CPU time, wall time, address space, file size (0), processes (0), open files and core
dumps; an audit hook that refuses processes, sockets, signals, writing and removing files; the whole process group is
killed at the end. The verdict comes back over a pipe that is not the code's stdout, after a nonce that the code was
never given, so printing or exiting early cannot forge it. Code that hangs, crashes or exits fails all its tests.

What it does not cover, and a container must: code that rewrites the interpreter from inside (patches `builtins`,
walks frames to the nonce, a bug in CPython); reading files that the user may read; side channels in time; and, for
root, the limit on processes, which the kernel does not apply to root (the audit hook still refuses `fork`). Linux and
other POSIX systems only.
"""

import functools
import marshal
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from envs import sandbox_child

_CHILD = Path(__file__).with_name("sandbox_child.py")
_START_S = 20.0  # an interpreter that has not started by then is a fault of the machine


class Status(StrEnum):
    OK = "ok"
    TIMEOUT = "timeout"  # the code ran past its time
    MEMORY = "memory"  # the code asked for more memory than it may have
    CRASH = "crash"  # the process ended without a verdict: exit, segmentation fault, a forged one
    FAULT = "fault"  # infrastructure: the interpreter did not start; nobody's failure


class Part(NamedTuple):
    """One seat's source text and the one name that the merged module takes from it."""

    name: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`passed` has one value per expression, in order; all are False unless the status is OK or MEMORY."""

    passed: tuple[bool, ...]
    status: Status
    detail: str = ""


class _NotRepeatable(Exception):
    """Carries a verdict past the cache: how long something took on a busy machine need not happen again."""

    def __init__(self, verdict: Verdict):
        super().__init__(verdict)
        self.verdict = verdict


def run_expressions(
    parts: tuple[Part, ...], expressions: tuple[str, ...], *, timeout_s: float = 2.0, memory_mb: int = 256
) -> Verdict:
    """Run each part, hand its one name over, evaluate each expression on the names; True only where it is `True`.

    A part that fails (syntax error, exception) leaves the others usable; an expression that raises is False.
    Expressions may use `same(x, y)`: equal in value and type, which an object with its own `==` cannot fake.
    Verdicts are cached by content, except time-outs and faults. About 20 ms a call.

    Args:
        parts: what the seats wrote.
        expressions: Python expressions on the parts' names.
        timeout_s: wall time in seconds for all of it, from the moment the interpreter is ready; above 0.
        memory_mb: address space in MiB, at least 64.

    Raises:
        ValueError: a limit is out of its range.
    """
    if not timeout_s > 0:
        raise ValueError(f"timeout_s is {timeout_s!r}; it must be above 0 seconds.")
    if memory_mb < 64:
        raise ValueError(f"memory_mb is {memory_mb!r}; an interpreter needs at least 64 MiB.")
    try:
        return _run(tuple(parts), tuple(expressions), timeout_s, memory_mb)
    except _NotRepeatable as result:
        return result.verdict


@functools.lru_cache(maxsize=4096)
def _run(parts: tuple[Part, ...], expressions: tuple[str, ...], timeout_s: float, memory_mb: int) -> Verdict:
    failed = (False,) * len(expressions)
    nonce = secrets.token_bytes(16)
    cpu_s = math.ceil(timeout_s) + 1
    request = (nonce, cpu_s, memory_mb * 2**20, tuple(map(tuple, parts)), expressions)
    with tempfile.TemporaryDirectory(prefix="marl-coop-") as folder:
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={},
                start_new_session=True,
            )
        except OSError as error:
            raise _NotRepeatable(Verdict(passed=failed, status=Status.FAULT, detail=str(error))) from error
        try:
            started, answer, timed_out = _talk(child, marshal.dumps(request), 17 + len(expressions), timeout_s)
        finally:
            os.killpg(child.pid, signal.SIGKILL)  # before wait: until then the group exists
            child.stdin.close()
            child.stdout.close()
            child.wait()
    if not started:
        detail = f"the interpreter {sys.executable} ended or hung before the code ran (exit {child.returncode})"
        raise _NotRepeatable(Verdict(passed=failed, status=Status.FAULT, detail=detail))
    if timed_out:
        raise _NotRepeatable(Verdict(passed=failed, status=Status.TIMEOUT, detail=f"over {timeout_s} s"))
    if len(answer) != 17 + len(expressions) or answer[:16] != nonce:
        return Verdict(passed=failed, status=Status.CRASH, detail="the process ended without a verdict")
    status = Status.MEMORY if answer[16] else Status.OK
    return Verdict(passed=tuple(byte == 1 for byte in answer[17:]), status=status)


def _talk(child: subprocess.Popen, request: bytes, size: int, timeout_s: float) -> tuple[bool, bytes, bool]:
    """Send the request; (did it start, at most size + 1 bytes of its answer, did it run out of time)."""
    try:
        child.stdin.write(request)
        child.stdin.close()
    except BrokenPipeError:
        return False, b"", False
    fd = child.stdout.fileno()
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    started, answer = False, b""
    deadline = time.monotonic() + _START_S
    while len(answer) <= size:
        wait_ms = 1000 * (deadline - time.monotonic())
        if wait_ms <= 0 or not poller.poll(wait_ms):
            return started, answer, started
        chunk = os.read(fd, 1 if not started else size + 1 - len(answer))
        if not chunk:
            break
        if started:
            answer += chunk
        else:
            started = chunk == sandbox_child.READY
            deadline = time.monotonic() + timeout_s
    return started, answer, False
