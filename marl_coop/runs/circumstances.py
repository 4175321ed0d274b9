"""What a start of a run says of itself: the command, the code, the sandbox, the versions of libraries."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from envs import sandbox

_PACKAGES = ("marl-coop", "torch", "trl", "transformers", "peft", "accelerate")


def circumstances() -> dict[str, Any]:
    """`command` and number of `processes`, state of `git`, `sandbox` and `versions`, as plain data."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as a launcher says it
    return {
        "command": sys.orig_argv if processes == 1 else _launched(),
        "processes": processes,
        "git": _git_state(),
        "sandbox": sandbox.describe().splitlines(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }


def _launched() -> list[str]:
    """The words of what launched this process, which end with what it handed on; its own where those are not known."""
    arguments = sys.argv[1:]
    try:
        launcher = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:  # it has ended, or is not ours to look at
        return sys.orig_argv
    return launcher if arguments and launcher[-len(arguments) :] == arguments else sys.orig_argv


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a clone that is imported without being installed
        return None


def _git_state() -> dict | None:
    """Commit of this code, and whether files differ from it; None where the code is in no git checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            result = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        except FileNotFoundError:  # no git on this machine
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": git("status", "--porcelain") != ""}
