"""Programs in processes of their own that need not import the library: a server has done so, and forks itself for each.

They do what they would do from nothing, a quarter of a minute sooner. Some tests start train.py from nothing, too.
"""

import atexit
import gc
import itertools
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["marl_coop.experiment.experiment"])
NUMBERS = itertools.count()


class Forked:
    """A process, with what tests use of `subprocess.Popen`; what it says goes into files of a folder.

    The command is Python with a file, with -c and code, or with -m and a module, and arguments.
    """

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], folder: Path, cwd: Path = ROOT):
        self.outputs = [folder / f"forked-{next(NUMBERS)}" for _ in range(2)]
        for output in self.outputs:
            output.touch()
        words = [*map(str, command[1:])]
        self.process = SERVER.Process(target=become, args=(words, dict(env), cwd, self.outputs))
        with pytest.MonkeyPatch.context() as patch:  # for the server, which the first process starts
            patch.setenv("PYTHONPATH", str(ROOT))
            patch.setenv("OMP_NUM_THREADS", "1")
            self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.process.pid and self.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def said(self) -> tuple[str, str]:
        """What it has written so far."""
        out, errors = (output.read_text() for output in self.outputs)
        return out, errors

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has written when it has ended; one that takes too long is killed."""
        self.process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.process.name, timeout or 0, *self.said())
        return self.said()


def become(words: Sequence[str], env: Mapping[str, str], cwd: Path, outputs: Sequence[Path]) -> None:
    """Run a program as Python would from nothing."""
    gc.freeze()  # what the server has imported stays
    for number, name in enumerate(outputs, start=1):
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # it is read anew
    os.chdir(cwd)
    how, *rest = words
    sys.argv = [how, *(rest[1:] if how in ("-c", "-m") else rest)]
    first = {"-c": "", "-m": str(cwd)}.get(how, str(Path(how).parent))
    own = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [first, *env["PYTHONPATH"].split(":"), *own]
    try:
        if how == "-c":
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(rest[0], vars(main))
        elif how == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(how, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out when a process ends
