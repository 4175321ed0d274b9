"""`marl-coop ledger`: what the tokens of a run's episodes cost, before and after training."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from envs.core.episode import Episode
from marl_coop.cli.arguments import add_output, check_output, say_left_out, write_output
from marl_coop.cli.terminal import wide_console
from marl_coop.config.layers import read_as
from marl_coop.evaluation.ledger import measure_ledger, table
from marl_coop.runs import rundir
from marl_coop.runs.played import AFTER, BEFORE, TRAINING, saved_episodes
from marl_coop.runs.rundir import RunError
from rewards.metrics.ledger import PriceList

EXAMPLE = Path(__file__).parents[2] / "configs/prices/example.yaml"


def ledger(argv: Sequence[str]) -> int:
    """Print what the tokens of a run cost, before and after training."""
    parser = argparse.ArgumentParser(
        prog="marl-coop ledger",
        description="What the tokens of a run's own episodes cost, and what many such agents pay in a month, before "
        "and after training.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--prices",
        type=Path,
        default=EXAMPLE,
        metavar="FILE",
        help="your prices (default: configs/prices/example.yaml)",
    )
    add_output(parser, "FILE", "write the numbers as JSON too")
    args = parser.parse_args(argv)
    check_output(args.output, "FILE")
    name, prices = rundir.recorded(args.run)["name"], read_as(args.prices, PriceList)
    saved = saved_episodes(args.run, (BEFORE, TRAINING, AFTER), say_left_out)
    try:
        parts = _paired({part: [one.episode for one in episodes] for part, episodes in saved.items()})
        found = measure_ledger(parts, prices)
    except ValueError as error:
        raise RunError(f"{str(args.run)!r} has no ledger: {error}") from error
    console = wide_console()
    console.print(table(found, prices, f"{name}: the token ledger"))
    if args.output:
        lines = {part: {line: asdict(metric) for line, metric in metrics.items()} for part, metrics in found.items()}
        content = {"prices": prices.model_dump(), "ledger": lines}
        write_output(args.output, json.dumps(content, indent=1) + "\n")
        console.print(f"results: {args.output}")
    return 0


def _paired(parts: dict[str, list[Episode]]) -> dict[str, list[Episode]]:
    """The parts without the tasks that can be read of one side alone, before or after training."""
    tasks = [{episode.task.id for episode in parts[part]} for part in (BEFORE, AFTER) if part in parts]
    alone = set.union(*tasks) - set.intersection(*tasks) if len(tasks) == 2 else set()
    if alone:
        say_left_out(f"{len(alone)} tasks that are in one of before and after alone: {', '.join(sorted(alone)[:3])}")
    return {
        part: [e for e in episodes if part == TRAINING or e.task.id not in alone] for part, episodes in parts.items()
    }
