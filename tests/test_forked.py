"""Programs that are forked from one that has imported the library do what they would do from nothing."""

import subprocess
import sys
import time

import pytest
from forked import ROOT, Forked
from processes import TESTS, launch
from train_py import hear_interrupts

PROGRAM = """
import atexit, os, signal, sys, tempfile
atexit.register(print, "the end")
print(__name__, sys.argv, sys.path[:3], os.getcwd(), tempfile.gettempdir(), signal.getsignal(signal.SIGINT))
print({name: os.environ.get(name) for name in ("TOLD", "UNTOLD", "TMPDIR")}, file=sys.stderr)
sys.exit("it ends by a word")
"""


@pytest.mark.parametrize("how", ["-c", "a file", "-m"])
def test_a_forked_program_sees_says_and_leaves_what_one_from_nothing_does(tmp_path, monkeypatch, how):
    monkeypatch.setenv("UNTOLD", "what the tests know")
    (tmp_path / "program.py").write_text(PROGRAM)
    words = {"-c": ["-c", PROGRAM], "a file": [str(tmp_path / "program.py")], "-m": ["-m", "program"]}[how]
    command = [sys.executable, *words, "two words", "-c"]
    environment = {"TOLD": "yes", "PYTHONPATH": f"{TESTS}:{ROOT}", "TMPDIR": str(tmp_path)}
    options = {"env": environment, "cwd": tmp_path, "preexec_fn": hear_interrupts}
    ended = subprocess.run(command, capture_output=True, text=True, **options)
    forked = Forked(command, environment, tmp_path, cwd=tmp_path)
    assert forked.communicate(timeout=100) == (ended.stdout, ended.stderr)
    assert forked.returncode == ended.returncode == 1 and ended.stderr.endswith("it ends by a word\n")


def test_a_process_of_several_that_fails_is_quoted_and_ends_the_others(tmp_path):
    script = 'import os, sys, time; time.sleep(200) if os.environ["RANK"] == "0" else sys.exit("it lacks something")'
    before = time.monotonic()
    with pytest.raises(AssertionError, match="it lacks something"):
        launch(script, tmp_path / "two", 2)
    assert time.monotonic() - before < 100
