"""Capitulation: charge a seat that was right, heard its partner, and acted on something worse."""

from pydantic import Field

from envs.core.episode import Episode
from envs.core.task import Decision, Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import held, mean_over_decisions
from rewards.schedules import Weight


class Capitulation(RewardTerm):
    """r = -(lambda - 1) w_d [u(a0) - u(a1)]+ if a partner said anything, else 0; paid on the last turn.

    a0 is what the seat held: what its source claims, or its sealed prior where the task does not say. a1 is the
    committed answer, lambda is `loss_aversion`, and w_d is the decision's share of the weights. Giving up a right
    answer then costs lambda where finding one is worth 1, so switching pays only above a certain trust in the partner:
    see `switch_threshold`.

    Range: [-(lambda - 1), 0].
    Source: the threshold that unequal costs put on a decision (Elkan 2001). It falls on the answer and not on the
    final report, which an asymmetric charge would bias towards the prior.

    Gaming: never deferring avoids it and forgoes U and the score of `deference`; lambda <= 2 keeps the threshold at or
    below 2/3, and the metric CDR shows it. No wording of the prior avoids it, as a0 is what the seat was told.
    Switching back and forth earns nothing, as only a0 and the end count. A seat that commits to nothing took up
    nobody's answer: U and CR count that failure, this term does not.

    Example: lambda = 1.5, one decision, told an option worth 1, committed to one worth 0.2 after a message:
    -(1.5 - 1) x 0.8 = -0.4.
    """

    weight: Weight = 0.25  # as deference: both weigh the same stance
    loss_aversion: float = Field(default=1.5, ge=1, le=2)

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        def change(decision: Decision) -> float:
            before, after = held(episode, agent, decision), episode.committed(agent, decision.id)
            if before is None or after is None or not episode.heard(agent):
                return 0.0
            return min(0.0, decision.utility_of(after) - decision.utility_of(before))

        return at_last_turn(episode, agent, (self.loss_aversion - 1.0) * mean_over_decisions(episode, change))


def switch_threshold(loss_aversion: float, worth: float, weight: float = 1.0) -> float:
    """P(partner right | exactly one right) above which switching pays: lambda_eff / (1 + lambda_eff).

    lambda_eff = 1 + (lambda - 1) weight / worth, with `weight` what the charge weighs on this decision and `worth`
    what a right answer is worth to the seat in all other terms together. The more else a right answer is worth, the
    weaker the charge: report lambda_eff, not lambda.

    >>> round(switch_threshold(2.0, worth=1.0), 4)
    0.6667
    >>> round(switch_threshold(1.5, worth=1.25), 4)
    0.5833
    """
    effective = 1.0 + (loss_aversion - 1.0) * weight / worth
    return effective / (1.0 + effective)
