"""`marl-coop train`; train.py is the same."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from marl_coop.cli.arguments import add_configuration, find_modules_beside, set_environment
from marl_coop.config.checks import check_config
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE
from marl_coop.config.schema import Config, load_config
from marl_coop.experiment.recorded import recorded_config
from marl_coop.experiment.start import check_start
from marl_coop.runs import rundir

NEWEST = ""  # --resume without a folder


def train(argv: Sequence[str]) -> int:
    """Train a team from a configuration, go on with a run, or print the resolved configuration."""
    args = _parse(argv)
    if args.resume is None and not args.config:
        raise ConfigError("give a file with --config FILE, or a run to go on with by --resume DIR", source=COMMAND_LINE)
    place = None if args.resume is None else _place(args)
    if place is None:
        config = load_config(args.config, args.overrides)
    else:
        run, _ = rundir.locate(place)
        recorded = recorded_config(run)
        config = load_config(args.config or [rundir.configuration_of(run)], args.overrides)
        config = config.going_on(recorded)
    if place is None:
        check_start(config)
    else:
        check_config(config)
    if args.print_config:
        print(config.to_yaml(), end="")
        return 0

    set_environment()
    from marl_coop.experiment.experiment import Experiment  # loads torch

    experiment = Experiment(config) if place is None else Experiment.resume(place, config)
    if args.dry_run:
        experiment.check_model()
        experiment.console.print("nothing stands in the way of this run")
        return 0
    experiment.run(profile=args.profile)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="marl-coop train",
        description="Train a team of policies.",
        epilog="Files are merged from left to right and overrides come last. A key that has dots of its own goes in "
        "brackets: 'rewards[my_lab.rewards:Humility].weight=0.5'.",
    )
    add_configuration(parser, required=False)
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="check and print the whole configuration, and stop",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="load the model, check it, the adapters and all lengths, and stop"
    )
    parser.add_argument(
        "--profile", action="store_true", help="print where the time of each update went, and how much of it is left"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="DIR",
        help="go on from the last checkpoint of a run: of this folder (which must have no '=' in its name), or of the "
        "newest run with this configuration's name; with DIR, the configuration is that of the run",
    )
    args = parser.parse_intermixed_args(argv)
    if args.resume and "=" in args.resume:  # `--resume seed=1`: an override that follows, not a folder
        args.overrides.insert(0, args.resume)
        args.resume = NEWEST
    find_modules_beside(args.config)
    return args


def _place(args: argparse.Namespace) -> Path:
    """The checkpoint that the run goes on from, or its folder where it has none yet."""
    if args.resume:
        return _checkpoint_of(Path(args.resume))
    if not args.config:
        raise ConfigError(
            "--resume without a folder needs --config FILE, whose newest run it takes", source=COMMAND_LINE
        )
    config: Config = load_config(args.config, args.overrides)
    return _checkpoint_of(Path(config.output_dir) if config.output_dir else rundir.newest_run(config.title))


def _checkpoint_of(place: Path) -> Path:
    folder, checkpoint = rundir.locate(Path(os.path.expanduser(place)))
    return checkpoint or folder
