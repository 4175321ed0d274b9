"""Processes that a fork server makes ahead: each waits, confined, for one run."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envs import sandbox
from envs.sandbox import Part, Status, forks, run_expressions

PROCESS = "import os\ndef f(): return os.getpid()"
if not Path("/proc/self/task").exists():
    pytest.skip("only Linux shows the children of a process", allow_module_level=True)


def ask(source: str, *expressions: str, **limits):
    return run_expressions((Part("f", source),), expressions, **limits)


def state(pid: int) -> str:
    """One letter of the kernel: S sleeps, Z has ended; Z too where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def within_ten_seconds(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def waiting() -> int:
    """The process that the only server has ready, after a run of one process."""
    (server,) = forks._POOL.alive
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    within_ten_seconds(lambda: [state(int(pid)) for pid in children.read_text().split()] == ["S"])
    return int(children.read_text())


def fresh_server() -> None:
    """One server that has answered once."""
    sandbox.reset()
    assert ask("def f(): return 1", "f() == 1").passed == (True,)


def test_a_process_that_waits_serves_the_next_run_and_no_other():
    fresh_server()
    first = waiting()
    assert ask(PROCESS, f"f() == {first}").passed == (True,)
    second = waiting()
    assert second != first and state(first) == "Z"
    assert ask(PROCESS, f"f() == {second} and f() != {first}").passed == (True,)


def test_a_process_that_dies_while_it_waits_is_no_fault():
    fresh_server()
    pid = waiting()
    os.kill(pid, signal.SIGKILL)
    within_ten_seconds(lambda: state(pid) == "Z")
    verdict = ask(PROCESS, "f() > 0")
    assert verdict.status is Status.OK and verdict.passed == (True,)


def test_a_process_that_waits_is_not_used_under_other_limits():
    fresh_server()
    first = waiting()
    assert ask(PROCESS, f"f() != {first}", memory_mb=512).passed == (True,)
    assert waiting() and state(first) == "Z"


def test_each_run_of_two_processes_finds_two_that_wait_and_gives_each_its_own_body():
    fresh_server()
    for k in range(20):
        parts = (Part("f", f"def f(): return {k}"), Part("g", f"def g(): return {-k}"))
        assert run_expressions(parts, (f"f() == {k}", f"g() == {-k}", f"f() + g() == {k - k}")).passed == (True,) * 3


@pytest.mark.parametrize("end", ["close the pool", "kill the server"])
def test_no_process_that_waits_outlives_its_server(end):
    fresh_server()
    (server,), pid = forks._POOL.alive, waiting()
    forks.end() if end == "close the pool" else os.kill(server.process.pid, signal.SIGKILL)
    within_ten_seconds(lambda: state(pid) == "Z")
