"""A training in which code that a model wrote would run with nothing but the interpreter around it."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from envs import ENVIRONMENTS, paired_functions
from envs.repository import tree_tests
from envs.sandbox import forks, tiers
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop.config.battery import Battery
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment.battery import play_battery
from marl_coop.experiment.checks import check_confinement
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import find_team

BASE = Path(__file__).parents[1] / "configs/base.yaml"
BARE = tiers.Tier(kind="forks", layers=("memory",), missing={"landlock": "too old", "seccomp": "not allowed"})


def check(*overrides):
    config = load_config([BASE], overrides)
    check_confinement(config, (config.make_env.cls, config.make_evaluation_env.cls))


def test_it_is_refused_in_one_line_that_names_the_layers_and_the_key(monkeypatch):
    monkeypatch.setattr(forks, "tier", lambda: BARE)
    for game in ("PairedFunctions", "PairedFeatures"):
        with pytest.raises(ConfigError, match="allow_unconfined_code: .*without landlock: too old") as caught:
            check(f"env.name={game}")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="allow_unconfined_code"):
        check("env.name=DesignReview", "evaluation.env={name: PairedFunctions}")


def test_one_key_allows_it_and_games_without_code_need_none(monkeypatch):
    monkeypatch.setattr(forks, "tier", lambda: BARE)
    check("allow_unconfined_code=true")
    for game in ("DesignReview", "MoonSurvival", "Handover"):
        check(f"env.name={game}")


def test_an_evaluation_runs_a_models_code_no_more_than_a_training_and_its_own_partners_freely(monkeypatch, tmp_path):
    monkeypatch.setattr(forks, "tier", lambda: BARE)
    battery = Battery.model_validate({"conditions": [{"name": "unseen"}], "episodes": 2, "floor": None})
    for who, refused in (("scripted:echo", False), ("base", True)):
        plan = make_plan(battery, [find_team(who)], load_config([BASE]), "battery.yaml")
        with pytest.raises(ConfigError, match="allow_unconfined_code") if refused else nullcontext():
            play_battery(plan, tmp_path / who)


def test_a_layer_that_is_demanded_and_missing_refuses_it_too(monkeypatch):
    def refuses():
        raise tiers.SandboxError("MARL_COOP_SANDBOX demands seccomp")

    monkeypatch.setattr(forks, "tier", refuses)
    with pytest.raises(ConfigError, match="MARL_COOP_SANDBOX demands seccomp"):
        check()


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
