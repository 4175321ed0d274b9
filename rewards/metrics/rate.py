"""What metrics are made of: a `Rate` is a ratio of two sums over episodes, a `Statistic` any formula on sums."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from envs.core.episode import Episode, StopReason
from envs.core.task import Decision, Seat

_TINY = 1e-9  # sums of floats that should cancel leave less than this


class Rate(NamedTuple):
    """`numerator` of `denominator` cases. Rates of many episodes add up, each by itself."""

    numerator: float = 0.0
    denominator: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """A value with the ends of its 95 % interval and the number of cases behind it; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number made of sums over episodes.

    `addends` is what one episode adds to each of k sums, `value` turns sums [..., k] into numbers [...], nan where it
    is not defined, and `cases` counts the cases in sums [k].
    """

    addends: Callable[[Episode], Sequence[float]]
    value: Callable[[np.ndarray], np.ndarray]
    cases: Callable[[np.ndarray], float]


def formula(function: Callable[..., np.ndarray], *rates: Callable[[Episode], Rate]) -> Statistic:
    """A function of the values of some rates; its cases are those of the rate that has the fewest."""

    def addends(episode: Episode) -> list[float]:
        return [number for rate in rates for number in rate(episode)]

    def value(sums: np.ndarray) -> np.ndarray:
        return function(*(divide(sums[..., i], sums[..., i + 1]) for i in range(0, 2 * len(rates), 2)))

    return Statistic(addends, value, lambda sums: sums[1::2].min())


def plain(rate: Callable[[Episode], Rate]) -> Statistic:
    """The value of one rate."""
    return formula(np.positive, rate)


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, nan where the denominator is not positive."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > _TINY)


def share(cases: Sequence[bool]) -> Rate:
    """How many of the cases are true."""
    return Rate(float(sum(cases)), len(cases))


def seats_and_decisions(episode: Episode) -> Iterator[tuple[Seat, Decision]]:
    return ((seat, decision) for decision in episode.task.decisions for seat in episode.seats)


def faulted(episode: Episode) -> bool:
    return episode.stop_reason is StopReason.SANDBOX_FAULT
