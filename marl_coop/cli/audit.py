"""`marl-coop audit`: what every cheap policy earns under the rewards."""

import argparse
from collections.abc import Sequence

from envs import ENVIRONMENTS, CoopEnv
from envs.core.episode import Phase
from marl_coop.cli.arguments import add_configuration, find_modules_beside
from marl_coop.cli.terminal import plain_console
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
        "every other that plays without a repository and of which it is known what honest play is, with what it shares "
        "of the settings; alone against an ideal partner, and with its like.",
    )
    add_configuration(parser, example="env.rounds=2")
    parser.add_argument(
        "--episodes", type=int, default=200, metavar="N", help="tasks per policy and mode (default: 200)"
    )
    args = parser.parse_intermixed_args(argv)
    find_modules_beside(args.config)
    config = load_config(args.config, args.overrides)
    if args.episodes < 2:
        raise ConfigError(f"--episodes {args.episodes}: an interval needs at least 2", source=COMMAND_LINE)
    console, beaten = plain_console(width=100), False
    for name, (env, differs) in _audited(config).items():
        played = audits.play_exploits(env, args.episodes, label=f"{config.title}: {name}")
        rows = audits.audit(config.reward_stack, played)
        console.print(audits.table(rows, f"{config.title}: {name}, {args.episodes} tasks"))
        if differs:
            console.print(f"{name} cannot have {' and '.join(differs)}, and is played as it is by default there")
        for policy, needs in played.left_out.items():
            console.print(f"{policy} is left out: without {needs} it plays like the ideal")
        winners = audits.winners(rows)
        beaten = beaten or bool(winners)
        listed = ", ".join(f"{row.policy} ({row.mode})" for row in winners)
        console.print(f"not beaten for certain: {listed}" if winners else "honest play is first")
    return int(beaten)


def _audited(config: Config) -> dict[str, tuple[CoopEnv, list[str]]]:
    """The configuration's environment, and every other that the audit can play, with what it shares of the settings
    and with what it refuses of these."""
    env = config.make_env()
    if not audits.auditable(env):
        raise config.error(("env",), f"{audits.NOT_AUDITABLE}: choose another, or agents: 2")
    section = {key: value for key, value in config.env.items() if key != "curriculum"}
    audited: dict[str, tuple[CoopEnv, list[str]]] = {config.env["name"]: (env, [])}
    for cls in ENVIRONMENTS:
        if cls.__name__ not in audited and Phase.WORK not in cls().schedule and audits.auditable(cls()):
            audited[cls.__name__] = _with_settings(laid_over(section, {"name": cls.__name__}))
    return audited


def _with_settings(section: dict) -> tuple[CoopEnv, list[str]]:
    """The environment of a section without the settings that it refuses, and these."""
    refused: list[str] = []
    while True:
        try:
            return env_maker(section, ("env",))(), refused
        except ConfigError as error:
            key = error.keys[1]
            refused.append(f"env.{key}={section[key]!r}")
            section = {other: value for other, value in section.items() if other != key}
