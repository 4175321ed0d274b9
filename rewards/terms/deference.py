"""Correct deference: pay for beliefs that are right and calibrated, before the talk and after it."""

from pydantic import Field

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import mean_over_decisions
from rewards.schedules import Weight
from rewards.terms.scores import quadratic_score


class Deference(RewardTerm):
    """First sealed report: (1 + alpha) S(p0, y). Final report: S(p1, y) - S(p0, y). Mean over decisions by weight.

    Range: per episode alpha S(p0) + S(p1), in [0, 1 + alpha]; per turn [-1, 1 + alpha].
    Source: potential-based shaping (Ng 1999, Devlin & Kudenko 2011) on a proper score (Brier 1950), plus an anchor.
    The differences telescope, so they move credit to the turn that changed the belief and leave the sum alone.

    Gaming: a wrong first answer given on purpose, to be seen improving, costs alpha times the score it gives up; with
    alpha = 0 it is free. Always deferring and never deferring lose on the half of the disagreements where they are
    wrong. False confidence and false doubt lose because the score is proper. No bonus is tied to disagreement, so
    there is none to provoke. An unreadable report scores 0 and no readable one scores less.

    Example: three options, a is right. Prior b at 0.6, so S(p0) = 1 - (0.8^2 + 0.6^2 + 0.2^2) / 2 = 0.48; final a at
    0.9, so S(p1) = 0.9925. With alpha = 1 the first turn is paid 0.96, the last 0.5125, together 1.4725.
    """

    weight: Weight = 0.25
    alpha: float = Field(default=1.0, ge=0, le=1e9, allow_inf_nan=False)

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        before = mean_over_decisions(episode, lambda d: quadratic_score(episode.prior(agent, d.id), d))
        after = mean_over_decisions(episode, lambda d: quadratic_score(episode.final(agent, d.id), d))
        values = at_last_turn(episode, agent, after - before)
        if values:  # the sealed prior opens the episode, so it is the seat's first turn
            values[0] += (1.0 + self.alpha) * before
        return values
