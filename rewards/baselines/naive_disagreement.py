"""Comparison arm: a bonus for holding on in a disagreement, right or wrong. It pays for stubbornness."""

from envs.core.episode import Episode
from envs.core.task import Decision, Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import mean_over_decisions, prior_options
from rewards.schedules import Weight


class NaiveDisagreement(RewardTerm):
    """r = share of decisions, by weight, on which a partner's prior differs from the seat's, and from its committed
    answer too; paid on the last turn.

    Range: [0, 1].
    Source: the obvious bonus for independence, kept as an arm that must fail.

    Gaming: never deferring takes all of it, and a prior chosen to differ makes a disagreement where there was none.
    `pushback` pays nothing for a disagreement, only for where it leads.

    Example: priors a (own) and b (partner's), committed to a: 1. Committed to b, or both priors a: 0.
    """

    weight: Weight = 0.0

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        def held(decision: Decision) -> float:
            priors, answer = prior_options(episode, decision), episode.committed(agent, decision.id)
            own = priors.pop(agent, None)
            return float(None not in (own, answer) and any(other not in (own, answer) for other in priors.values()))

        return at_last_turn(episode, agent, mean_over_decisions(episode, held))
