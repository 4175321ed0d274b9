"""Rewards for plain PettingZoo: wrap a cooperative environment and `step` returns what the terms pay."""

from typing import Any, cast

from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper

from envs.core.env import CoopEnv
from rewards import RewardStack


class RewardWrapper(BaseParallelWrapper):
    """Pays each seat the weighted sum over its turns on the step that ends the episode, and 0.0 on the steps before.

    Every term needs the outcome, so no turn's value is known when the turn is taken, and a reward cannot be sent back
    to an earlier step. The last step therefore pays the sum, and its infos say which turn earned what:
    `infos[agent]["turn_rewards"]` is the weighted value of each turn, for learners that assign credit by turn, and
    `infos[agent]["reward_terms"]` each term's unweighted total.

    The wrapped environment ends for all seats on the same step and then holds the record as `episode`.
    """

    def __init__(self, env: ParallelEnv, rewards: RewardStack):
        super().__init__(env)
        self.reward_stack = rewards

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        observations, _, terminations, truncations, infos = self.env.step(actions)
        if self.env.agents:
            return observations, dict.fromkeys(terminations, 0.0), terminations, truncations, infos
        breakdown = self.reward_stack.score(cast(CoopEnv, self.env.unwrapped).episode)
        payment = {agent: breakdown.total(agent) for agent in terminations}
        infos = {
            agent: infos[agent]
            | {
                "turn_rewards": breakdown.per_turn(agent),
                "reward_terms": {name: breakdown.term_total(agent, name) for name in self.reward_stack.names},
            }
            for agent in terminations
        }
        return observations, payment, terminations, truncations, infos
