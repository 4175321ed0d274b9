"""The token ledger in money: what episodes cost at a price list, and what many such agents pay in a month.

A provider charges for each reply what the model reads and what it writes. What it reads is the seat's chat so far,
every time anew: earlier turns are paid again with each reply. The system message and the marks of the chat template are
not on record and are left out. Tokens are `message_tokens`; `PriceList.provider_tokens` makes a provider's of them.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from envs.core.episode import Episode
from envs.core.tokens import message_tokens
from rewards.metrics.rate import Rate, Statistic, bounded, for_each, unbounded
from rewards.metrics.tokens import (
    duplicate_tokens_per_episode,
    generated_tokens,
    generated_tokens_per_solved,
    message_share,
    message_tokens_per_episode,
    rework_tokens_per_episode,
)

MOST = 1e9  # of anything on a price list: what is made of them stays a number
Positive = Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]


class PriceList(BaseModel):
    """What tokens cost, and how much is worked in a month.

    >>> PriceList(input=2.0, output=10.0).of(read=1_000_000, written=100_000)
    3.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Price
    """Per million tokens that a model reads, in `currency`."""
    output: Price
    """Per million tokens that a model writes."""
    currency: str = "USD"
    provider_tokens: Positive = 1.0
    """Tokens of the provider in one of `message_tokens`."""
    agents: Annotated[int, Field(ge=1, le=int(MOST))] = 100
    tasks_per_day: Positive = 20.0
    """Tasks that each agent has a part in, a day."""
    days: Positive = 22.0
    """Days of work in a month."""

    def of(self, read: float, written: float) -> float:
        """Price of so many `message_tokens`, in `currency`."""
        return self.provider_tokens * (read * self.input + written * self.output) / 1e6

    def tasks_per_month(self, seats: int) -> float:
        """Tasks of all agents in a month, in teams of so many seats: agents * tasks_per_day * days / seats.

        >>> PriceList(input=1, output=1, agents=100, tasks_per_day=10, days=20).tasks_per_month(seats=2)
        10000.0
        """
        return self.agents * self.tasks_per_day * self.days / seats


def read_tokens(episode: Episode) -> float:
    """What the models of all seats read: before each reply, the observations and replies of its seat so far.

    Example: a seat is shown 10 tokens, writes 2, and is shown 3 more before its last reply: 10 + (10 + 2 + 3) = 25.
    """
    total = 0
    for seat in episode.seats:
        turns = episode.turns_of(seat)
        shown = accumulate(message_tokens(turn.observation) for turn in turns)
        said = accumulate((message_tokens(turn.reply) for turn in turns[:-1]), initial=0)
        total += sum(shown) + sum(said)
    return float(total)


def ledger(prices: PriceList) -> dict[str, Statistic]:
    """The lines of the ledger by name, for `rewards.metrics.measure` and `compare`; prices in the list's currency.

    >>> from rewards.metrics import measure
    >>> lines = ledger(PriceList(input=1.0, output=5.0, agents=100, tasks_per_day=10.0, days=20.0))
    >>> from envs.core.episode import Episode, Outcome, Phase, Turn
    >>> from envs.core.task import Task
    >>> task = Task(id="t", family="f", seed=0, seats=("agent_0",), briefs={}, decisions=(), cell={})
    >>> turn = Turn(index=0, round=0, phase=Phase.FINAL, agent="agent_0", observation="do it now", reply="done")
    >>> solved = Episode(task=task, turns=(turn,), outcome=Outcome(utility=1.0, success=True, committed={}))
    >>> found = measure([solved], lines)
    >>> found["tokens_per_solved"].value, round(found["price_per_task"].value * 1e6, 6)  # 3 read, 1 written: 3 + 5
    (4.0, 8.0)
    >>> round(found["month"].value, 6)  # 100 agents * 10 tasks * 20 days at 8 millionths
    0.16
    """

    def written(tokens: Callable[[Episode], Rate]) -> Callable[[Episode], Rate]:
        def price(episode: Episode) -> Rate:
            numerator, denominator = tokens(episode)
            return Rate(prices.of(read=0, written=numerator), denominator)

        price.__doc__ = f"Price of writing `{tokens.__name__}`. Range: from 0. Cases: episodes. Source: our own."
        return price

    def tokens_per_solved(episode: Episode) -> Rate:
        """What all seats read and wrote, in failed episodes too, for each task that was solved.

        Range: from 0. Cases: solved episodes. Source: our own.
        """
        return Rate(read_tokens(episode) + generated_tokens(episode), int(episode.outcome.success))

    def price_per_task(episode: Episode) -> Rate:
        """Mean price of a task, solved or not. Range: from 0. Cases: episodes. Source: our own."""
        return Rate(prices.of(read_tokens(episode), generated_tokens(episode)), 1)

    def price_per_solved(episode: Episode) -> Rate:
        """Price of all tasks for each that was solved. Range: from 0. Cases: solved episodes. Source: our own."""
        return Rate(price_per_task(episode).numerator, int(episode.outcome.success))

    def month(episode: Episode) -> Rate:
        """What all agents pay in a month for `tasks_per_month` tasks that they try once: that number times the price.

        Range: from 0. Cases: episodes. Source: our own.
        """
        return Rate(price_per_task(episode).numerator * prices.tasks_per_month(len(episode.seats)), 1)

    def month_all_solved(episode: Episode) -> Rate:
        """What all agents pay for as many tasks solved, where a failed one is tried again as often as it takes, each
        time with the same chance: `tasks_per_month` times `price_per_solved`.

        Range: from 0. Cases: solved episodes. Source: our own.
        """
        return Rate(month(episode).numerator, int(episode.outcome.success))

    return {
        "message_share": bounded(message_share),
        "generated_tokens_per_solved": for_each(generated_tokens_per_solved),
        "tokens_per_solved": for_each(tokens_per_solved),
        "rework_tokens_per_episode": unbounded(rework_tokens_per_episode),
        "duplicate_tokens_per_episode": unbounded(duplicate_tokens_per_episode),
        "price_of_messages": unbounded(written(message_tokens_per_episode)),
        "price_of_rework": unbounded(written(rework_tokens_per_episode)),
        "price_of_duplicates": unbounded(written(duplicate_tokens_per_episode)),
        "price_per_task": unbounded(price_per_task),
        "price_per_solved": for_each(price_per_solved),
        "month": unbounded(month),
        "month_all_solved": for_each(month_all_solved),
    }
