"""`marl-coop doctor`: what stands in the way of a run, on this machine, with this configuration."""

import argparse
from collections.abc import Sequence
from contextlib import suppress

from rich.table import Table
from rich.text import Text

from marl_coop.cli.arguments import add_configuration, count, find_modules_beside, set_environment
from marl_coop.cli.terminal import wide_console
from marl_coop.config.schema import load_config

COLOURS = {"ok": "green", "warning": "yellow", "failure": "bold red", "not tried": "dim"}


def doctor(argv: Sequence[str]) -> int:
    """Say what stands in the way of a run on this machine; exit code 1 where it could not be."""
    args = _parse(argv)
    config = load_config(args.config, args.overrides)
    set_environment()
    from marl_coop.experiment.doctor import check_memory, examine  # load torch
    from marl_coop.experiment.libraries import quiet_libraries
    from marl_coop.experiment.machine import check_machine, failed

    quiet_libraries()
    checks = list(check_machine(config))
    found = examine(config)
    checks += found.checks
    checks += check_memory(found, args.gpus, args.gpu_memory)
    table = Table(title=config.title)
    for column in ("check", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        state = Text(str(check.state), style=COLOURS[check.state])
        table.add_row(Text(check.name), state, Text(check.found), Text(check.remedy))
    wide_console().print(table)
    return int(failed(checks))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="marl-coop doctor",
        description="Say what stands in the way of a run: sandbox, git, versions, the model's own tests, memory.",
    )
    add_configuration(parser, required=False)
    parser.add_argument("--gpus", type=count, default=0, metavar="N", help="choose a launch file for so many GPUs")
    parser.add_argument("--gpu-memory", type=_gib, metavar="GIB", help="of each; without it, that of the GPU here")
    args = parser.parse_intermixed_args(argv)
    find_modules_beside(args.config)
    return args


def _gib(word: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(word)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"{word!r} is no size: give GiB, such as 24")
