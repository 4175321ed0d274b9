"""A training in which code that a model wrote would run with nothing but the interpreter around it."""

from pathlib import Path

import pytest

from envs import ENVIRONMENTS, paired_functions
from envs.repository import tree_tests
from envs.sandbox import forks, tiers
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment.checks import check_confinement

BASE = Path(__file__).parents[1] / "configs/base.yaml"
BARE = tiers.Tier(kind="forks", layers=("memory",), missing={"landlock": "too old", "seccomp": "not allowed"})


def config(*overrides):
    return load_config([BASE], overrides)


def test_it_is_refused_in_one_line_that_names_the_layers_and_the_key(monkeypatch):
    monkeypatch.setattr(forks, "tier", lambda: BARE)
    for game in ("PairedFunctions", "PairedFeatures"):
        with pytest.raises(ConfigError, match="allow_unconfined_code: .*without landlock: too old") as caught:
            check_confinement(config(f"env.name={game}"))
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="allow_unconfined_code"):
        check_confinement(config("env.name=DesignReview", "evaluation.env={name: PairedFunctions}"))


def test_one_key_allows_it_and_games_without_code_need_none(monkeypatch):
    monkeypatch.setattr(forks, "tier", lambda: BARE)
    check_confinement(config("allow_unconfined_code=true"))
    for game in ("DesignReview", "MoonSurvival", "Handover"):
        check_confinement(config(f"env.name={game}"))


def test_a_layer_that_is_demanded_and_missing_refuses_it_too(monkeypatch):
    def refuses():
        raise tiers.SandboxError("MARL_COOP_SANDBOX demands seccomp")

    monkeypatch.setattr(forks, "tier", refuses)
    with pytest.raises(ConfigError, match="MARL_COOP_SANDBOX demands seccomp"):
        check_confinement(config())


@pytest.mark.parametrize("game", ENVIRONMENTS)
def test_a_game_that_runs_small_tests_says_so(game, monkeypatch):
    """Seen by playing it."""
    asked = []
    for module in (paired_functions, tree_tests):
        run = module.run_expressions
        monkeypatch.setattr(module, "run_expressions", lambda *a, run=run, **b: asked.append(1) or run(*a, **b))
    env = game()
    play(env, dict.fromkeys(env.possible_agents, find_partner("ideal", env)), seed=0)
    assert bool(asked) is game.RUNS_CODE
