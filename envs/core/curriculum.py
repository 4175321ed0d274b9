"""How hard the next episodes are: a level of difficulty that follows measured success. Loads no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, model_validator

from envs.core.config import Share
from envs.core.fields import Fields

LADDER: tuple[Mapping[str, Any], ...] = (
    {
        "cells": {"both_right": 0.5, "one_right": 0.5, "both_wrong": 0.0},
        "cue_reliability": 1.0,
        "scaffold": True,
    },
    {
        "cells": {"both_right": 0.3, "one_right": 0.6, "both_wrong": 0.1},
        "cue_reliability": 1.0,
        "scaffold": True,
    },
    {
        "cells": {"both_right": 0.25, "one_right": 0.5, "both_wrong": 0.25},
        "cue_reliability": 0.95,
        "scaffold": True,
    },
    {
        "cells": {"both_right": 0.25, "one_right": 0.5, "both_wrong": 0.25},
        "cue_reliability": 0.95,
        "scaffold": False,
    },
    {
        "cells": {"both_right": 0.2, "one_right": 0.55, "both_wrong": 0.25},
        "cue_reliability": 0.9,
        "scaffold": False,
    },
)


@dataclass(slots=True)
class _Count:
    """Where a curriculum is: its level, and the episodes and successes on it so far."""

    level: int = 0
    episodes: int = 0
    successes: float = 0.0


class Curriculum(Fields, frozen=True):
    """Climbs a ladder of levels, and down again, so that success stays between `low` and `high`.

    A level is what an environment's arguments are there, in the place of its own. Success is measured over at least
    `window` episodes of one level: above `high` the next level is harder, below `low` easier, by one, and the count
    starts anew. At either end of the ladder it stays. It draws no random numbers, so processes that are told the same
    are on the same level.

    >>> curriculum = Curriculum(levels=[{"scaffold": True}, {"scaffold": False}], window=64)
    >>> curriculum.record(0.75, episodes=32), curriculum.level
    (None, 0)
    >>> curriculum.record(0.75, episodes=32), curriculum.level, curriculum.arguments
    (None, 1, {'scaffold': False})

    Raises:
        pydantic.ValidationError: a field is of another type or out of its range.
    """

    levels: Annotated[Sequence[Mapping[str, Any]], Field(min_length=1)] = LADDER
    """The ladder, from easy to hard."""
    low: Share = 0.2
    """Share of successful episodes below which the next level is easier."""
    high: Share = 0.7
    """Share of successful episodes above which the next level is harder."""
    window: Annotated[int, Field(ge=1)] = 128
    """Episodes over which success is measured."""

    _count: _Count = PrivateAttr(default_factory=_Count)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low!r} and high is {self.high!r}; the first must be below the second.")
        return self

    @property
    def level(self) -> int:
        """The index of the level, from 0."""
        return self._count.level

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The environment's arguments on this level."""
        return self.levels[self.level]

    def record(self, success: float, episodes: int) -> None:
        """Take in what came of some episodes of this level, and change the level where that says so.

        Args:
            success: the share of them that succeeded, in [0, 1].
            episodes: how many they were.

        Raises:
            ValueError: success is no share.
        """
        if not 0 <= success <= 1:
            raise ValueError(f"record: success is {success!r}; it must be a share, from 0 to 1.")
        count = self._count
        count.episodes += episodes
        count.successes += success * episodes
        if count.episodes >= self.window:
            share = count.successes / count.episodes
            step = (share > self.high) - (share < self.low)
            count.level = min(max(count.level + step, 0), len(self.levels) - 1)
            count.episodes, count.successes = 0, 0.0

    def state(self) -> dict[str, float]:
        """All that changes, as plain numbers."""
        return asdict(self._count)

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` returned. A ladder that has become shorter ends at its last level."""
        count = self._count
        count.level = min(max(int(state["level"]), 0), len(self.levels) - 1)
        count.episodes, count.successes = int(state["episodes"]), float(state["successes"])
