"""Who is right: the balanced 2x2 design, its like for more seats, and the cue that tells whom to trust."""

from itertools import combinations
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from envs.core.fields import Fields

_GOLDEN = 11400714819323198485  # 2^64 / golden ratio: multiples of it fill the circle evenly
_CIRCLE = 2**64


class Cells(Fields, frozen=True):
    """Weights of the cells of (agent_0 is right) x (agent_1 is right); they need not sum to 1.

    A seat is right where what its brief claims is. Where both are wrong nobody knows the right option, except of
    estimates, where it lies between both claims (`envs.families.estimate`).

    `one_right` is shared equally by its two cells, so each seat is right as often as the other. With more than two
    seats `one_right` stands for some and not all: any number of them is as likely, so a majority is as often wrong as
    right; `both_right` stands for all and `both_wrong` for none.

    Raises:
        pydantic.ValidationError: a weight is negative or not finite, or all are 0.
    """

    both_right: Annotated[float, Field(ge=0, le=1e9)] = 0.25
    one_right: Annotated[float, Field(ge=0, le=1e9)] = 0.5
    both_wrong: Annotated[float, Field(ge=0, le=1e9)] = 0.25

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if not (self.both_right or self.one_right or self.both_wrong):
            raise ValueError("cells: all weights are 0; give at least one cell a positive weight.")
        return self

    def probability(self, name: str) -> float:
        """Probability in [0, 1] of `both_right`, `one_right` or `both_wrong`."""
        return getattr(self, name) / (self.both_right + self.one_right + self.both_wrong)

    def at(self, index: int, seats: int = 2) -> tuple[bool, ...]:
        """Whether each of the seats (2 or more) is right in instance `index` (>= 0).

        Consecutive indices walk round the circle in golden steps, so any run of them is nearly perfectly balanced.
        """
        point = index * _GOLDEN % _CIRCLE / _CIRCLE - self.probability("both_right")
        some = self.probability("one_right")
        if point < 0 or point >= some:
            return (point < 0,) * seats
        position = point / some * (seats - 1)
        fewer = min(int(position), seats - 2)  # this many and one more are right
        choices = list(combinations(range(seats), fewer + 1))
        chosen = choices[min(int((position - fewer) * len(choices)), len(choices) - 1)]
        return tuple(seat in chosen for seat in range(seats))


def draw_expert(right: tuple[bool, ...], cue_reliability: float, rng: np.random.Generator) -> int:
    """The number of the seat that the cue points to.

    Where some seats are right it is one of these with probability `cue_reliability`; where all are or none, any.
    """
    pool = range(len(right))
    if any(right) and not all(right):
        pointed = rng.random() < cue_reliability
        pool = [seat for seat in pool if right[seat] == pointed]
    return int(pool[rng.integers(len(pool))])
