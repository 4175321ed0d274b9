"""Comparison arm: a charge for ending wrong after being right, with no thought of what switching is worth."""

from envs.core.episode import Episode
from envs.core.task import Decision, Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import mean_over_decisions, prior_option
from rewards.schedules import Weight


class NaiveCapitulation(RewardTerm):
    """r = -(share of decisions, by weight, on which the seat's prior was right and its committed answer is not), on
    the last turn.

    Range: [-1, 0].
    Source: the obvious penalty, kept as an arm that must fail.

    Gaming: it is avoided by a wrong or unreadable first answer, which costs nothing here, and by never listening. It
    also charges a change of mind that no partner caused. `capitulation` is anchored and has a known threshold.

    Example: prior a (right), committed to b: -1. Prior b, committed to b: 0.
    """

    weight: Weight = 0.0

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        def lost(decision: Decision) -> float:
            before, after = prior_option(episode, agent, decision), episode.committed(agent, decision.id)
            return -float(decision.is_right(before) and not decision.is_right(after))

        return at_last_turn(episode, agent, mean_over_decisions(episode, lost))
