"""The command line: `marl-coop train | audit`. train.py is `marl-coop train`.

A configuration that cannot be used is one line on stderr and exit code 2; an endpoint that gives no reply is one line
and exit code 1, and the run can be resumed. torch is loaded only once the configuration has passed, so a typing error
is answered at once.
"""

import argparse
import netrc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

import envs
from envs.core.arguments import arguments_of
from envs.core.episode import Phase
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE
from marl_coop.config.schema import Config, build_env, load_config
from marl_coop.evaluation import audit as audits
from marl_coop.rollout.endpoint import EndpointError
from marl_coop.runs.rundir import find_checkpoint
from rewards import RewardStack


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="marl-coop", description=__doc__.splitlines()[0])
    commands = {"train": train, "audit": audit}
    parser.add_argument("command", choices=commands, help="`marl-coop COMMAND --help` says more")
    command = commands[parser.parse_args(argv[:1]).command]
    try:
        return command(argv[1:])
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except EndpointError as error:
        print(f"error: {error} Then --resume goes on.", file=sys.stderr)
        return 1


def train(argv: Sequence[str]) -> int:
    """Train from a configuration, or print it."""
    parser = argparse.ArgumentParser(
        prog="marl-coop train",
        description="Train a team of policies.",
        epilog="Files are merged from left to right and overrides come last. A key that has dots of its own goes in "
        "brackets: 'rewards[my_lab.rewards:Humility].weight=0.5'.",
    )
    _add_configuration(parser)
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="DIR",
        help="go on from the last checkpoint of a run: of this folder (which must have no '=' in its name), or of the "
        "newest run with this configuration's name",
    )
    args = parser.parse_intermixed_args(argv)
    if args.resume and "=" in args.resume:  # `--resume seed=1`: an override that follows, not a folder
        args.overrides.insert(0, args.resume)
        args.resume = NEWEST

    config = _configuration(args)
    if args.print_config:
        print(config.to_yaml(), end="")
        return 0
    checkpoint = None if args.resume is None else find_checkpoint(config, args.resume or None)

    _set_environment()
    from marl_coop.experiment.experiment import run  # loads torch

    run(config, resume=checkpoint)
    return 0


def audit(argv: Sequence[str]) -> int:
    """Print what every cheap policy earns under the rewards; exit code 1 where honest play is not first."""
    parser = argparse.ArgumentParser(
        prog="marl-coop audit",
        description="Does honest play earn more than every cheap policy? On the configuration's environment, and on "
        "every other of the 2x2 design that plays without a repository, with what it shares of the settings; alone "
        "against an ideal partner, and with its like.",
    )
    _add_configuration(parser)
    parser.add_argument("--episodes", type=int, default=200, help="tasks per policy and mode (default: 200)")
    args = parser.parse_intermixed_args(argv)
    config = _configuration(args)
    if args.episodes < 2:
        raise ConfigError(f"--episodes {args.episodes}: an interval needs at least 2", source=COMMAND_LINE)
    if not audits.auditable(config.make_env()):
        raise config.error(("env",), "the audit plays pairs of the 2x2 design: another environment, or agents: 2")
    stack, console, beaten = RewardStack.from_config(config.rewards), Console(width=100), False
    common = arguments_of(envs.CoopEnv).model_fields.keys() - {"families"}  # each environment has its own
    shared = {key: value for key, value in config.env.items() if key in common}
    audited = {config.env["name"]: config.make_env()}
    for cls in envs.ENVIRONMENTS:
        if cls.__name__ not in audited and audits.auditable(cls()) and Phase.WORK not in cls().schedule:
            audited[cls.__name__] = build_env({"name": cls.__name__} | shared, ("env",))
    for name, env in audited.items():
        played = audits.play_zoo(env, args.episodes)
        rows = audits.audit(stack, played)
        console.print(audits.table(rows, f"{config.name}: {name}, {args.episodes} tasks"))
        for policy, needs in played.left_out.items():
            console.print(f"{policy} is left out: without {needs} it plays like the ideal")
        winners = audits.winners(rows)
        beaten = beaten or bool(winners)
        listed = ", ".join(f"{row.policy} ({row.mode})" for row in winners)
        console.print(f"not beaten for certain: {listed}" if winners else "honest play is first")
    return int(beaten)


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as training.learning_rate=1e-5")
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="may be given several times")


def _configuration(args: argparse.Namespace) -> Config:
    """What the files and overrides say. A module that they name may lie in the working directory or beside a file;
    Python looks there last, so none hides another.
    """
    folders = [Path.cwd(), *(Path(file).resolve().parent for file in args.config)]
    sys.path += [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in sys.path]
    return load_config(args.config, args.overrides)


NEWEST = ""  # --resume without a folder


def _set_environment() -> None:
    """Settings of libraries that are read when they are imported. What the user has set stays."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the tokenizer's threads and forks do not mix
    if not _wandb_login():
        os.environ.setdefault("WANDB_MODE", "offline")


def _wandb_login() -> bool:
    """Whether wandb could log in without asking: with an API key in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host in netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
