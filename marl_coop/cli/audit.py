"""`marl-coop audit`: what every cheap policy earns under the rewards."""

import argparse
from collections.abc import Sequence

from rich.console import Console

from envs import ENVIRONMENTS, CoopEnv
from envs.core.episode import Phase
from marl_coop.cli.arguments import add_configuration, find_modules_beside
from marl_coop.config.builders import env_maker, laid_over
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE
from marl_coop.config.schema import Config, load_config
from marl_coop.evaluation import audit as audits


def audit(argv: Sequence[str]) -> int:
    """Print what every cheap policy earns under the rewards; exit code 1 where honest play is not first."""
    parser = argparse.ArgumentParser(
        prog="marl-coop audit",
        description="Does honest play earn more than every cheap policy? On the configuration's environment, and on "
        "every other of the 2x2 design that plays without a repository, with what it shares of the settings; alone "
        "against an ideal partner, and with its like.",
    )
    add_configuration(parser)
    parser.add_argument("--episodes", type=int, default=200, help="tasks per policy and mode (default: 200)")
    args = parser.parse_intermixed_args(argv)
    find_modules_beside(args.config)
    config = load_config(args.config, args.overrides)
    if args.episodes < 2:
        raise ConfigError(f"--episodes {args.episodes}: an interval needs at least 2", source=COMMAND_LINE)
    console, beaten = Console(width=100), False
    for name, env in _audited(config).items():
        played = audits.play_exploits(env, args.episodes)
        rows = audits.audit(config.reward_stack, played)
        console.print(audits.table(rows, f"{config.title}: {name}, {args.episodes} tasks"))
        for policy, needs in played.left_out.items():
            console.print(f"{policy} is left out: without {needs} it plays like the ideal")
        winners = audits.winners(rows)
        beaten = beaten or bool(winners)
        listed = ", ".join(f"{row.policy} ({row.mode})" for row in winners)
        console.print(f"not beaten for certain: {listed}" if winners else "honest play is first")
    return int(beaten)


def _audited(config: Config) -> dict[str, CoopEnv]:
    """The configuration's environment, and every other that the audit can play, with what it shares of the settings."""
    env = config.make_env()
    if not audits.auditable(env):
        raise config.error(("env",), "the audit plays pairs of the 2x2 design: another environment, or agents: 2")
    section = {key: value for key, value in config.env.items() if key != "curriculum"}
    audited = {config.env["name"]: env}
    for cls in ENVIRONMENTS:
        if cls.__name__ not in audited and audits.auditable(cls()) and Phase.WORK not in cls().schedule:
            audited[cls.__name__] = env_maker(laid_over(section, {"name": cls.__name__}), ("env",))()
    return audited
