"""Solo gain: what the team added to, or took from, what one of the seats gets done alone."""

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.schedules import Weight


class SoloGain(RewardTerm):
    """r = U(team) - U(the better seat alone) on the last turn of each seat: the same task, as many tokens in all, and
    a frozen snapshot that plays alone.

    Range: [-1, 1]; exactly 0 where nobody played the task alone.
    Source: our own; the difference that CooperBench calls the cost of coordination.

    Gaming: a seat cannot lower the bar, as the soloist is a snapshot that does not learn. The bar does not depend on
    what the team does in this episode, so it moves the baseline and not the order of any two ways to play: U pays.

    Example: the team solves half, U = 0.5, and one seat alone all of it: 0.5 - 1 = -0.5.
    """

    weight: Weight = 0.0  # it takes another rollout

    def applies(self, episode: Episode) -> bool:
        return episode.outcome.solo_utility is not None

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        alone = episode.outcome.solo_utility
        return at_last_turn(episode, agent, 0.0 if alone is None else episode.outcome.utility - alone)
