"""All commands: finds the one that is asked for, and makes one line of whatever stops it.

A configuration or a run's folder that cannot be used, or no git for a game that merges, is one line on stderr and exit
code 2; an endpoint that gives no reply, an engine or a sandbox that fails, a process that is lost, faults beyond
`training.max_fault_rate`, a full disk, or a run whose output nobody reads any longer is one line and exit code 1. Of
several processes that a launcher has started, the first says the line.
"""

import argparse
import errno
import logging
import os
import reprlib
import signal
import sys
import time
from collections.abc import Callable, Sequence

from envs.repository.git import NoGitError
from envs.sandbox import SandboxError
from marl_coop import __version__
from marl_coop.cli.ablate import ablate
from marl_coop.cli.audit import audit
from marl_coop.cli.compare import compare
from marl_coop.cli.doctor import doctor
from marl_coop.cli.eval import evaluate
from marl_coop.cli.export import export
from marl_coop.cli.ledger import ledger
from marl_coop.cli.rescore import rescore
from marl_coop.cli.show import show
from marl_coop.cli.train import train
from marl_coop.cli.view import view
from marl_coop.config.errors import ConfigError
from marl_coop.engines import EngineError
from marl_coop.rollout.endpoint import EndpointError
from marl_coop.runs.checkpoints import FULL, CheckpointError
from marl_coop.runs.rundir import LostProcessError, RunError, TrainingError

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "eval": evaluate,
    "ablate": ablate,
    "compare": compare,
    "rescore": rescore,
    "ledger": ledger,
    "export": export,
    "view": view,
    "show": show,
    "audit": audit,
    "doctor": doctor,
}
PATIENCE_S = 30.0  # for the first process to say what stops them all


def run_command(argv: Sequence[str]) -> int:
    """Run the command that the first word names, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="marl-coop",
        description="Trains and evaluates teams of LoRA policies.",
        epilog="\n".join(
            ["commands; `marl-coop COMMAND --help` says more:", *(_summary(*command) for command in COMMANDS.items())]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"marl-coop {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    name = parser.parse_args(argv[:1] or ["--help"]).command
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT loads it, asked or not
    again = "Then the same command goes on." if name in ("eval", "ablate") else "Then run it again."
    return told_in_one_line(lambda: COMMANDS[name](argv[1:]), again)


def told_in_one_line(work: Callable[[], int], again: str = "Then run it again.") -> int:
    """The exit code of some work, or that of what stops it, which is one line on stderr.

    Args:
        again: what the line ends with where no run says how to go on.
    """
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError as error:  # `| head`: what was asked for has been read, but a run is to go on some day
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if hasattr(error, "__notes__"):
            _say(" ".join([f"error: {error}.", *error.__notes__]))
        return 1
    except (ConfigError, RunError, NoGitError) as error:
        _say(f"error: {error}")
        return 2
    except (EndpointError, EngineError, CheckpointError, LostProcessError, SandboxError, TrainingError) as error:
        said = f"error: {error}".rstrip(".")
        _say(" ".join([said if said.endswith("?") else f"{said}.", *getattr(error, "__notes__", [again])]))
        return 1
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # of a path that was given: the library's own are short
            _say(f"error: {reprlib.repr(error.filename)} is too long for the name of a file or a folder")
            return 2
        if error.errno not in FULL:
            raise
        _say(" ".join([f"error: {error}. Make room.", *getattr(error, "__notes__", [again])]))
        return 1


def _summary(name: str, command: Callable) -> str:
    """A line of the help: what a command does, by the first line of its docstring, and without its exit codes."""
    return f"  {name:9}{(command.__doc__ or '').partition(chr(10))[0].partition(';')[0].rstrip('.')}"


def _say(line: str) -> None:
    """Print a line on stderr, once for all processes.

    As soon as the first one has spoken and ended, a launcher ends the others. One that is left alone with its error
    speaks itself.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            time.sleep(PATIENCE_S)
        except KeyboardInterrupt:
            return
    print(line, file=sys.stderr)
