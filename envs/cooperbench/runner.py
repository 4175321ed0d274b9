"""One run of pytest on a tree of files, in isolation, and what it reported of each test.

What a run reports is a claim and no verdict: code under test lives in the process that reports. `grading` says how a
claim becomes evidence.

Isolation, chosen by the caller and named in every report:

- `bubblewrap`: the run sees the system's libraries, its Python, its tree and nothing else (no home, no dataset, no
  other run), read-only but for /tmp and its own copy of the tree; no network, own process ids, ended with us.
- `docker`: the same in the task's image, for the machines that have an engine.
- `none`: a plain process of this user. It can read the dataset and change the cache: only for code that you trust.

Each run has limits on memory, size of files, wall time. Not covered: a hole in the kernel, side channels in time.
"""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

from envs.sandbox import bubblewrap

CHILD = Path(__file__).with_name("pytest_child.py")
INSIDE = "/workspace/repo"  # where a run finds its tree, as in the benchmark's images
_REPORT_BYTES = 32 * 2**20


class Isolation(StrEnum):
    BUBBLEWRAP = "bubblewrap"
    DOCKER = "docker"
    NONE = "none"


class IsolationError(RuntimeError):
    """This machine cannot isolate runs in the way that was asked for; the message has the remedy."""


class RunStatus(StrEnum):
    OK = "ok"  # pytest came to its end
    TIMEOUT = "timeout"
    CRASH = "crash"  # the process ended before pytest did: an exit, a kill, a failed import of pytest
    FAULT = "fault"  # infrastructure: the process did not start; nobody's failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run claims: `passed` and `failed` test ids; a skipped or expectedly failing test is in neither."""

    status: RunStatus
    passed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    isolation: Isolation
    seconds: float = 0.0
    detail: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where tests run: a Python with the task's dependencies, and what must be readable beside it.

    `roots` are folders of the tree, relative, that go on the module path; `environ` is the whole environment of a run
    but for what this module sets. `built` is a folder of files that building added to the tree (compiled modules).
    `image` is the image of a docker run.
    """

    python: Path
    roots: tuple[str, ...] = ("",)
    built: Path | None = None
    readable: tuple[Path, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    image: str = ""


def best_isolation() -> Isolation:
    """Bubblewrap where it works, else docker where an engine answers.

    Raises:
        IsolationError: neither works here.
    """
    for isolation in (Isolation.BUBBLEWRAP, Isolation.DOCKER):
        if not _lacks(isolation):
            return isolation
    raise IsolationError(
        f"Submitted code cannot be isolated here: {_lacks(Isolation.BUBBLEWRAP)}; {_lacks(Isolation.DOCKER)}. "
        "Install bubblewrap (Debian: apt-get install bubblewrap), or say isolation='none' for code that you trust."
    )


@cache
def _lacks(isolation: Isolation) -> str:
    """Why a way of isolation does not work here; "" where it does."""
    if isolation is Isolation.NONE:
        return ""
    name = {Isolation.BUBBLEWRAP: "bwrap", Isolation.DOCKER: "docker"}[isolation]
    if (bubblewrap.program() if isolation is Isolation.BUBBLEWRAP else shutil.which(name)) is None:
        return f"{name} is not installed"
    docker = ["docker", "version", "--format", "{{.Server.Version}}"]
    probe = docker if isolation is Isolation.DOCKER else [*bubblewrap.command_line((), {}), "true"]
    result = subprocess.run(probe, capture_output=True, text=True)
    return f"{name}: {result.stderr.strip()}" if result.returncode else ""


def run_tests(
    tree: Path,
    targets: Sequence[str],
    place: Place,
    *,
    isolation: Isolation,
    timeout_s: float = 120.0,
    memory_mb: int = 8192,
) -> Report:
    """Run test files of a tree.

    Args:
        tree: a folder that nothing else uses: the run may write to it.
        targets: paths of test files in the tree.
        place: see `Place`.
        isolation: see the top of this file.
        timeout_s: wall time in seconds, above 0.
        memory_mb: address space in MiB.

    Raises:
        IsolationError: the isolation does not work on this machine.
        OSError: the machine has no room for what it prints, or for a process.
    """
    if lack := _lacks(isolation):
        raise IsolationError(f"isolation={isolation.value!r} does not work here: {lack}.")
    around, command, environ, cwd = _command(isolation, tree, place, targets, timeout_s, memory_mb)
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        options = {"stdout": subprocess.PIPE, "stderr": log, "cwd": cwd, "env": environ}
        with bubblewrap.running(around, command, **options) as process:
            claims, timed_out = _listen(process, started + timeout_s)
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
        detail = log.read().decode(errors="replace")
    return _report(claims.decode(errors="replace"), timed_out, isolation, time.monotonic() - started, detail)


def _listen(process: subprocess.Popen, deadline: float) -> tuple[bytes, bool]:
    """What the run says until it ends, and whether it ran out of time; at most 32 MiB, more is a flood and ends it."""
    assert process.stdout is not None  # a pipe was asked for
    channel, poller = process.stdout.fileno(), select.poll()
    poller.register(channel, select.POLLIN | select.POLLHUP)
    claims = bytearray()
    while len(claims) < _REPORT_BYTES:
        if time.monotonic() > deadline:
            return bytes(claims), True
        if poller.poll(100):
            chunk = os.read(channel, 65536)
            if not chunk:
                break
            claims += chunk
        elif process.poll() is not None:  # a process that it left behind holds the pipe
            break
    return bytes(claims), False


def _command(
    isolation: Isolation, tree: Path, place: Place, targets: Sequence[str], timeout_s: float, memory_mb: int
) -> tuple[list[str], list[str], dict[str, str], Path | None]:
    """What is around the command of a run, the command, its environment and its working folder."""
    inside = tree if isolation is Isolation.NONE else Path(INSIDE)
    roots = os.pathsep.join(str(inside / root) if root else str(inside) for root in place.roots)
    fixed = {"PYTHONPATH": roots, "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    basic = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    environ, words = basic | dict(place.environ) | fixed, [str(memory_mb), *targets]
    if isolation is Isolation.NONE:
        return [], [str(place.python), str(CHILD), *words], environ, tree
    if isolation is Isolation.DOCKER:
        return [], docker_command(place.image, tree, environ, words, timeout_s), dict(os.environ), None
    readable = (Path(os.path.realpath(place.python)).parent.parent, *place.readable)
    child = "/harness/child.py"
    around = bubblewrap.command_line(readable, {INSIDE: tree}, shown={child: CHILD}, temporary_mb=memory_mb)
    return [*around, "--chdir", INSIDE], [str(place.python), child, *words], environ, None


def docker_command(
    image: str, tree: Path, environ: Mapping[str, str], words: Sequence[str], timeout_s: float
) -> list[str]:
    """A run in a task's image, without network: the tree in the place of the image's, but for what was built there."""
    mounts = [f"{tree}:/submission:ro", f"{CHILD}:/harness/child.py:ro"]
    command = ["docker", "run", "--rm", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    command += ["--pids-limit", "512", "--entrypoint", "bash"]
    command += [word for mount in mounts for word in ("--volume", mount)]
    command += [word for name, value in environ.items() if name != "PATH" for word in ("--env", f"{name}={value}")]
    script = f"cd {INSIDE} && git ls-files -z | xargs -0 rm -f && cp -r /submission/. . && "
    script += f'exec timeout -s KILL {timeout_s} python /harness/child.py "$@"'  # our end would not end the container
    return [*command, image, "-c", script, "run", *words]


def _report(claims: str, timed_out: bool, isolation: Isolation, seconds: float, detail: str) -> Report:
    """Parse claims that anybody may have written: lines of JSON, whatever else is ignored."""
    lines = claims.splitlines()
    good, bad, ended = set(), set(), False
    for line in lines:
        try:
            id, when, outcome = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue
        if not all(isinstance(word, str) for word in (id, when, outcome)):
            continue
        ended |= when == "end"
        if outcome == "passed" and when == "call":
            good.add(id)
        elif outcome == "failed":
            bad.add(id)
    status = RunStatus.OK if ended else RunStatus.TIMEOUT if timed_out else RunStatus.CRASH
    if not lines and not timed_out:
        status = RunStatus.FAULT
    return Report(
        status=status,
        passed=frozenset(good - bad),
        failed=frozenset(bad),
        isolation=isolation,
        seconds=seconds,
        detail=detail,
    )
