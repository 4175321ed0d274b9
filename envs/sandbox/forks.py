"""Fork servers: started when needed, one per thread that runs code at the same moment, ended with this process."""

import atexit
import contextlib
import json
import marshal
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from envs.sandbox import tiers, wire

LAYERS = ("user", "landlock", "memory", "seccomp")
_SCRIPT = Path(__file__).with_name("fork_server.py")


class Lost(Exception):
    """The fork server did not start, ended or went silent. `started`: submitted code was running."""

    def __init__(self, why: str, *, started: bool):
        super().__init__(why)
        self.started = started


class Body(NamedTuple):
    """What one process does: run this part (name, source), if any, then write the values of these expressions."""

    part: tuple[str, str] | None
    expressions: tuple[str, ...]


class ForkReply(NamedTuple):
    ended: int  # wire.ANSWERED or wire.OVER_TIME
    written: bytes


class _Server:
    """One fork server, which serves one request at a time."""

    def __init__(self):
        try:
            process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-B", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PYTHONHASHSEED": "0"},  # sets have the same order in every process
                start_new_session=True,  # an interrupt from the keyboard is for the library alone
                bufsize=0,
            )
        except OSError as error:
            raise Lost(f"{sys.executable} did not start: {error}", started=False) from error
        assert process.stdin is not None and process.stdout is not None  # they are pipes
        self.process, self.requests, self.replies = process, process.stdin, process.stdout
        os.set_blocking(self.requests.fileno(), False)  # a server that is stopped empties no pipe
        self.poller, self.room = select.poll(), select.poll()
        self.poller.register(self.replies, select.POLLIN)
        self.room.register(self.requests, select.POLLOUT)
        try:
            hello = b""
            while not hello.endswith(b"\n"):
                hello += self._read(1, time.monotonic() + wire.START_S)
            self.missing: dict[str, str] = json.loads(hello)
        except EOFError as error:
            self.end()
            raise Lost(f"{sys.executable} as a fork server: {error}", started=False) from error
        except BaseException:
            self.end()
            raise

    def ask(self, processes: Sequence[Body], timeout_s: float, memory_mb: int) -> list[ForkReply]:
        bodies = [marshal.dumps((part and tuple(part), expressions)) for part, expressions in processes]
        longest = [len(wire.OUT_OF_MEMORY) + len(body.expressions) * (wire.MAX_CHARS + 1) for body in processes]
        request = wire.HEADER.pack(len(processes), timeout_s, math.ceil(timeout_s) + 1, memory_mb * 2**20)
        request += b"".join(wire.SIZES.pack(len(body), most) for body, most in zip(bodies, longest, strict=True))
        request = memoryview(request + b"".join(bodies))
        started = False
        try:
            deadline = time.monotonic() + wire.START_S * (len(processes) + 1)
            while request:
                self._wait(self.room, deadline)
                request = request[os.write(self.requests.fileno(), request) :]
            if self._read(1, deadline) != wire.READY:
                raise EOFError(self.replies.read().decode(errors="replace"))
            started = True
            deadline = time.monotonic() + timeout_s + wire.START_S
            replies = []
            for _ in processes:
                ended, size = wire.REPLY.unpack(self._read(wire.REPLY.size, deadline))
                replies.append(ForkReply(ended, self._read(size, deadline)))
            return replies
        except (EOFError, OSError) as error:
            raise Lost(str(error), started=started) from error

    def _read(self, size: int, deadline: float) -> bytes:
        data = b""
        while len(data) < size:
            self._wait(self.poller, deadline)
            if not (chunk := os.read(self.replies.fileno(), size - len(data))):
                raise EOFError("it has ended")
            data += chunk
        return data

    @staticmethod
    def _wait(poller: select.poll, deadline: float) -> None:
        wait_ms = 1000 * (deadline - time.monotonic())
        if wait_ms <= 0 or not poller.poll(wait_ms):
            raise EOFError("it is silent")

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.let_go()

    def let_go(self) -> None:
        """Close this process's ends. A server whose last client has let go ends by itself."""
        self.requests.close()
        self.replies.close()


class _Pool:
    """The servers of this process: `idle` ones wait for the next request, all of them are `alive`."""

    def __init__(self):
        self.lock = threading.Lock()
        self.idle: list[_Server] = []
        self.alive: set[_Server] = set()
        self.tier: tiers.Tier | None = None

    @contextlib.contextmanager
    def server(self) -> Iterator[_Server]:
        """A server for one request. One that fails or is interrupted in it is ended: its state is unknown."""
        with self.lock:
            server = self.idle.pop() if self.idle else None
        if server is None or server.process.poll() is not None:
            server = self._start()
        try:
            yield server
        except BaseException:
            with self.lock:
                self.alive.discard(server)
            server.end()
            raise
        with self.lock:
            if server in self.alive:
                self.idle.append(server)

    def _start(self) -> _Server:
        server = _Server()
        with self.lock:
            try:
                self.tier = self.tier or tiers.start("forks", LAYERS, server.missing)
            except tiers.SandboxError:
                server.end()
                raise
            self.alive.add(server)
        return server

    def end(self) -> None:
        with self.lock:
            servers, self.alive, self.idle, self.tier = self.alive, set(), [], None
        for server in servers:
            server.end()

    def leave_to_parent(self) -> None:
        """In a forked process: its parent's servers are not its own."""
        for server in self.alive:
            server.let_go()
            server.process.returncode = 0  # or Popen would wait for a process that is not its child
        self.__init__()


_POOL = _Pool()
atexit.register(_POOL.end)
os.register_at_fork(after_in_child=_POOL.leave_to_parent)


def ask(processes: Sequence[Body], *, timeout_s: float, memory_mb: int) -> list[ForkReply]:
    """Run each body in a fresh process, all at the same time, every one within these limits.

    Raises:
        Lost: there is no answer, because the server could not start or did not survive.
        SandboxError: a layer that is demanded does not hold here.
    """
    with _POOL.server() as server:
        return server.ask(processes, timeout_s, memory_mb)


def tier() -> tiers.Tier:
    """What holds for small tests. SandboxError where nothing can be run, or less than is demanded."""
    try:
        with _POOL.server():
            assert _POOL.tier is not None  # the first server settles it
            return _POOL.tier
    except Lost as lost:
        raise tiers.SandboxError(f"no code can be run here: {lost}") from lost


def end() -> None:
    """End every server of this process. The next request starts a new one and looks again at what holds."""
    _POOL.end()
