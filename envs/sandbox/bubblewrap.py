"""The command line of bubblewrap, one for all who run submitted code behind it, and the process that it becomes.

What it shows is what it is given: programs and libraries of the system, more paths to read, folders to write. There is
no other file, process or network; /tmp and /dev/shm are empty and of a limited size, all else is read-only. It ends
with the process that started it. Our own, because bubblewrap is a program without a library.
"""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
SYSTEM = tuple(filter(os.path.exists, _PROGRAMS))


def program() -> str | None:
    """Where bubblewrap is: beside this Python or on PATH; None where it is not installed."""
    return shutil.which("bwrap", path=f"{sys.prefix}/bin:{os.environ.get('PATH', os.defpath)}")


def command_line(
    readable: Iterable[str | Path],
    writable: Mapping[str, str | Path],
    *,
    shown: Mapping[str, str | Path] | None = None,
    as_root: bool = False,
    temporary_mb: int = 256,
) -> list[str]:
    """`bwrap` and its arguments; the command to run follows them, and the caller's environment is the command's.

    Args:
        readable: paths that are seen where they are, read-only, beside those of `SYSTEM`; all must exist.
        writable: place inside -> the folder that is there.
        shown: place inside -> the file or folder that is there, read-only.
        as_root: keep the rights to become another user, in place of a user namespace; only root can.
        temporary_mb: how large /tmp may become, and /dev/shm, in MiB.

    Raises:
        FileNotFoundError: bubblewrap is not installed.
    """
    bwrap = program()
    if bwrap is None:
        raise FileNotFoundError("there is no program bwrap; install bubblewrap (Debian: apt-get install bubblewrap)")
    paths = list(dict.fromkeys(map(str, (*SYSTEM, *readable))))
    visible = [p for p in paths if not any(Path(p).is_relative_to(other) for other in paths if other != p)]
    parents = dict.fromkeys(str(parent) for path in visible for parent in reversed(Path(path).parents))
    binds = [word for path in visible for word in ("--ro-bind", path, path)]
    binds += [word for place, path in (shown or {}).items() for word in ("--ro-bind", str(path), place)]
    binds += [word for place, path in writable.items() for word in ("--bind", str(path), place)]
    size = str(temporary_mb * 2**20)
    return [
        *(bwrap, "--die-with-parent", "--new-session", "--hostname", "sandbox"),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--cap-drop", "ALL"),
        *(("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID") if as_root else ("--unshare-user",)),
        *("--proc", "/proc", "--dev", "/dev"),
        *(word for path in ("/tmp", "/dev/shm") for word in ("--perms", "1777", "--size", size, "--tmpfs", path)),
        *(word for path in parents for word in ("--perms", "0755", "--dir", path)),
        *binds,
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    ]


@contextlib.contextmanager
def running(
    around: Sequence[str], command: Sequence[str], *, pass_fds: Sequence[int] = (), **options: Any
) -> Iterator[subprocess.Popen]:
    """The process of a command, without input and in a session of its own, which is ended on leaving.

    Args:
        around: a `command_line`: all that the command has started has ended then too. Empty: what has left the session
            has not.
        command, pass_fds, options: as for `subprocess.Popen`.
    """
    about, tell = os.pipe()
    with open(about, "rb", buffering=0) as hear:
        with open(tell, "wb", buffering=0):
            told = ("--info-fd", str(tell)) if around else ()
            process = subprocess.Popen(
                [*around, *told, *command],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(*pass_fds, tell) if around else pass_fds,
                **options,
            )
        first = _first_process(hear)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if first is not None:  # told to end as bubblewrap ends; the kernel ends all others before it
            select.select([first], [], [])
            os.close(first)


def _first_process(hear: IO[bytes]) -> int | None:
    """A handle of the first process inside of bubblewrap, from what `--info-fd` says. None if it is not there."""
    said = b""
    while b"}" not in said and (chunk := hear.read(4096)):
        said += chunk
    number = re.search(rb'"child-pid": (\d+)', said)
    with contextlib.suppress(ProcessLookupError):
        return os.pidfd_open(int(number[1])) if number else None
