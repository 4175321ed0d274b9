"""Weights that change while training. In YAML: `weight: {schedule: linear, start: 0.0, end: 0.1, updates: 20}`.

Time is counted in updates, rounds of play and learning (`training.num_updates`); the first is number 0. Where there is
no training (an audit, an evaluation, a notebook) a weight is what its schedule ends with, its value at infinity.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from inspect import isabstract
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs.core.lookup import find

Weight = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]  # the square of a reward is to be a float32 too
Updates = Annotated[int, Field(ge=0, le=10**9)]


class Schedule(BaseModel, ABC):
    """A weight as a function of time. The fields of a schedule are its keys in YAML, beside `schedule`, its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @abstractmethod
    def at(self, update: float) -> float:
        """The weight in an update, 0 for the first, or at infinity: what the schedule ends with."""


class Linear(Schedule):
    """A straight line: `start` for the first `begin` updates, and `end` once `updates` more are over.

    Example: start 0.0, end 0.2, begin 2, updates 4: 0.0 in updates 0 to 2, 0.05, 0.1, 0.15, and 0.2 from update 6 on.
    """

    start: Weight = 0.0
    end: Weight
    begin: Updates = 0
    updates: Annotated[int, Field(ge=1, le=10**9)]

    def at(self, update: float) -> float:
        way = min(max((update - self.begin) / self.updates, 0.0), 1.0)
        return (1.0 - way) * self.start + way * self.end


class After(Schedule):
    """A step: `before` for the first `updates` updates, then `weight`.

    Example: updates 10, weight 0.1: 0.0 in updates 0 to 9 and 0.1 from update 10 on.
    """

    updates: Updates
    weight: Weight
    before: Weight = 0.0

    def at(self, update: float) -> float:
        return self.before if update < self.updates else self.weight


class DualAscent(Schedule):
    """c <- clip(c + rate (E[T] - budget), 0, max) after every `every`-th update: a price that holds a budget.

    T is what the term counts for a seat in an episode (`RewardTerm.spent`: message tokens for `communication`). Its
    mean is over the seats that learn, in the episodes of the update that is over, on all processes, without sandbox
    faults. c begins at `start`, and is `start` where there is no training, as what it will come to is not known. What a
    policy earns is linear in c, so honest play that is first in an audit of `weight=0` and of the weight `max` is first
    at every price.

    Source: dual ascent on the multiplier of a constraint, as in RCPO (arXiv 1805.11074).

    What can go wrong: with a `max` well below the weight of success, such as the 0.2 here, a solved task always pays
    more than a failed one; a higher one buys silence at the cost of the task. A budget below what the task needs drives
    c to `max` and keeps it there while success falls. A team that fails is not charged, so c climbs unfelt and meets
    the first successes at its highest. Where one unit of weight saves k tokens, c swings if `rate` k > 1 and never
    settles if it is > 2; with a small `every` it moves before the policies have answered its last move, and follows
    noise. A mean over seats can be held by one that talks much and one that is silent.

    Example: rate 0.01, budget 20, max 0.2: from 0.1, a mean of 26 tokens leads to 0.16, a second one to 0.2.
    """

    start: Weight = 0.1
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    budget: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    every: Annotated[int, Field(ge=1)] = 10
    max: Weight = 0.2

    @model_validator(mode="after")
    def _starts_below_the_cap(self) -> Self:
        if self.start > self.max:
            raise ValueError(f"start ({self.start}) must not exceed max ({self.max})")
        return self

    def at(self, update: float) -> float:
        return self.start

    def moved(self, weight: float, spent: float) -> float:
        """The next c, from this one and the mean of T."""
        return min(max(weight + self.rate * (spent - self.budget), 0.0), self.max)


SCHEDULES: dict[str, type[Schedule]] = {"linear": Linear, "after": After, "dual_ascent": DualAscent}


def find_schedule(name: str) -> type[Schedule]:
    """The class of a schedule: one of `SCHEDULES` by its name, any other by "module:Class".

    Raises:
        ValueError: there is none.
    """
    schedule = find(name, SCHEDULES, kind="schedule")
    if not (isinstance(schedule, type) and issubclass(schedule, Schedule)) or isabstract(schedule):
        raise ValueError(f"{name!r} is {schedule!r}, not a subclass of rewards.schedules.Schedule with an `at`")
    return schedule


def from_config(fields: Mapping[str, Any]) -> Schedule:
    """The schedule that `fields["schedule"]` names, with the other fields.

    Raises:
        ValueError: no schedule is named, or none of that name exists; pydantic's ValidationError for a field.
    """
    name = fields.get("schedule")
    if not isinstance(name, str):
        known = ", ".join(SCHEDULES)
        raise ValueError(f"{dict(fields)} is no weight: give a number, or as `schedule` one of {known}")
    return find_schedule(name).model_validate({key: value for key, value in fields.items() if key != "schedule"})


def to_config(schedule: Schedule) -> dict[str, Any]:
    """What `from_config` makes the same schedule of."""
    kind = type(schedule)
    names = (name for name, known in SCHEDULES.items() if known is kind)
    return {"schedule": next(names, f"{kind.__module__}:{kind.__qualname__}"), **schedule.model_dump()}
