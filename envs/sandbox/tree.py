"""Whole test runs: any command in a copy of a directory, inside of bubblewrap.

The command sees the system's programs and libraries and this Python's folders read-only, empty folders for temporary
files, its copy of the directory at `/tree`, and nothing else: no other file, process or network. Where bubblewrap does
not work, a weaker tier of another name runs it, in the copy's own place.
"""

import functools
import json
import math
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envs.sandbox import bubblewrap, forks, kernel, tiers, wire
from envs.sandbox.scratch import scratch
from envs.sandbox.verdicts import Status

MAX_OUTPUT = 65_536  # bytes that are kept of what a command prints, and of each file that is read back

_HERE, _INSIDE = Path(__file__).parent, Path("/run/sandbox")
_SETTINGS = tuple(f"/etc/{name}" for name in "localtime passwd group nsswitch.conf hosts ssl/openssl.cnf".split())
_DEVICES = ("/dev/zero", "/dev/random", "/dev/urandom")
_START = "import sys; sys.path.insert(0, sys.argv[1]); import tree_start; tree_start.main(sys.argv[2])"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRun:
    """How a command ended in its copy of the tree. `output` is the end of what it printed on both streams.

    The command may have run submitted code, which can print anything, end with any exit code and write any file. So
    this says what happened to the process, and is no verdict on the code by itself.
    """

    status: Status  # OK: it ended by itself, whatever its exit code; TIMEOUT; FAULT: it could not be started
    exit_code: int | None  # -n or 128 + n: ended by signal n; None unless the status is OK
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
        timeout_s: wall time in seconds for everything that the command starts; above 0, at most a day.
        memory_mb: address space in MiB of each process, at least 64.
        processes: how many there may be at once.
        file_mb: how large a file may become, in MiB.
        readable: more files and folders that the command may read, each at its own path.
        read_back: files to return, relative to the tree, at most 64 KiB of each. Links are not followed.
        environment: more variables; PATH, HOME, LANG, TMPDIR and a few settings of Python and git are set.

    Raises:
        ValueError: a limit is out of its range, there is no such directory, or the command is no list of words.
        SandboxError: MARL_COOP_SANDBOX demands bubblewrap, which does not work here.
    """
    if not 0 < timeout_s <= 86_400:
        raise ValueError(f"timeout_s is {timeout_s!r}; it must be above 0 seconds and at most a day.")
    for name, value, least in (("memory_mb", memory_mb, 64), ("processes", processes, 1), ("file_mb", file_mb, 1)):
        if value < least:
            raise ValueError(f"{name} is {value!r}; it must be at least {least}.")
    if not tree.is_dir():
        raise ValueError(f"tree is {str(tree)!r}, which is no directory.")
    if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
        raise ValueError(f"command is {command!r}; it must be a list of a program and its arguments, such as ['ls'].")
    began, used = time.monotonic(), None
    limits = {
        "AS": memory_mb * 2**20,
        "NPROC": processes,
        "FSIZE": file_mb * 2**20,
        "CPU": math.ceil(timeout_s) * (os.cpu_count() or 1) + 1,  # of one process with all its threads
        "CORE": 0,
    }
    try:
        used = tier()
        if "memory" in used.missing:
            del limits["AS"]
        return _run(tree, tuple(command), used, timeout_s, limits, readable, read_back, environment or {})
    except OSError as error:  # of this machine, which has no room for the copy, or for a process
        return TreeRun(
            status=Status.FAULT,
            exit_code=None,
            output=f"it could not be run: {error}".encode()[-MAX_OUTPUT:],
            seconds=time.monotonic() - began,
            tier=used.name if used else "",
        )


@functools.cache
def tier() -> tiers.Tier:
    """What holds for whole trees, found out by running a command that does nothing. Raises SandboxError as above."""
    small = forks.tier()
    missing = {layer: why for layer, why in small.missing.items() if layer in ("user", "memory")}
    wanted = tiers.Tier(kind="tree", layers=("bubblewrap",), missing=missing)
    why = "there is no program bwrap; apt-get install bubblewrap"
    works = False
    if bubblewrap.program() is not None:
        with tempfile.TemporaryDirectory() as empty:
            nothing = (sys.executable, "-I", "-S", "-c", "")
            trial = _run(Path(empty), nothing, wanted, 20.0, {"CORE": 0}, (), (), {})
        works = trial.exit_code == 0
        why = trial.output.decode(errors="replace").strip() or f"a trial ended with {trial.exit_code}"
    if works:
        return tiers.start("tree", ("bubblewrap", "user", "memory"), missing)
    missing |= {"bubblewrap": why, "user": "not without bubblewrap"}
    if "landlock" in small.missing:
        missing["landlock"] = small.missing["landlock"]
    return tiers.start("tree", ("landlock", "memory"), missing)


def _run(
    tree: Path,
    command: tuple[str, ...],
    used: tiers.Tier,
    timeout_s: float,
    limits: Mapping[str, int],
    readable: Sequence[Path],
    read_back: Sequence[str],
    environment: Mapping[str, str],
) -> TreeRun:
    began = time.monotonic()
    visible = [path for path in (*_SETTINGS, sys.base_prefix, sys.prefix, *map(str, readable)) if os.path.exists(path)]
    with scratch() as place:
        copy, temporary = place / "tree", place / "tmp"
        shutil.copytree(tree, copy, symlinks=True)
        temporary.mkdir()
        order = {"limits": limits, "command": command, "user": None, "landlock": None}
        if "bubblewrap" in used.layers:
            if "user" not in used.missing:
                order["user"] = kernel.FIRST_USER + secrets.randbelow(kernel.LAST_USER - kernel.FIRST_USER)
                _give_to(order["user"], copy)
            around = bubblewrap.command_line(
                visible, {"/tree": copy}, shown={str(_INSIDE): _HERE}, as_root=order["user"] is not None
            )
            home, order["folder"], scripts = "/tmp", "/tree", _INSIDE
        else:
            if "landlock" not in used.missing:
                order["landlock"] = (
                    [*bubblewrap.SYSTEM, *visible, *_DEVICES, "/proc/self", str(_HERE)],
                    [str(place), "/dev/null"],
                )
            around, home, order["folder"], scripts = [], str(temporary), str(copy), _HERE
        variables = {
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": home,
            "TMPDIR": home,
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            **environment,
        }
        started, output, exit_code = _execute(around, str(scripts), order, variables, timeout_s)
        status = Status.FAULT if not started else Status.TIMEOUT if exit_code is None else Status.OK
        return TreeRun(
            status=status,
            exit_code=exit_code if started else None,
            output=output,
            files={name: data for name in read_back if (data := _plain_file(copy, name)) is not None},
            seconds=time.monotonic() - began,
            tier=used.name,
        )


def _execute(
    around: list[str], scripts: str, order: dict, variables: Mapping[str, str], timeout_s: float
) -> tuple[bool, bytes, int | None]:
    """(did the command start, the end of what it printed or why it did not start, exit code or None: out of time)."""
    hear, report = os.pipe()
    # Isolated, because the variables are meant for the command and may point Python at the tree.
    python = [sys.executable, "-I", "-S", "-B", "-c", _START, scripts, json.dumps({**order, "report": report})]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": variables}
    with open(hear, "rb", buffering=0) as reports:
        with (
            open(report, "wb", buffering=0) as ours,
            bubblewrap.running(around, python, pass_fds=(report,), **options) as process,
        ):
            ours.close()
            output, in_time = _listen(process, timeout_s)
        said = reports.read(MAX_OUTPUT) or b""
    if said != wire.READY:
        return False, said.removeprefix(wire.READY) or output, None
    return True, output, process.returncode if in_time else None


def _give_to(user: int, tree: Path) -> None:
    for folder, folders, files in os.walk(tree):
        for name in (".", *folders, *files):
            os.lchown(os.path.join(folder, name), user, user)


def _listen(process: subprocess.Popen, timeout_s: float) -> tuple[bytes, bool]:
    """(the end of what it printed, did it end in time)."""
    deadline = time.monotonic() + timeout_s
    assert process.stdout is not None  # a pipe was asked for
    channel, output = process.stdout.fileno(), b""
    os.set_blocking(channel, False)
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    while True:
        ended = process.poll() is not None  # before reading: what it printed until then is there
        if poller.poll(0 if ended else 50) and (chunk := os.read(channel, MAX_OUTPUT)):
            output = (output + chunk)[-MAX_OUTPUT:]
        elif ended:
            return output, True
        if time.monotonic() > deadline:
            return output, False


def _plain_file(tree: Path, name: str) -> bytes | None:
    """The beginning of a file that a command has left; None where there is something else, or nothing to be read."""
    path = tree.resolve() / name
    try:
        if path.resolve() != path or not path.is_relative_to(tree.resolve()) or not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(MAX_OUTPUT)
    except (OSError, RuntimeError):  # a folder that is closed to its owner; a link to itself
        return None
