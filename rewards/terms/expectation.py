"""Expectation: pay for predicting the partner's part, and for being predictable."""

from envs.core.episode import Episode
from envs.core.task import Decision, Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import expected, mean_over_decisions
from rewards.schedules import Weight
from rewards.terms.scores import quadratic_score


class Expectation(RewardTerm):
    """r_i = S(q_ij, v_j) + S(q_ji, v_i) on the last turn, mean over decisions by weight and over partners. q_ij is
    what seat i last wrote as a sealed EXPECT, v_j the option that j's part realises, S the score of `deference`.

    Range: [0, 2]; a prediction that was not made, or of a part that realises no option, scores 0, and so does a seat
    that is alone.
    Source: a proper score (Brier 1950) of the partner's act in place of the truth; the second half pays for being
    legible.

    Gaming: honest reports are best because the score is proper, and the partner never reads them, so it cannot play
    to them. Agreeing on one option whatever the briefs say is predictable and costs U, as the right one varies. Telling
    the partner what one will do, and doing it, raises both halves: that is coordination. Keep the weight <= 0.2.

    Example: three options; the seat expects a at 0.8 and the partner's code realises a: 1 - (0.2^2 + 2 x 0.1^2) / 2 =
    0.97. The partner expects b at 0.6, the seat's code realises a: 1 - (0.8^2 + 0.6^2 + 0.2^2) / 2 = 0.48. Both seats
    are paid 1.45.
    """

    weight: Weight = 0.1

    def applies(self, episode: Episode) -> bool:
        return any(turn.acts for turn in episode.turns)

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        partners = episode.partners_of(agent)

        def score(decision: Decision) -> float:
            pairs = [pair for partner in partners for pair in ((agent, partner), (partner, agent))]
            return sum(hit(episode, decision, *pair) for pair in pairs) / max(1, len(partners))

        return at_last_turn(episode, agent, mean_over_decisions(episode, score))


def hit(episode: Episode, decision: Decision, seat: Seat, partner: Seat) -> float:
    """Score in [0, 1] of a seat's prediction of one partner."""
    realised = episode.committed(partner, decision.id)
    return 0.0 if realised is None else quadratic_score(expected(episode, seat, decision), decision, realised)
