"""Comparison arm: a bonus for taking over the partner's right answer. It pays for a bad first answer; do not use it."""

from envs.core.episode import Episode
from envs.core.task import Decision, Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import mean_over_decisions, prior_options
from rewards.schedules import Weight


class NaiveDeference(RewardTerm):
    """r = share of decisions, by weight, on which the seat ends on a right option that was a partner's prior and not
    its own; paid on the last turn.

    Range: [0, 1].
    Source: the obvious bonus, kept as an arm that must fail.

    Gaming: a seat that knows the answer gets the bonus by naming another one first, at no cost: sandbagging beats
    honesty. Always deferring beats weighing the sources, as a wrong surrender is free. `deference` has neither hole.

    Example: priors b (own) and a (partner's, right), committed to a: 1. The same with a prior a of one's own: 0.
    """

    weight: Weight = 0.0

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        def adopted(decision: Decision) -> float:
            priors, answer = prior_options(episode, decision), episode.committed(agent, decision.id)
            own = priors.pop(agent, None)
            return float(own not in (None, answer) and answer in priors.values() and decision.is_right(answer))

        return at_last_turn(episode, agent, mean_over_decisions(episode, adopted))
