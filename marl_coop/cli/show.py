"""`marl-coop show`: one episode in the terminal."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from marl_coop.cli.terminal import plain_console
from marl_coop.runs.rundir import RunError
from marl_coop.viewer import terminal
from marl_coop.viewer.episodes import detail, row
from marl_coop.viewer.source import read_run


def show(argv: Sequence[str]) -> int:
    """Print one episode of a run or of an evaluation."""
    parser = argparse.ArgumentParser(prog="marl-coop show", description="Print one episode of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run or of an evaluation")
    parser.add_argument(
        "episode",
        metavar="EPISODE",
        help="file and line, as `marl-coop view` calls it: before:3, update-0001.0:17, persuader/base:2",
    )
    args = parser.parse_args(argv)
    run = read_run(args.run)
    played = {one.id: one for one in run.played}
    if args.episode not in played:
        known = f"it has {next(iter(played))} to {next(reversed(played))}" if played else "nothing has been played yet"
        unread = [notice for notice in run.notices if args.episode.partition(":")[0] in notice]
        raise RunError("; ".join([f"{str(args.run)!r} has no episode {args.episode!r}; {known}", *unread]))
    one = played[args.episode]
    console = plain_console()
    console.print(terminal.episode(row(one, run.stack), detail(one, run.stack), console.width))
    return 0
