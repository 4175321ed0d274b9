"""Reward terms: plain Python on episode records. `TERMS` is the list; `RewardStack` scores an episode with some.

>>> stack = RewardStack.from_config({"task_success": {}, "deference": {"weight": 0.5}})
>>> stack.names
('task_success', 'deference')

`stack.score(episode).per_turn("agent_0")` is then what a seat is trained on. A term of your own needs no entry here:
its configuration key is "my_lab.rewards:Humility". Where weights follow a schedule, `stack.at(3)` has the numbers of
update 3, and `stack.score` goes by those that the schedules end with.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

from envs.core.episode import Episode, StopReason
from envs.core.lookup import find
from rewards.base import RewardBreakdown, RewardTerm
from rewards.baselines.approval import Approval
from rewards.baselines.naive_capitulation import NaiveCapitulation
from rewards.baselines.naive_deference import NaiveDeference
from rewards.baselines.naive_disagreement import NaiveDisagreement
from rewards.schedules import Schedule
from rewards.terms.capitulation import Capitulation
from rewards.terms.commitment import Commitment
from rewards.terms.communication import Communication
from rewards.terms.consensus import Consensus
from rewards.terms.deference import Deference
from rewards.terms.do_no_harm import DoNoHarm
from rewards.terms.expectation import Expectation
from rewards.terms.foresight import Foresight
from rewards.terms.pushback import Pushback
from rewards.terms.rework import Rework
from rewards.terms.solo_gain import SoloGain
from rewards.terms.task_success import TaskSuccess

TERMS: tuple[type[RewardTerm], ...] = (
    TaskSuccess,
    Deference,
    Capitulation,
    Consensus,
    Communication,
    Pushback,
    Rework,
    Commitment,
    Expectation,
    Foresight,
    DoNoHarm,
    SoloGain,
    NaiveDeference,
    NaiveCapitulation,
    NaiveDisagreement,
    Approval,
)

__all__ = ["TERMS", "RewardBreakdown", "RewardStack", "RewardTerm", "UnknownTerm", "find_term"]


class UnknownTerm(ValueError):
    """A configuration names a reward term that does not exist."""


def find_term(name: str) -> type[RewardTerm]:
    """The class of a term: one of `TERMS` by its name, any other by "module:Class"."""
    try:
        term = find(name, {term.name: term for term in TERMS}, kind="reward term")
    except ValueError as error:
        raise UnknownTerm(str(error)) from error
    if not (isinstance(term, type) and issubclass(term, RewardTerm)):
        raise UnknownTerm(f"reward term {name!r} is {term!r}, not a subclass of rewards.RewardTerm.")
    return term


@dataclass(frozen=True, slots=True)
class RewardStack:
    """The terms that score an episode, in order, each of another name."""

    terms: tuple[RewardTerm, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a RewardStack needs at least one term; use a weight of 0 to measure without training")
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"reward terms must have different names; more than one is called {sorted(twice)}")

    @classmethod
    def from_config(cls, config: Mapping[str, Mapping[str, Any]]) -> Self:
        """Terms from the `rewards:` section: name or "module:Class" to the term's fields.

        Raises UnknownTerm for a name, and pydantic's ValidationError for a field.
        """
        return cls(tuple(find_term(name)(**fields) for name, fields in config.items()))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(term.name for term in self.terms)

    @property
    def trained_on(self) -> tuple[RewardTerm, ...]:
        """The terms that may pay something; the others have weight 0 throughout."""
        return tuple(term for term in self.terms if isinstance(term.weight, Schedule) or term.weight)

    @property
    def plays_alone(self) -> bool:
        """Whether every task is played once more, by one policy alone."""
        return any(isinstance(term, SoloGain) for term in self.trained_on)

    @property
    def scheduled(self) -> tuple[str, ...]:
        """The terms whose weight is not a plain number."""
        return tuple(term.name for term in self.terms if isinstance(term.weight, Schedule))

    def weights(self, update: float = math.inf) -> dict[str, float]:
        """Each term's weight in an update of training, 0 for the first; without one, what schedules end with."""
        return {term.name: term.weight_at(update) for term in self.terms}

    def with_weights(self, weights: Mapping[str, float]) -> Self:
        """The same terms, those that are named with other weights."""
        return type(self)(tuple(t.model_copy(update={"weight": weights.get(t.name, t.weight)}) for t in self.terms))

    def at(self, update: float) -> Self:
        """The stack of one update: every weight is a plain number."""
        return self.with_weights(self.weights(update))

    def score(self, episode: Episode) -> RewardBreakdown:
        """One value per term, seat and turn, with `weights()`. All are 0 after a sandbox fault, which is nobody's
        failure: the caller masks and counts such episodes.
        """
        values = {agent: {term.name: _values(term, episode, agent) for term in self.terms} for agent in episode.seats}
        return RewardBreakdown(values=values, weights=self.weights())


def _values(term: RewardTerm, episode: Episode, agent: str) -> tuple[float, ...]:
    turns = len(episode.turns_of(agent))
    if episode.stop_reason is StopReason.SANDBOX_FAULT:
        return (0.0,) * turns
    values = tuple(term(episode, agent))
    if len(values) != turns:
        raise ValueError(f"reward term {term.name!r} gave {len(values)} values for the {turns} turns of {agent!r}")
    for value in values:
        if not isinstance(value, Real):
            raise ValueError(f"reward term {term.name!r} gave {value!r}, which is no number")
    return tuple(map(float, values))  # of any type of numpy, which no record could hold
