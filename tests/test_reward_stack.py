"""Configuration of the terms, the sums, and the wrapper for plain PettingZoo."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pydantic import ValidationError
from test_reward_terms import PAIR, decide, play

from rewards import TERMS, RewardStack, RewardTerm, UnknownTerm
from rewards.terms.deference import Deference
from rewards.terms.task_success import TaskSuccess
from rewards.wrapper import RewardWrapper


class Humility(RewardTerm):
    """A term of somebody else: a constant per turn."""

    weight: float = 2.0
    per_turn: float = 0.5

    def __call__(self, episode, agent):
        return [self.per_turn for _ in episode.turns_of(agent)]


class Forgetful(Humility):
    def __call__(self, episode, agent):
        return [0.0]


def an_episode():
    return play(decide(), priors=[[("a", 0.9)], [("b", 0.9)]], talk=[[22], [4]], utility=1.0)


def test_from_config_builds_the_named_terms_in_order_with_their_fields():
    stack = RewardStack.from_config({"deference": {"alpha": 0.5}, "task_success": {"weight": 3}})
    assert stack.terms == (Deference(alpha=0.5), TaskSuccess(weight=3))
    assert stack.names == ("deference", "task_success")


def test_every_listed_term_is_found_by_its_name():
    assert RewardStack.from_config({term.name: {} for term in TERMS}).terms == tuple(term() for term in TERMS)


def test_a_term_of_somebody_else_comes_in_by_its_path():
    stack = RewardStack.from_config({f"{__name__}:Humility": {"per_turn": 0.25}})
    breakdown = stack.score(an_episode())
    assert breakdown.values["agent_0"] == {"humility": (0.25,) * 3}
    assert breakdown.per_turn("agent_0") == (0.5,) * 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deferance", "There is no reward term 'deferance'. Did you mean 'deference'"),
        ("zzz", "There is no reward term 'zzz'. Known: task_success, "),
        (
            "no_such_lab.rewards:Humility",
            "cannot be imported: No module named 'no_such_lab'. Check the path, or add the folder of",
        ),
        ("rewards:Humilty", "cannot be imported: module 'rewards' has no attribute 'Humilty'"),
        ("rewards:RewardStack", "not a subclass of rewards.RewardTerm"),
    ],
)
def test_a_name_that_is_no_term_is_refused_with_a_way_out(name, message):
    with pytest.raises(UnknownTerm) as error:
        RewardStack.from_config({name: {}})
    assert message in str(error.value)


@pytest.mark.parametrize("fields", [{"weight": -0.1}, {"weight": float("inf")}, {"wieght": 1.0}, {"alpha": -1.0}])
def test_a_wrong_field_is_refused(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        RewardStack.from_config({"deference": fields})


def test_the_term_that_the_readme_adds_is_a_key_in_yaml(tmp_path):
    """As its two edits say: a file, and the class in `TERMS`."""
    root = Path(__file__).parent.parent
    (block,) = re.findall(r"```python\n(.*?class Humility.*?)```", (root / "README.md").read_text(), re.DOTALL)
    (tmp_path / "humility.py").write_text(dedent(block.split("```python\n")[-1]))
    code = (
        "import humility, rewards.stack\n"
        "rewards.TERMS = rewards.stack.TERMS = (*rewards.TERMS, humility.Humility)\n"
        "from marl_coop.config.schema import load_config\n"
        "section = load_config(['configs/quickstart.yaml'], ['rewards.humility.weight=0.5']).rewards\n"
        "print(rewards.RewardStack.from_config(section).weights()['humility'], load_config([]).rewards['humility'])"
    )
    environment = os.environ | {"PYTHONPATH": f"{root}:{tmp_path}"}
    result = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("0.5 {'weight': 0.1}\n", "")


def test_two_terms_of_one_name_and_no_term_at_all_are_refused():
    with pytest.raises(ValueError, match=r"more than one is called \['deference'\]"):
        RewardStack((Deference(), Deference(alpha=0.0)))
    with pytest.raises(ValueError, match="at least one term"):
        RewardStack(())


def test_weight_zero_is_measured_and_adds_nothing():
    both = RewardStack((TaskSuccess(), Deference(weight=0.0))).score(an_episode())
    alone = RewardStack((TaskSuccess(),)).score(an_episode())
    assert both.term_total("agent_0", "deference") == pytest.approx(2 * 0.9925)
    assert both.per_turn("agent_0") == alone.per_turn("agent_0")


def test_a_term_that_returns_the_wrong_number_of_values_is_named():
    with pytest.raises(ValueError, match="'forgetful' gave 1 values for the 3 turns of 'agent_0'"):
        RewardStack((Forgetful(),)).score(an_episode())


def test_the_breakdown_is_plain_data():
    breakdown = RewardStack.from_config({"communication": {"weight": 0.5}}).score(an_episode())
    assert json.loads(json.dumps(breakdown.to_dict())) == {
        "weights": {"communication": 0.5},
        "values": {"agent_0": {"communication": [0.0, -0.5, 0.0]}, "agent_1": {"communication": [0.0, 0.0, 0.0]}},
    }


class ThreeSteps(ParallelEnv):
    """Ends after three steps and pays 7 for each, which nobody should see."""

    def __init__(self):
        self.possible_agents = list(PAIR)

    def observation_space(self, agent):
        return spaces.Discrete(2)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.steps = list(PAIR), 0
        return dict.fromkeys(PAIR, 0), {seat: {} for seat in PAIR}

    def step(self, actions):
        self.steps += 1
        over = self.steps == 3
        if over:
            self.agents, self.episode = [], an_episode()
        everyone = dict.fromkeys(PAIR, over)
        infos = {seat: {"steps": self.steps} for seat in PAIR}
        return dict.fromkeys(PAIR, 0), dict.fromkeys(PAIR, 7.0), everyone, dict.fromkeys(PAIR, False), infos


def test_the_wrapper_pays_the_whole_sum_on_the_last_step_and_says_which_turn_earned_it():
    stack = RewardStack.from_config({"task_success": {}, "communication": {}})
    env = RewardWrapper(ThreeSteps(), stack)
    env.reset()
    steps = [env.step(dict.fromkeys(PAIR, 0)) for _ in range(3)]
    assert [rewards for _, rewards, *_ in steps[:2]] == [dict.fromkeys(PAIR, 0.0)] * 2
    assert steps[2][1] == pytest.approx({"agent_0": 1.0 - 0.05, "agent_1": 1.0})
    info = steps[2][4]["agent_0"]
    assert info["turn_rewards"] == pytest.approx((0.0, -0.05, 1.0))
    assert info["reward_terms"] == pytest.approx({"task_success": 1.0, "communication": -0.5})
    assert info["steps"] == 3


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("consensus", {"weight": True}),
        ("consensus", {"weight": "0.1"}),
        ("capitulation", {"loss_aversion": True}),
        ("communication", {"free_tokens": True}),
        ("consensus", {"weight": {"schedule": "linear", "end": True, "updates": 3}}),
        ("consensus", {"weight": {"schedule": "after", "weight": 1.0, "updates": True}}),
    ],
)
def test_a_value_of_another_type_is_no_number(name, fields):
    with pytest.raises(ValueError, match="should be a valid"):
        RewardStack.from_config({name: fields})


def test_numbers_of_numpy_are_recorded_as_any_others():
    class Narrow(RewardTerm):
        weight: float = 1.0

        def __call__(self, episode, agent):
            return np.full(len(episode.turns_of(agent)), 0.5, dtype=np.float32)

    assert "0.5" in json.dumps(RewardStack((Narrow(),)).score(an_episode()).to_dict())
