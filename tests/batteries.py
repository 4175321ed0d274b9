"""Batteries of a few conditions, planned and played by scripted partners."""

from pathlib import Path

from marl_coop.config.battery import Battery
from marl_coop.config.schema import load_config
from marl_coop.experiment.battery import play_battery
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import Team, find_team

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/examples/design_review.yaml"
IDEAL = find_team("scripted:ideal")
MIXED = Team(name="mixed", policies=("scripted:ideal", "scripted:silent"))


def battery(*conditions, episodes=12, floor="scripted:averager", **fields) -> Battery:
    return Battery.model_validate({"conditions": list(conditions), "episodes": episodes, "floor": floor, **fields})


def planned(*conditions, teams=(IDEAL,), config=None, **fields):
    return make_plan(battery(*conditions, **fields), teams, config or load_config([CONFIG]), "battery.yaml")


def played(folder, *conditions, **fields):
    """Who and condition -> the episodes of that match, and the results."""
    results = play_battery(planned(*conditions, **fields), folder)
    return {(one.match.who, one.match.condition): one for one in results.played}, results
