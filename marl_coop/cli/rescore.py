"""`marl-coop rescore`: what the episodes of a run would have earned under other rewards."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from marl_coop.cli.arguments import (
    add_configuration,
    add_output,
    check_output,
    find_modules_beside,
    say_left_out,
    write_output,
)
from marl_coop.cli.terminal import wide_console
from marl_coop.config import policies
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE
from marl_coop.config.schema import Config, load_config
from marl_coop.evaluation.rescore import changes_nothing, table, with_known_rewards
from marl_coop.evaluation.rescore import rescore as score_again
from marl_coop.experiment.recorded import recorded_config
from marl_coop.runs import rundir
from marl_coop.runs.played import AFTER, BEFORE, TRAINING, saved_episodes
from marl_coop.runs.rundir import RunError


def rescore(argv: Sequence[str]) -> int:
    """Print what a run's episodes earned, and what they would have earned under other rewards."""
    parser = argparse.ArgumentParser(
        prog="marl-coop rescore",
        description="Score the saved episodes of a run by other rewards: those of the run with the files laid over "
        "them, from left to right, and the overrides last. Nothing is played.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    add_configuration(parser, required=False, example="rewards.consensus.weight=0")
    add_output(parser, "FILE", "write the numbers as JSON too")
    args = parser.parse_intermixed_args(argv)
    check_output(args.output, "FILE")
    if not args.config and not args.overrides:
        raise ConfigError("give other rewards by --config FILE or rewards.TERM.weight=NUMBER", source=COMMAND_LINE)
    find_modules_beside(args.config)
    own = recorded_config(args.run)
    other = load_config([rundir.configuration_of(args.run), *args.config], args.overrides)
    _check_rewards_alone(own, other)
    saved = saved_episodes(args.run, (BEFORE, TRAINING, AFTER), say_left_out)
    try:
        saved = with_known_rewards(saved, own.reward_stack, other.reward_stack, say_left_out)
        changes = score_again(saved, own.reward_stack, other.reward_stack, policies.learners(own.policies))
    except ValueError as error:
        raise RunError(f"{str(args.run)!r} cannot be scored again: {error}") from error
    console = wide_console()
    if changes_nothing(changes):
        console.print(f"{args.run}: each of its episodes would have earned the same under these rewards, in each term")
    else:
        console.print(table(changes, f"{args.run} under other rewards"))
    if args.output:
        write_output(args.output, json.dumps([asdict(change) for change in changes], indent=1) + "\n")
        console.print(f"results: {args.output}")
    return 0


def _check_rewards_alone(own: Config, other: Config) -> None:
    for key in Config.model_fields:
        if key not in ("rewards", "name") and getattr(own, key) != getattr(other, key):
            raise other.error((key,), "rescore takes other rewards and nothing else; leave this out")
