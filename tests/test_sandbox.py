"""What the sandbox promises about small tests: verdicts, limits, faults, and the processes behind them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envs import sandbox
from envs.sandbox import Part, SandboxError, Status, forks, run_expressions, tiers, verdicts, wire

ROOT = Path(__file__).parent.parent
GOOD = Part("f", "def f(n): return n + 1")


def run(source: str, expression: str = "same(f(1), 2)", **limits):
    return run_expressions((Part("f", source),), (expression,), **limits)


def needs_memory() -> None:
    if why := forks.tier().missing.get("memory"):
        pytest.skip(f"this machine has no limit on memory: {why}")


def gone(pid: int) -> bool:
    """Within ten seconds the process has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_true_expressions_pass_and_false_and_failing_ones_do_not():
    verdict = run_expressions((GOOD,), ("same(f(1), 2)", "same(f(1), 3)", "f(None)", "missing(1)", "f(0)"))
    assert verdict.passed == (True, False, False, False, False) and verdict.status is Status.OK


def test_a_part_with_a_syntax_error_leaves_the_other_usable():
    parts = (Part("g", "def g(n) return n"), GOOD)
    assert run_expressions(parts, ("same(f(1), 2)", "same(g(1), 1)")).passed == (True, False)


def test_a_part_hands_over_its_own_name_only():
    greedy = Part("g", "def g(n): return n\ndef f(n): return 99")
    assert run_expressions((GOOD, greedy), ("same(f(1), 2)", "same(g(1), 1)")).passed == (True, True)


def test_common_modules_can_be_imported():
    modules = "math, re, json, datetime, collections, itertools, functools, string, random, dataclasses, typing, enum"
    modules += ", hashlib, hmac, base64, decimal, statistics, urllib.parse"
    assert run(f"import {modules}\ndef f(n): return n + 1").passed == (True,)
    lazy = "import datetime\ndef f(n): return datetime.datetime.strptime('2', '%d').day + len('é'.encode('utf-16')) - 4"
    assert run(lazy).passed == (True,)


def test_an_expression_on_both_parts_sees_both():
    parts = (GOOD, Part("g", "def g(n): return n * 10"))
    joint = ("same(g(f(1)), 20)", "same(f(g(1)), 11)", "f(1) == 2 and g(1) == 10")
    assert run_expressions(parts, joint).passed == (True, True, True)


def test_an_endless_loop_is_stopped_in_time_and_fails():
    start = time.monotonic()
    verdict = run("while True: pass", timeout_s=0.3)
    assert verdict.status is Status.TIMEOUT and verdict.passed == (False,) and time.monotonic() - start < 5


def test_a_memory_bomb_is_refused_and_named():
    needs_memory()
    assert run("x = ' ' * 10**10").status is Status.MEMORY


def test_a_machine_that_cannot_start_the_interpreter_is_a_fault_and_not_the_codes_failure(monkeypatch):
    for broken in ("/nowhere/python", "/bin/true"):
        sandbox.reset()
        monkeypatch.setattr(sys, "executable", broken)
        assert run_expressions((GOOD,), ("same(f(1), 2)",)).status is Status.FAULT
    monkeypatch.undo()
    assert run_expressions((GOOD,), ("same(f(1), 2)",)).passed == (True,)


def test_equal_content_runs_once_unless_it_timed_out():
    sandbox.reset()
    for _ in range(2):
        run("def f(n): return n + 1")
        run("while True: pass", timeout_s=0.1)
    info = verdicts.verdict_of.cache_info()
    assert (info.hits, info.currsize) == (1, 1)


def test_other_limits_are_another_verdict():
    needs_memory()
    assert run("x = ' ' * 2**27", memory_mb=128).status is Status.MEMORY
    assert run("x = ' ' * 2**27", memory_mb=512).status is Status.OK


def test_text_that_is_no_unicode_fails_as_code():
    assert run("'\ud800'").passed == (False,)


def test_limits_out_of_range_are_named():
    with pytest.raises(ValueError, match="timeout_s is 0"):
        run("", timeout_s=0)
    with pytest.raises(ValueError, match="timeout_s is inf"):
        run("", timeout_s=float("inf"))
    with pytest.raises(ValueError, match="memory_mb is 1;"):
        run("", memory_mb=1)
    with pytest.raises(ValueError, match="memory_mb is 1099511627776"):
        run("", memory_mb=2**40)


def test_threads_get_their_own_answers():
    def one(i: int) -> bool:
        return run(f"def f(n): return n + {i}", f"same((f(1), f(2)), ({1 + i}, {2 + i}))").passed == (True,)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(1000, 1060)))
    assert len(forks._POOL.alive) <= 5


def test_an_interrupted_run_leaves_no_half_read_answer_behind():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            run("import time; time.sleep(1.5)")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert run("def f(n): return n + 41", "same(f(1), 42)").passed == (True,)


def script(code: str) -> subprocess.Popen:
    """A program of its own that runs one expression, prints its servers' ids and goes on with `code`."""
    start = (
        "import os, sys, time, json\nfrom envs.sandbox import Part, forks, run_expressions\n"
        "def ask(k): return run_expressions((Part('f', f'def f(n): return n + {k}'),), (f'f(1) == {1 + k}',)).passed\n"
        "ask(1); print(json.dumps([s.process.pid for s in forks._POOL.alive]), flush=True)\n"
    )
    return subprocess.Popen([sys.executable, "-c", start + code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)", "os._exit(3)", "raise SystemExit(1)"])
def test_no_server_outlives_its_program(end):
    with script(end) as program:
        servers = json.loads(program.stdout.readline())
    assert len(servers) == 1 and all(gone(pid) for pid in servers)


def test_no_code_outlives_its_server():
    if not Path("/proc/self/task").exists():
        pytest.skip("only Linux ends a process with its parent")
    sandbox.reset()
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(run, "import time; time.sleep(50)", timeout_s=60)
        children, deadline = [], time.monotonic() + 20
        while not children and time.monotonic() < deadline:
            time.sleep(0.3)  # longer than the trials of the layers at the start take
            for server in list(forks._POOL.alive):
                pid = server.process.pid
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        assert verdict.result(timeout=20).status is Status.CRASH
    assert len(children) == 1 and gone(int(children[0]))


def test_a_forked_process_starts_its_own_servers_and_leaves_its_parents_alone():
    code = (
        "child = os.fork()\nif not child:\n  ok = ask(2) == (True,); os._exit(0 if ok else 1)\n"
        "ok = os.waitpid(child, 0)[1] == 0 and ask(3) == (True,)\n"
        "print(ok, json.dumps([s.process.pid for s in forks._POOL.alive]))\n"
    )
    with script(code) as program:
        first, second = program.stdout.read().splitlines()
    assert second == f"True {first}"


def test_a_process_that_cannot_be_confined_runs_nothing_and_is_a_fault():
    needs_memory()
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34)); forks.end()\n"
        "part = Part('f', 'def f(n): return n')\n"
        "print(run_expressions((part,), ('f(1) == 1',), memory_mb=2**15), ask(4))"
    )
    with script(code) as program:
        _, said = program.stdout.read().splitlines()
    assert "FAULT" in said and "limit AS: not allowed to raise maximum limit" in said and said.endswith("(True,)")


def test_a_server_that_died_while_idle_is_replaced():
    run("def f(n): return n + 70", "f(1) == 71")
    for server in forks._POOL.alive:
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    assert run("def f(n): return n + 71", "f(1) == 72").passed == (True,)


@pytest.mark.parametrize("source", ["def f(n): return n + 72", f"def f(n): return {' n +' * 50_000} 72"])
def test_a_server_that_is_stopped_is_a_fault_and_replaced_however_large_the_request_is(monkeypatch, source):
    """A pipe has room for 64 KiB that nobody reads."""
    sandbox.reset()
    run("def f(n): return n + 73", "f(1) == 74")
    ((server, patience),) = [(server, wire.START_S) for server in forks._POOL.alive]
    os.kill(server.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(wire, "START_S", 0.3)
    verdict = run(source)
    assert verdict.status is Status.FAULT and verdict.detail == "it is silent"
    monkeypatch.setattr(wire, "START_S", patience)
    assert gone(server.process.pid)
    assert run(source).status is Status.OK


def test_a_layer_that_is_missing_is_in_the_name_and_in_the_log(caplog):
    with caplog.at_level("INFO", logger="envs.sandbox"):
        tier = tiers.start("forks", forks.LAYERS, {"seccomp": "Invalid argument"})
    assert tier.name == "forks+user+landlock+memory"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "sandbox: forks+user+landlock+memory (without seccomp: Invalid argument)")
    ]


def test_a_layer_can_be_demanded(monkeypatch):
    monkeypatch.setenv(tiers.DEMAND, "landlock, seccomp")
    with pytest.raises(SandboxError, match="demands seccomp .* does not have: Invalid argument"):
        tiers.start("forks", forks.LAYERS, {"seccomp": "Invalid argument"})
    assert tiers.start("forks", forks.LAYERS, {"user": "not root"}).layers == ("landlock", "memory", "seccomp")
    monkeypatch.setenv(tiers.DEMAND, "selinux")
    sandbox.reset()
    with pytest.raises(SandboxError, match=r"names \['selinux'\]; the layers are user"):
        run_expressions((GOOD,), ("f(1) == 2",))


@pytest.mark.parametrize(
    ("layers", "confined"), [(("memory",), False), (("user", "memory"), False), (("seccomp",), True)]
)
def test_code_is_confined_where_a_layer_of_the_kernel_keeps_it_from_files(layers, confined):
    assert tiers.Tier(kind="forks", layers=layers, missing={}).confined is confined


def test_the_description_names_both_tiers():
    small, whole = sandbox.describe().splitlines()
    assert small.startswith("small tests: forks") and whole.startswith("whole trees: tree")
