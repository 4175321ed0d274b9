"""Who is right: the balanced 2x2 design and the cue that tells whom to trust."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches

import numpy as np

_GOLDEN = 11400714819323198485  # 2^64 / golden ratio: multiples of it fill the circle evenly
_CIRCLE = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Weights of the cells of (agent_0 is right) x (agent_1 is right); they need not sum to 1.

    A seat is right where what its brief claims is. Where both are wrong nobody knows the right option, except of
    estimates, where it lies between both claims (`envs.families.estimate`).

    `one_right` is shared equally by its two cells, so each seat is right as often as the other.

    Raises:
        ValueError: a weight is negative or not finite, or all are 0.
    """

    both_right: float = 0.25
    one_right: float = 0.5
    both_wrong: float = 0.25

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
                raise ValueError(f"cells.{name} is {weight!r}; it must be a number of at least 0.")
        if not any(asdict(self).values()):
            raise ValueError("cells: all weights are 0; give at least one cell a positive weight.")

    @classmethod
    def of(cls, weights: "Cells | Mapping[str, float]") -> "Cells":
        """Cells from a mapping such as a configuration file gives; names left out keep their defaults."""
        if isinstance(weights, Cells):
            return weights
        known = ("both_right", "one_right", "both_wrong")
        for name in weights:
            if name not in known:
                near = get_close_matches(str(name), known, n=1, cutoff=0)[0]
                raise ValueError(f"cells: there is no cell {name!r}. Did you mean {near!r}? Known: {', '.join(known)}.")
        return cls(**weights)

    def probability(self, name: str) -> float:
        """Probability in [0, 1] of `both_right`, `one_right` or `both_wrong`."""
        return getattr(self, name) / (self.both_right + self.one_right + self.both_wrong)

    def at(self, index: int) -> tuple[bool, bool]:
        """Whether (agent_0, agent_1) are right in instance `index` (>= 0).

        Consecutive indices walk round the circle in golden steps, so any run of them is nearly perfectly balanced.
        """
        point = index * _GOLDEN % _CIRCLE / _CIRCLE
        half = self.probability("one_right") / 2
        bounds = np.cumsum([self.probability("both_right"), half, half])
        return ((True, True), (True, False), (False, True), (False, False))[int(np.sum(point >= bounds))]


def draw_expert(right: tuple[bool, bool], cue_reliability: float, rng: np.random.Generator) -> int:
    """The seat (0 or 1) that the cue points to.

    Where exactly one seat is right it is that seat with probability `cue_reliability`; elsewhere it is either.
    """
    if right[0] == right[1]:
        return int(rng.integers(2))
    wrong_seat = int(right[0])
    return 1 - wrong_seat if rng.random() < cue_reliability else wrong_seat
