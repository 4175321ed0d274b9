"""What the sandbox promises about code that a model wrote: small hostile programs, one promise each."""

import os
import sys
import time
from pathlib import Path

import pytest

from envs import sandbox
from envs.sandbox import Part, Status, run_expressions

GOOD = Part("f", "def f(n): return n + 1")


def run(source: str, expression: str = "same(f(1), 2)", **limits):
    return run_expressions((Part("f", source),), (expression,), **limits)


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
    assert run(f"import {modules}\ndef f(n): return n + 1").passed == (True,)


def test_an_endless_loop_is_stopped_in_time_and_fails():
    start = time.monotonic()
    verdict = run("while True: pass", timeout_s=0.3)
    assert verdict.status is Status.TIMEOUT and verdict.passed == (False,) and time.monotonic() - start < 5


def test_a_memory_bomb_is_refused_and_named():
    assert run("x = ' ' * 10**10").status is Status.MEMORY


def test_files_cannot_be_written_or_removed(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.write_text("here")
    run(f"open({str(kept)!r}, 'w').write('gone')")
    run(f"import os; os.remove({str(kept)!r})")
    run(f"import os; os.open({str(tmp_path / 'new')!r}, os.O_CREAT | os.O_WRONLY)")
    assert kept.read_text() == "here" and os.listdir(tmp_path) == ["kept"]


@pytest.mark.parametrize(
    "exit_early", ["import os; os._exit(0)", "import sys; sys.exit(0)", "raise SystemExit", "exit(0)", "quit()"]
)
def test_leaving_early_passes_no_test(exit_early):
    assert run(exit_early).passed == (False,)


@pytest.mark.parametrize(
    "forgery",
    [
        "print('True' * 99)",
        "import os\nfor fd in range(16):\n  try: os.write(fd, b'R' + b'\\1' * 40)\n  except OSError: pass",
        "import sys\nfor s in (sys.stdout, sys.__stdout__, sys.stderr): s.write('\\1' * 40); s.flush()",
        "import os\nfor fd in range(16):\n  try: os.write(fd, b'\\1' * 18)\n  except OSError: pass\nos._exit(0)",
    ],
)
def test_a_verdict_cannot_be_forged_by_writing(forgery):
    assert run(forgery).passed == (False,)


def test_an_object_that_equals_everything_is_the_same_as_nothing():
    source = "class Any(int):\n  __eq__ = lambda s, o: True\n  __ne__ = __eq__\ndef f(n): return Any()"
    values = ("2", "2.0", "'a'", "[1]", "{'a': 1}", "None", "True")
    assert not any(run_expressions((Part("f", source),), tuple(f"same(f(1), {v})" for v in values)).passed)


def test_a_part_cannot_replace_the_comparison():
    assert run("same = lambda x, y: True\ndef f(n): return 0").passed == (False,)


def test_processes_signals_and_sockets_are_refused():
    for act in (
        "import os; os.fork()",
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.kill(os.getppid(), 0)",
        "import socket; socket.socket()",
    ):
        assert run(f"{act}\ndef f(n): return n + 1").passed == (False,), act


def test_a_fork_bomb_leaves_no_process_behind():
    mark = "forkbomb_mark"
    verdict = run(f"import os\nwhile True:\n  try: os.fork(); {mark} = 1\n  except ValueError: pass", timeout_s=0.3)
    assert verdict.status is Status.TIMEOUT
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not any(b"sandbox_child" in command for command in commands)


def test_the_environment_of_this_process_is_not_visible(monkeypatch):
    monkeypatch.setenv("MARL_COOP_SECRET", "1")
    assert run("import os\ndef f(n): return 'MARL_COOP_SECRET' in os.environ", "same(f(1), False)").passed == (True,)


def test_a_machine_that_cannot_start_the_interpreter_is_a_fault_and_not_the_codes_failure(monkeypatch):
    sandbox._run.cache_clear()
    for broken in ("/nowhere/python", "/bin/true"):
        monkeypatch.setattr(sys, "executable", broken)
        assert run_expressions((GOOD,), ("same(f(1), 2)",)).status is Status.FAULT
    monkeypatch.undo()
    assert run_expressions((GOOD,), ("same(f(1), 2)",)).passed == (True,)


def test_equal_content_runs_once_unless_it_timed_out():
    sandbox._run.cache_clear()
    for _ in range(2):
        run("def f(n): return n + 1")
        run("while True: pass", timeout_s=0.1)
    info = sandbox._run.cache_info()
    assert (info.hits, info.currsize) == (1, 1)


def test_text_that_is_no_unicode_fails_as_code():
    assert run("'\ud800'").passed == (False,)


def test_limits_out_of_range_are_named():
    with pytest.raises(ValueError, match="timeout_s is 0"):
        run("", timeout_s=0)
    with pytest.raises(ValueError, match="memory_mb is 1"):
        run("", memory_mb=1)
