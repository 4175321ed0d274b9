"""The team's result: the one thing that is worth having, and what every other term must stay below."""

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.schedules import Weight


class TaskSuccess(RewardTerm):
    """r = U on the last turn of each seat: the same for all seats, because they solve one task together.

    Range: [0, 1].
    Source: the shared reward of a cooperative Markov game (Boutilier 1996).
    Gaming: U comes from hidden tests and from utilities that no seat reads, so the way to raise it is to settle the
    decisions well. It cannot tell who helped: a seat that does nothing is paid what its partner earns.

    Example: half of the decisions are settled well, so U = 0.5, and a seat with four turns is paid 0, 0, 0, 0.5.
    """

    weight: Weight = 1.0

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        return at_last_turn(episode, agent, episode.outcome.utility)
