"""Estimates: both seats measured one quantity, each brief gives its own standard error, and the precision-weighted pool
is right.

Options: both measurements and two compromises, at 20, 50 or 80 % of the way between them. Where one standard error is
a quarter of the other, the pool lies on the better measurement (6 % off, within the tolerance): that claim is right,
as everywhere. Where they are alike, neither claim is right and the pool is a compromise: the middle for equal errors,
a fifth of the way from the better one for a ratio of two. So "always blend" and "never blend" both lose, and so does
"always meet in the middle".

One standard error alone says no more than a cue does elsewhere. The two small ones are "strong" and the two great ones
"weak", all four are equally frequent where both claims are right and where both are wrong, and where one is right the
small one points to it with probability `cue_reliability`. Which option is right follows from both errors.
"""

from typing import ClassVar

import numpy as np

from envs.cells import draw_expert
from envs.families.base import TOLERANCE, FunctionFamily, Readings, shuffled
from envs.task import Decision, Numeric, Seat

COMPROMISES = (20, 50, 80)  # per cent of the way from the lower measurement to the higher one
SPARE = (35, 65)
ERRORS = (1, 2, 4, 8)  # standard errors in units of a fifth of the gap
UNEQUAL = ((1, 4), (2, 8))  # (better, worse): the pool is the better one
ALIKE = ((1, 2), (4, 8))  # the pool is a fifth of the way from the better one to the worse


class EstimateFamily(FunctionFamily):
    """A numeric contract that is measured and not decreed; the pool of both measurements by 1 / sigma^2 is right."""

    kind = "estimate"
    low: ClassVar[int]  # range of the measurements
    high: ClassVar[int]

    def draw(self, rng: np.random.Generator) -> Readings:
        """The lower measurement comes first; `blend` and `other` are compromises, the one nearer the middle first."""
        gap = 20 * int(rng.integers(1, 4))
        start = int(rng.integers(self.low, self.high - gap + 1))
        points = sorted(rng.permutation(COMPROMISES)[:2], key=lambda point: abs(point - 50))
        blend, other = (_between(start, start + gap, point) for point in points)
        return Readings(claims=(str(start), str(start + gap)), blend=blend, other=other, numeric=True)

    def decide(
        self,
        right: tuple[bool, bool],
        seats: tuple[Seat, Seat],
        rng: np.random.Generator,
        *,
        cue_reliability: float,
        distractors: int = 0,
    ) -> Decision:
        readings = self.draw(rng)
        low, high = (int(option) for option in readings.claims)
        between = [_between(low, high, point) for point in rng.permutation((*COMPROMISES, *SPARE))]
        spare = [option for option in between if option not in readings.options][:distractors]
        if any(right):
            truth, wrong = (readings.claims[i] for i in rng.permutation(2))
            beliefs = tuple(truth if is_right else wrong for is_right in right)
            expert = draw_expert(right, cue_reliability, rng)
            errors = UNEQUAL[rng.integers(2)]
        else:
            truth = (readings.blend, readings.other)[rng.integers(2)]
            beliefs = tuple(readings.claims[i] for i in rng.permutation(2))
            distances = [abs(int(truth) - int(belief)) for belief in beliefs]
            if distances[0] == distances[1]:
                expert, error = int(rng.integers(2)), ERRORS[rng.integers(4)]
                errors = (error, error)
            else:
                expert, errors = int(np.argmin(distances)), ALIKE[rng.integers(2)]
        gap = high - low
        error_of = {seat: errors[i != expert] for i, seat in enumerate(seats)}
        options = shuffled((*readings.options, *spare), rng)
        return Decision(
            id=self.name,
            options=options,
            utility={option: float(option == truth) for option in options},
            belief=dict(zip(seats, beliefs, strict=True)),
            expert=seats[expert],
            cue={seat: "strong" if error <= 2 else "weak" for seat, error in error_of.items()},
            blends=(readings.blend, readings.other, *spare),
            numeric=Numeric(
                truth=float(truth),
                tolerance=TOLERANCE * gap,
                sigma={seat: error * gap / 5 for seat, error in error_of.items()},
                estimate=True,
            ),
        )


def _between(low: int, high: int, point: int) -> str:
    return str(low + (high - low) * int(point) // 100)
