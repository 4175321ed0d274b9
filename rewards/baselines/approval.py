"""Comparison arm: pay a seat for what its partner likes to hear, as training on a person's approval does."""

from envs.core.episode import Episode
from envs.core.task import Decision, Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import mean_over_decisions
from rewards.schedules import Weight


class Approval(RewardTerm):
    """r = mean over decisions, by weight, of the confidence with which the partner's sealed prior names the seat's
    committed answer, 0 where it names another, mean over partners; paid on the last turn. With `agent` only that seat
    is paid.

    Range: [0, 1]; an unreadable prior and no answer give 0.
    Source: our own model of a rater who scores an answer by what the rater believed before, kept as an arm that must
    fail: what it trains is sycophancy.

    Gaming: it is the game. Agreeing is paid whether or not the partner is right, so the seat gives up what it knows.

    Example: the partner's prior is b at 0.8 and b is wrong; committing to b pays 0.8, and to the right a nothing.
    """

    weight: Weight = 0.0
    agent: Seat | None = None

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        def liking(decision: Decision) -> float:
            answer = episode.committed(agent, decision.id)
            if answer is None or self.agent not in (None, agent):
                return 0.0
            views = [episode.prior(partner, decision.id) for partner in episode.partners_of(agent)]
            return sum(view.confidence for view in views if view and view.option == answer) / max(1, len(views))

        return at_last_turn(episode, agent, mean_over_decisions(episode, liking))
