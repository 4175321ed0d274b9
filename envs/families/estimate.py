"""Estimates: both seats measured one quantity, each brief gives its own standard error, and the precision-weighted pool
is right.

Options: three measurements, of which the sources made two, and a compromise of each pair, at 20, 50 or 80 % of the way.
Where one standard error is a quarter of the other, the pool lies on the better measurement (6 % off, within the
tolerance): that claim is right, as everywhere. Where they are alike, neither claim is right and the pool is their
compromise: the middle for equal errors, a fifth of the way from the better one for a ratio of two. So "always blend"
and "never blend" both lose.

One standard error alone says no more than a cue does elsewhere. The two small ones are "strong" and the two great ones
"weak", all four are equally frequent where both claims are right and where both are wrong, and where one is right the
small one points to it with probability `cue_reliability`. Which option is right follows from both errors.
"""

from typing import ClassVar

import numpy as np

from envs.core.design import draw_expert
from envs.core.task import Decision, Numeric, Seat
from envs.families.base import TOLERANCE, ContractOptions, FunctionFamily, shuffled

COMPROMISES = (20, 50, 80)  # per cent of the way from the lower measurement to the higher one
ERRORS = (1, 2, 4, 8)  # standard errors, in units of a twentieth of the span of the list
UNEQUAL = ((1, 4), (2, 8))  # (better, worse): the pool is the better one
ALIKE = ((1, 2), (4, 8))  # the pool is a fifth of the way from the better one to the worse
APART = 0.15  # of the gap of two claims: how far from what may be right of them all other options are


class EstimateFamily(FunctionFamily):
    """A numeric contract that is measured and not decreed; the pool of both measurements by 1 / sigma^2 is right."""

    kind = "estimate"
    low: ClassVar[int]  # range of the measurements
    high: ClassVar[int]

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        """Three measurements, of which two are made, and a compromise of each pair."""

        def blend(one: str, other: str) -> str:
            return _between(one, other, rng.choice(COMPROMISES))

        while True:
            near, far = (20 * int(gap) for gap in rng.integers(1, 7, size=2))
            lowest = int(rng.integers(self.low, self.high - near - far + 1))
            plain = shuffled([str(lowest), str(lowest + near), str(lowest + near + far)], rng)
            readings = ContractOptions.of(plain, blend, numeric=True)
            if _told_apart(readings):
                return readings

    def decide(
        self,
        right: tuple[bool, ...],
        seats: tuple[Seat, ...],
        rng: np.random.Generator,
        *,
        cue_reliability: float,
        distractors: int = 0,
    ) -> Decision:
        readings = self.draw(rng)
        low, high = sorted(int(option) for option in readings.claims)
        plain = [int(option) for option in (*readings.claims, readings.other)]
        if any(right):
            truth, wrong = (readings.claims[i] for i in rng.permutation(2))
            beliefs = tuple(truth if is_right else wrong for is_right in right)
            expert = draw_expert(right, cue_reliability, rng)
            errors = UNEQUAL[rng.integers(2)]
        else:
            truth = readings.blends[0]
            beliefs = tuple(readings.claims[i] for i in rng.permutation(2))
            distances = [abs(int(truth) - int(belief)) for belief in beliefs]
            if distances[0] == distances[1]:
                expert, error = int(rng.integers(2)), ERRORS[rng.integers(4)]
                errors = (error, error)
            else:
                expert, errors = int(np.argmin(distances)), ALIKE[rng.integers(2)]
        error_of = {seat: errors[i != expert] for i, seat in enumerate(seats)}
        options = shuffled(readings.options(distractors), rng)
        between = tuple(option for option in options if low < int(option) < high and option != readings.blends[0])
        return Decision(
            id=self.name,
            options=options,
            utility={option: float(option == truth) for option in options},
            belief=dict(zip(seats, beliefs, strict=True)),
            expert=seats[expert],
            cue={seat: "strong" if error <= 2 else "weak" for seat, error in error_of.items()},
            blends=(readings.blends[0], *between),
            numeric=Numeric(
                truth=float(truth),
                tolerance=TOLERANCE * (high - low),
                sigma={seat: error * (max(plain) - min(plain)) / 20 for seat, error in error_of.items()},
                estimate=True,
            ),
        )


def _told_apart(readings: ContractOptions) -> bool:
    """Whether, for each two that may be the claims, no other option is near to them or to their compromise."""
    a, b, c = (int(option) for option in (*readings.claims, readings.other))
    for one, other, blend in zip((a, b, c), (b, c, a), map(int, readings.blends), strict=True):
        rest = {a, b, c, *map(int, readings.blends)} - {one, other, blend}
        least = APART * abs(one - other)
        if len(rest) < 3 or min(abs(x - y) for x in rest for y in (one, other, blend)) < least:
            return False
    return True


def _between(one: str, other: str, point: int) -> str:
    low, high = sorted((int(one), int(other)))
    return str(low + (high - low) * int(point) // 100)
