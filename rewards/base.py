"""What every reward term is, what scoring an episode returns, and the few look-ups that terms share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_serializer, field_validator

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.schedules import DualAscent, Schedule, Weight, from_config, to_config


class RewardTerm(BaseModel, ABC):
    """One reason to reward or to charge a seat. The fields of a term are its keys in YAML.

    Calling a term gives its unweighted value for each turn of the seat, one float per turn. The sign is in the term
    and `weight` is never negative; weight 0 means measured and not trained on. In place of the number it may be a
    `Schedule`, or in YAML the keys of one. `name` is the class in snake_case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: ClassVar[str]
    weight: Weight

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @abstractmethod
    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        """The unweighted value of each turn in `episode.turns_of(agent)`."""

    def applies(self, episode: Episode) -> bool:
        """Whether the episode has what the term reads, such as acts; where none has, nothing is logged of the term."""
        return True

    def spent(self, episode: Episode, agent: Seat) -> float:
        """What a budget on this term (`DualAscent`) counts for a seat in an episode. Most terms count nothing."""
        raise NotImplementedError

    def weight_at(self, update: float) -> float:
        """The weight in an update of training, 0 for the first; at infinity, what a schedule ends with."""
        return self.weight.at(update) if isinstance(self.weight, Schedule) else self.weight

    @field_validator("weight", mode="wrap")
    @classmethod
    def _number_or_schedule(cls, weight: Any, as_number: ValidatorFunctionWrapHandler) -> float | Schedule:
        """Whatever number a subclass allows, or any schedule."""
        if isinstance(weight, Mapping):
            weight = from_config(weight)
        if isinstance(weight, DualAscent) and cls.spent is RewardTerm.spent:
            raise ValueError(f"dual_ascent needs a term that counts what it limits; {cls.name} has no method `spent`")
        return weight if isinstance(weight, Schedule) else as_number(weight)

    @field_serializer("weight")
    def _plain_weight(self, weight: Any) -> Any:
        return to_config(weight) if isinstance(weight, Schedule) else weight


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardBreakdown:
    """Every term's value for every turn of every seat, before weights, and the weights."""

    values: Mapping[Seat, Mapping[str, tuple[float, ...]]]
    weights: Mapping[str, float]

    def weighted(self, agent: Seat) -> dict[str, tuple[float, ...]]:
        """Every term's value for each turn of the seat, times its weight."""
        return {name: tuple(self.weights[name] * v for v in turns) for name, turns in self.values[agent].items()}

    def per_turn(self, agent: Seat) -> tuple[float, ...]:
        """What is trained on: the weighted sum of the terms for each turn of the seat."""
        return tuple(map(sum, zip(*self.weighted(agent).values(), strict=True)))

    def total(self, agent: Seat) -> float:
        """The weighted sum over the seat's turns."""
        return sum(self.per_turn(agent))

    def term_total(self, agent: Seat, term: str) -> float:
        """One term's unweighted sum over the seat's turns."""
        return sum(self.values[agent][term])

    def by_term(self) -> dict[str, float]:
        """Every term's weighted sum over all turns of all seats."""
        weighted = [self.weighted(agent) for agent in self.values]
        return {name: sum(sum(terms[name]) for terms in weighted) for name in self.weights}

    def to_dict(self) -> dict:
        values = {agent: {name: list(turns) for name, turns in terms.items()} for agent, terms in self.values.items()}
        return {"weights": dict(self.weights), "values": values}


def at_last_turn(episode: Episode, agent: Seat, value: float) -> list[float]:
    """`value` on the seat's last turn and 0 before it; no turn, no entry."""
    turns = len(episode.turns_of(agent))
    return [0.0] * (turns - 1) + [value] if turns else []
