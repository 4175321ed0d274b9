"""Pushback: move the credit for a better proposal to the message that put it on the table."""

from pydantic import Field

from envs.core.episode import Episode
from envs.core.task import Decision, Seat
from rewards.base import RewardTerm
from rewards.readings import mean_over_decisions, positions
from rewards.schedules import Weight


class Pushback(RewardTerm):
    """A turn is paid gamma Phi(after it) - Phi(before it), to every seat in full. Phi is the worth of what stands:
    mean over decisions, by weight, of mean_i u_d(x_i) - b_d, where x_i is what seat i last proposed, challenged with
    or conceded to, and b_d the mean utility of the options. Phi is 0 before any position and after the last turn.

    Range: exactly 0 per episode at gamma = 1, and sum gamma^k r_k = 0 at any gamma; per turn [-1, 1].
    Source: potential-based shaping (Ng 1999), which leaves the equilibria of the team alone (Devlin & Kudenko 2011),
    with a potential that ends at 0 (Grzes 2017). All seats that hold a position count alike, so neither the order nor
    the name of two that speak at once matters.

    Gaming: a contrarian pays for every right proposal that it moves away from. Planting a bad proposal to put it right
    later pays the loss first and then the gain, together 0. Colluders cannot raise a sum that is fixed. Nothing is
    paid per challenge, so there is no disagreement to perform.

    Example: options worth 1, 0, 0, so b = 1/3. Round 1: agent_1 proposes b. Round 2: agent_0 challenges with a. Round
    3: agent_1 concedes to a. Each seat is paid 0 (stance), -1/3, 1/2, 1/2 and, on the last turn, -2/3.
    """

    weight: Weight = 1.0
    gamma: float = Field(default=1.0, ge=0, le=1)  # that of the training

    def applies(self, episode: Episode) -> bool:
        return any(turn.acts for turn in episode.turns)

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        turns = episode.turns_of(agent)
        after = [worth_of_what_stands(episode, turn.round) for turn in turns[:-1]] + [0.0] * bool(turns)
        return [self.gamma * new - old for old, new in zip([0.0, *after], after, strict=False)]


def worth_of_what_stands(episode: Episode, last_round: int) -> float:
    """The potential after a round, in [-1, 1]."""

    def gain(decision: Decision) -> float:
        held = positions(episode, decision, last_round).values()
        if not held:
            return 0.0
        baseline = sum(map(decision.utility_of, decision.options)) / len(decision.options)
        return sum(map(decision.utility_of, held)) / len(held) - baseline

    return mean_over_decisions(episode, gain)
