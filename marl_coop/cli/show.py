"""`marl-coop show`: one episode in the terminal."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from marl_coop.cli.terminal import plain_console
from marl_coop.runs.rundir import RunError
from marl_coop.viewer import terminal
from marl_coop.viewer.episodes import counterparts, detail, row
from marl_coop.viewer.source import read_run
from marl_coop.viewer.text import visible


def show(argv: Sequence[str]) -> int:
    """Print one episode of a run or of an evaluation."""
    parser = argparse.ArgumentParser(prog="marl-coop show", description="Print one episode of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run or of an evaluation")
    parser.add_argument(
        "episode",
        metavar="EPISODE",
        help="file and line, as `marl-coop view` calls it: before:3, update-0001.0:17, persuader/base:2",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="also what each seat was told in each turn, the sampled tokens with their log-probabilities, and what "
        "each branch changes",
    )
    parser.add_argument(
        "--beside",
        metavar="OTHER",
        help="also the same task elsewhere: another episode, or a seat, for the episode as it went with nobody hearing "
        "that seat; those that there are stand at the end",
    )
    args = parser.parse_args(argv)
    run = read_run(args.run)
    played = {one.id: one for one in run.played}
    if args.episode not in played:
        known = f"it has {next(iter(played))} to {next(reversed(played))}" if played else "nothing has been played yet"
        unread = [notice for notice in run.notices if args.episode.partition(":")[0] in notice]
        raise RunError("; ".join([f"{str(args.run)!r} has no episode {args.episode!r}; {known}", *unread]))
    one = played[args.episode]
    others = counterparts(one, run.played)
    if args.beside is not None and args.beside not in others:
        known = f"it has {', '.join(others)}" if others else "it has none"
        raise RunError(f"--beside {args.beside}: nothing of this name is of the same task; {known}")
    console = plain_console()
    for shown in [one, *([others[args.beside]] if args.beside is not None else [])]:
        stack = run.stack_of(shown)
        console.print(terminal.episode(row(shown, stack), detail(shown, stack), console.width, args.all))
    if args.beside is None:
        for name, other in others.items():
            solved = "solved" if other.episode.outcome.success else "not solved"
            told = f"--beside {name}: {other.id}, {solved}, result U {other.episode.outcome.utility:.2f}"
            console.print(visible(told))
    return 0
