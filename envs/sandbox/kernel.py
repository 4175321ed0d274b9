"""What the kernel takes away from a process: its user, files, resources and system calls.

Each function changes the calling process for good and raises OSError where the kernel will not. Landlock and seccomp
are three and two plain system calls, so `ctypes` does; nothing is compiled. Imported by scripts that must start fast
and see nothing of the library: only the standard library in here.

Numbers: landlock(7), seccomp(2) and the kernel's tables of system calls for x86_64 and aarch64.
"""

import contextlib
import ctypes
import errno
import functools
import os
import resource
import signal
import struct
import sys

FIRST_USER, LAST_USER = 61184, 65519  # the range that systemd keeps for users who exist only while a job runs

_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 1, 38, 22, 2
_DROP_RIGHT, _OF_FILES = 24, (1, 2)  # a file's permissions are overridden, or for reading alone
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, read a folder
_OF_A_FILE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14  # execute, write, read, truncate

# Enough for an interpreter that computes, sleeps and writes to files that it already has: (x86_64, aarch64).
_CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # the audit number, the column of _CALLS


def limit(**values: int) -> None:
    """Resource limits by their short name, hard and soft: `limit(CPU=3, CORE=0)`."""
    for name, value in values.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        except ValueError as error:
            raise OSError(errno.EINVAL, f"limit {name}: {error}") from None


def become(user: int) -> None:
    """Leave root for a user who owns nothing."""
    if os.geteuid() != 0:
        raise OSError(errno.EPERM, "only root can run code as another user")
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def drop_rights() -> None:
    """Keep of root's rights, from the next program on, those on files: no devices, modules, mounts, clocks, limits."""
    for right in range(64):  # the numbers of capabilities(7); the kernel refuses those that it does not have
        if right not in _OF_FILES:
            with contextlib.suppress(OSError):
                _prctl(_DROP_RIGHT, right)


def end_with_parent() -> None:
    """The kernel kills this process as its parent ends. A change of user takes this back, so that comes first."""
    _prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


@functools.cache
def ruleset(readable: tuple[str, ...] = (), writable: tuple[str, ...] = ()) -> int:
    """A descriptor of Landlock rules: no file outside of these trees can be opened; no TCP and no signal to a process
    outside, where the kernel is new enough. Made once, it confines any number of children.
    """
    _linux("Landlock")
    version = _call(_CREATE_RULESET, None, 0, 1)
    files = (1 << (13, 14, 15, 15, 16)[min(version, 5) - 1]) - 1
    network = 0b11 if version >= 4 else 0
    scopes = 0b11 if version >= 6 else 0
    rules = struct.pack("=QQQ", files, network, scopes)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    made = _call(_CREATE_RULESET, rules, len(rules), 0)
    for paths, rights in ((readable, _READ), (writable, files)):
        for path in paths:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            allowed = rights & files & (files if os.path.isdir(path) else _OF_A_FILE)
            try:
                _call(_ADD_RULE, made, 1, struct.pack("=Qi", allowed, handle), 0)
            finally:
                os.close(handle)
    return made


def landlock(rules: int) -> None:
    """Confine this process to what `ruleset` allows."""
    _prctl(_NO_NEW_PRIVILEGES, 1)
    _call(_RESTRICT_SELF, rules, 0)


@functools.cache
def call_filter() -> ctypes.Array:
    """A seccomp program under which every system call that is not in the list fails with EPERM."""
    _linux("seccomp")
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    audit, column = _MACHINES[machine]
    numbers = [pair[column] for pair in _CALLS.values()]
    load, equal, give = 0x20, 0x15, 0x06
    refuse, kill, allow = 0x00050000 | errno.EPERM, 0x80000000, 0x7FFF0000
    program = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, kill), (load, 0, 0, 0)]
    program += [(equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    program += [(give, 0, 0, refuse), (give, 0, 0, allow)]
    return ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program), 8 * len(program))


def seccomp(program: ctypes.Array) -> None:
    """Confine this process to the system calls of a `call_filter`."""
    _prctl(_NO_NEW_PRIVILEGES, 1)
    _prctl(_SET_SECCOMP, _FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(program)))


def _linux(name: str) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"{name} is a part of Linux, and this is {sys.platform}")


def _prctl(option: int, *words: int | bytes) -> None:
    padded = [word if isinstance(word, bytes) else ctypes.c_ulong(word) for word in (*words, 0, 0, 0, 0)[:4]]
    _check("prctl", _PRCTL(ctypes.c_int(option), *padded))


def _call(number: int, *words: int | bytes | None) -> int:
    padded = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    return _check(f"system call {number}", _SYSCALL(ctypes.c_long(number), *padded))


def _check(what: str, result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


_LIBC = ctypes.CDLL(None, use_errno=True)
_PRCTL, _SYSCALL = _LIBC.prctl, _LIBC.syscall  # looked up here: a child pays for every page that it touches
