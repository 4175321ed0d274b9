"""Rework: charge code that was written and thrown away, where the task was solved all the same."""

from pydantic import Field

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.schedules import Weight


class Rework(RewardTerm):
    """r = -U min(1, W + Dup / 2) on the last turn. W = clip((authored - surviving - omega R) / R, 0, 1) is the seat's
    own waste, Dup = duplicated / R what the seats wrote twice, R the size of a reference solution, omega `allowance`.

    Range: [-1, 0]; exactly 0 for a task without code. Keep the weight <= 0.1.
    Source: our own. An amount over a constant and not a share of what survives, because a share is also improved by
    padding what survives.

    Gaming: padding what survives gains nothing, as only what was thrown away counts. Keeping bad code to save the
    charge costs U. Doing nothing makes U = 0, where there is no charge and no gain. What survives is found by what the
    merged names need, so a new name for dead code does not revive it.

    Example: U = 1, R = 20, a seat wrote 30 of which 10 survive, 8 were written by both, omega = 0.5:
    W = (30 - 10 - 10) / 20 = 0.5, Dup = 0.4, r = -(0.5 + 0.2) = -0.7.
    """

    weight: Weight = 0.05
    allowance: float = Field(default=0.5, ge=0, le=1e9, allow_inf_nan=False)

    def applies(self, episode: Episode) -> bool:
        return episode.outcome.provenance is not None

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        ledger, reference = episode.outcome.provenance, episode.task.reference_tokens
        if ledger is None or not reference:
            return at_last_turn(episode, agent, 0.0)
        wasted = ledger.authored[agent] - ledger.surviving[agent] - self.allowance * reference
        waste = min(1.0, max(0.0, wasted / reference)) + ledger.duplicated / reference / 2
        return at_last_turn(episode, agent, 0.0 - episode.outcome.utility * min(1.0, waste))
