"""Small tests on another machine: a server of SWE-ReX, here in a process of its own."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import envs
from envs import sandbox
from envs.sandbox import Part, SandboxError, Status, executor, run_expressions, tiers
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play

ROOT = Path(__file__).parent.parent
TOKEN = "a token"
GOOD = Part("f", "def f(n): return n + 1")
TWICE = Part("g", "def g(n): return 2 * n if n < 5 else {'ü': (n, b'\\xff')}")
LOST = Part("f", "import os\ndef f(n): os._exit(0)")
ENDLESS = Part("f", "def f(n):\n    while True: pass")


@pytest.fixture(scope="module")
def server():
    """The address of a server, and its process."""
    pytest.importorskip("swerex")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "swerex.server", "--host", "127.0.0.1", "--port", str(port), "--auth-token", TOKEN]
    paths = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=os.environ | paths, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
        try:
            wait_for(f"http://127.0.0.1:{port}", one)
            yield f"http://127.0.0.1:{port}", one
        finally:
            one.kill()


def wait_for(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ask = urllib.request.Request(f"{url}/is_alive", headers={"X-API-Key": TOKEN})
            urllib.request.urlopen(ask, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the server does not start")


@pytest.fixture
def remote(server, monkeypatch):
    monkeypatch.setenv(executor.URL, server[0])
    monkeypatch.setenv(executor.TOKEN, TOKEN)
    sandbox.reset()
    yield server
    sandbox.reset()


def test_verdicts_are_those_of_this_machine(remote, monkeypatch):
    parts, joint = (GOOD, TWICE), ("same(g(f(1)), 4)", "f(g(1)) == 4", "g(9) == {'ü': (9, b'\\xff')}", "missing(1)")
    cases = [(parts, joint), ((LOST,), ("f(1) == 1",)), ((ENDLESS,), ("f(1) == 1",))]
    there = [run_expressions(*case, timeout_s=1) for case in cases]
    monkeypatch.delenv(executor.URL)
    sandbox.reset()
    assert there == [run_expressions(*case, timeout_s=1) for case in cases]
    assert there[0].passed == (True, False, True, False)
    assert [verdict.status for verdict in there] == [Status.OK, Status.CRASH, Status.TIMEOUT]


@pytest.mark.parametrize("name", ["PairedFunctions", "PairedFeatures"])
def test_an_episode_ends_as_on_this_machine(remote, monkeypatch, name):
    def episode():
        env = envs.make(name)
        return play(
            env, {seat: Demonstrator(np.random.default_rng(i)) for i, seat in enumerate(env.possible_agents)}, seed=3
        )

    there = episode()
    monkeypatch.delenv(executor.URL)
    sandbox.reset()
    assert there == episode()


def test_code_runs_there_and_leaves_no_order_behind(remote):
    assert sandbox.describe().startswith(f"small tests: {remote[0]} forks")
    assert run_expressions((GOOD,), ("f(1) == 2",)).passed == (True,)
    assert not list(Path("/tmp").glob("marl-coop-*.json"))


def test_what_is_demanded_holds_there_or_is_refused(remote, monkeypatch):
    monkeypatch.setenv(tiers.DEMAND, "magic")
    with pytest.raises(SandboxError, match=f"{remote[0]}: MARL_COOP_SANDBOX names .*magic"):
        run_expressions((GOOD,), ("f(1) == 2",))


def test_a_server_that_is_not_there_or_refuses_the_token_is_a_fault(remote, monkeypatch):
    monkeypatch.setenv(executor.TOKEN, "another")
    assert run_expressions((GOOD,), ("f(1) == 2",)).status is Status.FAULT
    monkeypatch.setenv(executor.URL, "http://127.0.0.1:9")
    verdict = run_expressions((GOOD,), ("f(1) == 2",))
    assert verdict.status is Status.FAULT and "http://127.0.0.1:9: ConnectError" in verdict.detail
    with pytest.raises(SandboxError, match="no code can be run .MARL_COOP_SANDBOX_URL.: http://127.0.0.1:9"):
        sandbox.describe()


def test_a_server_that_dies_while_code_runs_is_a_fault(remote):
    _, process = remote
    threading.Timer(3, process.kill).start()
    assert run_expressions((ENDLESS,), ("f(1) == 1",), timeout_s=20).status is Status.FAULT
