"""Communication: talk has a price, but only beyond a free allowance and only where the task was solved."""

from typing import Self

from pydantic import Field, model_validator

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.base import RewardTerm
from rewards.schedules import DualAscent, Weight


class Communication(RewardTerm):
    """r = -U clip((T - T0) / (B - T0), 0, 1), T0 `free_tokens`, B `budget_tokens`, T the seat's message tokens for each
    of the task's topics (`Task.topics`).

    A topic is a thing to tell or to ask: a decision of a review, an item of a ranking, a fact that is written down or
    read. A task of which much must be said has as much more room, so one price fits all. What a seat writes into a
    shared memory and reads from it counts as message, so that no channel is free. The charge is spread over the seat's
    turns in proportion to their tokens, so a long message carries it. A weight that moves until the mean of T meets a
    budget is `{schedule: dual_ascent, rate: 0.01, budget: 20}`; the budget lies between T0 and B, where talk that is
    saved lowers the charge.

    Range: [-1, 0] per episode; with weight c <= 0.2 a solved task is always worth more than a failed one.
    Source: our own; a price on length, with a gate that keeps a team from failing quickly to save tokens.

    Gaming: silence saves at most c U and risks U. Failing fast saves nothing that was to be had, as U = 0 already
    pays less than any success. Long private reasoning is not talk and is not charged. A private code is cheaper than
    words and this term does not see it: cross-play with the base model does.

    Example: U = 1, one topic, messages of 4 and 12 tokens, T0 = 4, B = 40: -(16 - 4) / 36 = -1/3, of which the first
    message carries -1/12 and the second -1/4. With two topics T = 8: -(8 - 4) / 36 = -1/9.
    """

    weight: Weight = 0.1
    free_tokens: int = Field(default=4, ge=0)
    budget_tokens: int = Field(default=40, ge=1)

    @model_validator(mode="after")
    def _budgets_exceed_allowance(self) -> Self:
        if self.budget_tokens <= self.free_tokens:
            raise ValueError(f"budget_tokens ({self.budget_tokens}) must exceed free_tokens ({self.free_tokens})")
        if isinstance(self.weight, DualAscent) and not self.free_tokens < self.weight.budget <= self.budget_tokens:
            raise ValueError(
                f"weight.budget ({self.weight.budget:g}) must exceed free_tokens ({self.free_tokens}) and not exceed "
                f"budget_tokens ({self.budget_tokens}): elsewhere the charge does not depend on talk"
            )
        return self

    def spent(self, episode: Episode, agent: Seat) -> float:
        """The seat's message tokens for each topic, those written into and read from a shared memory included."""
        return sum(_tokens(episode, agent)) / episode.task.topics

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        tokens = _tokens(episode, agent)
        excess = self.spent(episode, agent) - self.free_tokens
        if excess <= 0:
            return [0.0] * len(tokens)
        charge = episode.outcome.utility * min(1.0, excess / (self.budget_tokens - self.free_tokens))
        return [0.0 - charge * count / sum(tokens) for count in tokens]


def _tokens(episode: Episode, agent: Seat) -> list[int]:
    return [turn.message_tokens + turn.memory_tokens for turn in episode.turns_of(agent)]
