"""Small tests on another machine: a server of SWE-ReX, here in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import envs
from envs import sandbox
from envs.sandbox import Part, SandboxError, Status, executor, run_expressions, tiers, wire
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


TIER = {"kind": "forks", "layers": ["seccomp"], "missing": {}}
NONSENSE = [
    *(3, None, [], "lost", {}, {"tier": TIER}, {"replies": 3}, {"replies": [[0]]}, {"replies": [[0, 5]]}),
    *({"replies": [[0, "\u20ac"]]}, {"replies": [["x", "2\ndone"]]}, {"replies": []}, {"lost": "gone"}),
]


@pytest.fixture
def says(monkeypatch):
    """Has a server answer what it is told: a text, or parts of one with a pause before each but the first."""

    class Says(BaseHTTPRequestHandler):
        parts: tuple[str, ...] = ()

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            for i, part in enumerate(self.parts if self.path == "/execute" else ["{}"]):
                time.sleep(0.2 * bool(i))
                try:
                    self.wfile.write(part.encode())
                except OSError:  # nobody listens any more
                    return

        def log_message(self, *words):
            pass

    def answer(value, *parts):
        whole = {"exit_code": 0, "stderr": "", "stdout": value if isinstance(value, str) else json.dumps(value)}
        Says.parts = parts or (json.dumps(whole),)
        sandbox.reset()

    with ThreadingHTTPServer(("127.0.0.1", 0), Says) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        monkeypatch.setenv(executor.URL, f"http://127.0.0.1:{listening.server_port}")
        yield answer
        listening.shutdown()
    sandbox.reset()


@pytest.mark.parametrize("answer", [*NONSENSE, "[" * 100_000, "no JSON", ""], ids=lambda answer: str(answer)[:20])
def test_an_answer_that_is_none_is_a_fault(says, answer):
    says({"version": tiers.version()} | answer if isinstance(answer, dict) else answer)
    verdict = run_expressions((GOOD,), ("f(1) == 2",))
    assert verdict.status is Status.FAULT and verdict.detail
    if answer != {"tier": TIER}:
        with pytest.raises(SandboxError, match="no code can be run"):
            executor.tier()


@pytest.mark.parametrize("answer", [{"replies": [[0, "2\ndone"]]}, {"version": "sandbox 0 on Python 2.7"}])
def test_a_server_of_another_version_is_refused(says, answer):
    says(answer | {"tier": TIER})
    for ask in (lambda: run_expressions((GOOD,), ("f(1) == 2",)), executor.tier):
        with pytest.raises(SandboxError, match="Install this version there"):
            ask()


def test_an_answer_without_an_end_is_given_up(says, monkeypatch):
    monkeypatch.setattr(executor, "LARGEST", 20)
    says("", "1234567890", "1234567890", "1234567890")
    assert "without an end" in run_expressions((GOOD,), ("f(1) == 2",)).detail
    monkeypatch.setattr(executor, "LARGEST", 2**20)
    monkeypatch.setattr(wire, "START_S", 0.1)
    says("", *" " * 50)  # a byte now and then
    assert run_expressions((GOOD,), ("f(1) == 2",), timeout_s=0.1).status is Status.FAULT


@pytest.mark.parametrize("url", ["http://me:planted@127.0.0.1:9", "http://planted@127.0.0.1:9", "http://h/?t=planted"])
def test_an_address_or_a_token_is_not_quoted_with_its_secret(monkeypatch, url):
    monkeypatch.setenv(executor.URL, url)
    with pytest.raises(SandboxError, match=f"use {executor.TOKEN}") as caught:
        sandbox.describe()
    assert "planted" not in str(caught.value)
    monkeypatch.setenv(executor.URL, "http://127.0.0.1:9")
    monkeypatch.setenv(executor.TOKEN, "planted\ntoken")
    with pytest.raises(SandboxError, match="a character in it that no header may have") as caught:
        sandbox.describe()
    assert "planted" not in str(caught.value)


def test_a_server_that_dies_while_code_runs_is_a_fault(remote):
    _, process = remote
    threading.Timer(3, process.kill).start()
    assert run_expressions((ENDLESS,), ("f(1) == 1",), timeout_s=20).status is Status.FAULT
