"""`marl-coop eval`: runs, checkpoints, the base, scripted partners and endpoints under the conditions of a battery."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from marl_coop.cli.arguments import add_output, check_output, find_modules_beside, set_environment
from marl_coop.cli.terminal import wide_console
from marl_coop.config.battery import Battery
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE, read_as
from marl_coop.config.schema import load_config
from marl_coop.evaluation.battery_tables import tables
from marl_coop.experiment.battery import play_battery
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import find_team
from marl_coop.stops import STOPPED

QUICK = Path(__file__).parents[2] / "configs/batteries/quick.yaml"


def evaluate(argv: Sequence[str]) -> int:
    """Play runs, their base and partners under the conditions of a battery, and write what came of it."""
    args = _parse(argv)
    file = QUICK if args.quick else args.battery
    battery = read_as(file, Battery)
    teams = [find_team(who) for who in dict.fromkeys(args.who)]
    for team in teams:
        if team.unfinished:
            print(f"{team.name} has not ended: its {team.unfinished} plays", file=sys.stderr)
    files = args.config or [team.configuration for team in teams if team.configuration][:1]
    if not files:
        raise ConfigError("none of these is a run; give their environment by --config FILE", source=COMMAND_LINE)
    config = load_config(files, args.said)
    set_environment()
    plan = make_plan(battery, teams, config, str(file))
    folder = args.output or Path("evaluations") / file.stem
    try:
        results = play_battery(plan, folder)
    except KeyboardInterrupt:
        print(f"stopped; what was played is in {folder}: the same command goes on", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    console = wide_console()
    for table in tables(results):
        console.print(table)
    for one in results.unplayed:
        console.print(str(one), style="yellow")
    console.print(f"results: {folder / 'results.json'}")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="marl-coop eval",
        description="Play the conditions of a battery on the same tasks, with a floor and a ceiling beside. What was "
        "played is kept in the output folder: the same command goes on, or plays what a longer battery adds.",
    )
    parser.add_argument(
        "who",
        nargs="+",
        metavar="WHO",
        help="a run's folder or one of its checkpoints, base, warm (the base once it knows the format of replies), "
        "scripted:NAME, frozen:FOLDER (a PEFT adapter), or URL#MODEL",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--battery", type=Path, metavar="FILE", help="such as configs/batteries/full.yaml")
    which.add_argument("--quick", action="store_true", help="configs/batteries/quick.yaml: minutes on two cores")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="the experiment whose environment and base model to take; without one, that of the first run",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="such as training.temperature=0.5", dest="said"
    )
    add_output(parser, "DIR", "default: evaluations/<name of the battery>")
    args = parser.parse_args(argv)
    check_output(args.output, "DIR")
    find_modules_beside([*args.config, *(word for word in args.who if Path(word).exists())])
    return args
