"""What metrics are made of: a `Rate` is a ratio of two sums over episodes, a `Statistic` any formula on sums."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
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
    """A value with the ends of its 95 % interval and the number of cases behind it; None where it is not defined.

    One episode alone gives a number without bounds, such as tokens, a value and no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        """`0.52 [0.45, 0.59]`, `0.52` where there is no interval, `not defined` where there was no case."""
        if self.value is None:
            return "not defined"
        return f"{self.value:.2f}" if self.low is None else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Formula:
    """A number made of k sums over units, which are episodes or tasks with all their episodes.

    `value` turns sums [..., k] into numbers [...], nan where it is not defined, and `cases` counts the cases in sums
    [k]. `prior` makes of the sums of the units [unit, k] the pseudo-cases [p, k] that the interval adds to them
    (`rewards.metrics.bayesian_bootstrap`). `chosen` is there where `value` picks something by the sums, such as the
    best of several: it gives `value` with what is picked on the sums [k] of all units. Resamples keep to that, as each
    would else pick what its own luck favours, on top of the luck of the units.
    """

    value: Callable[[np.ndarray], np.ndarray]
    cases: Callable[[np.ndarray], float]
    prior: Callable[[np.ndarray], np.ndarray]
    chosen: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]] | None = None

    def of_resamples(self, sums: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """`value` for resamples of units whose sums [k] these are."""
        return self.value if self.chosen is None else self.chosen(sums)


class Statistic(NamedTuple):
    """A metric: what one episode adds to each of k sums, the formula on these, and what it means.

    `doc` says range, cases and source as `Range: ... Cases: ... Source: ...`, as docs/metrics.md has them.
    """

    addends: Callable[[Episode], Sequence[float]]
    formula: Formula
    doc: str

    @property
    def direction(self) -> int:
        """1 where more is better, -1 where less is, 0 where it depends: by the range that `doc` gives."""
        found = re.search(r"Range: (?:(?!Cases: ).)*?(more|less) is better(?=[;.]|$)", self.doc)
        return 0 if found is None else 1 if found[1] == "more" else -1


def statistic(function: Callable[..., np.ndarray], *rates: Callable[[Episode], Rate]) -> Statistic:
    """A function of the values of some rates in [0, 1]; its cases are those of the rate that has the fewest."""
    return Statistic(
        lambda episode: [number for rate in rates for number in rate(episode)], of_rates(function), doc(function)
    )


def bounded(rate: Callable[[Episode], Rate]) -> Statistic:
    """The value of one rate in [0, 1]."""
    return Statistic(rate, of_rates(np.positive), doc(rate))


def unbounded(rate: Callable[[Episode], Rate]) -> Statistic:
    """The value of one rate that may be any number."""
    return bounded(rate)._replace(formula=replace(of_rates(np.positive), prior=no_prior))


def for_each(rate: Callable[[Episode], Rate]) -> Statistic:
    """The value of one rate that may be any number, of which the cases are themselves 0 or 1 of a unit: tokens for each
    task that was solved. Its pseudo-cases are of the share of units that are cases."""
    return bounded(rate)._replace(formula=replace(of_rates(np.positive), prior=with_and_without))


def doc(function: Callable) -> str:
    """The docstring in one line."""
    return " ".join((function.__doc__ or "").split())


def of_rates(function: Callable[..., np.ndarray]) -> Formula:
    """A function of rates in [0, 1], of which the sums hold a numerator and a denominator each, one after another."""

    def value(sums: np.ndarray) -> np.ndarray:
        return function(*(divide(sums[..., i], sums[..., i + 1]) for i in range(0, sums.shape[-1], 2)))

    return Formula(value, lambda sums: sums[1::2].min(), both_ways)


def change(formula: Formula, width: int) -> Formula:
    """After - before of a formula on `width` sums, from the sums before and those after beside each other."""

    def prior(sums: np.ndarray) -> np.ndarray:
        before, after = formula.prior(sums[:, :width]), formula.prior(sums[:, width:])
        rows = np.zeros((len(before) + len(after), sums.shape[1]))
        rows[: len(before), :width], rows[len(before) :, width:] = before, after
        return rows

    def chosen(sums: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        before, after = formula.of_resamples(sums[:width]), formula.of_resamples(sums[width:])
        return lambda resamples: after(resamples[..., width:]) - before(resamples[..., :width])

    return Formula(
        lambda sums: formula.value(sums[..., width:]) - formula.value(sums[..., :width]),
        lambda sums: min(formula.cases(sums[:width]), formula.cases(sums[width:])),
        prior,
        chosen,
    )


def both_ways(sums: np.ndarray) -> np.ndarray:
    """A case that fails and one that succeeds, of each numerator and denominator that follow each other in the sums.

    They are as large as the cases of a unit that has any are on average.

    >>> both_ways(np.array([[1.0, 2.0], [0.0, 0.0], [4.0, 4.0]]))
    array([[0., 3.],
           [3., 3.]])
    """
    cases = sums[:, 1::2]
    sizes = cases.sum(axis=0) / np.maximum(1, (cases > 0).sum(axis=0))
    rows = np.zeros((2, len(sizes), sums.shape[1]))
    pairs = np.arange(len(sizes))
    rows[:, pairs, 2 * pairs + 1] = sizes
    rows[1, pairs, 2 * pairs] = sizes
    return rows.reshape(-1, sums.shape[1])


def with_and_without(sums: np.ndarray) -> np.ndarray:
    """A unit that is a case and one that is none, each with the mean numerator.

    >>> with_and_without(np.array([[30.0, 1.0], [50.0, 0.0]]))
    array([[40.,  1.],
           [40.,  0.]])
    """
    numerator, cases = sums.sum(axis=0) / np.maximum(1, (sums > 0).sum(axis=0))
    return np.array([[numerator, cases], [numerator, 0.0]])


def no_prior(sums: np.ndarray) -> np.ndarray:
    """No pseudo-case."""
    return sums[:0]


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, nan where the denominator is not positive."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > _TINY)


def share(cases: Sequence[bool]) -> Rate:
    """How many of the cases are true."""
    return Rate(float(sum(cases)), len(cases))


def seats_and_decisions(episode: Episode, seats: Collection[Seat] | None = None) -> Iterator[tuple[Seat, Decision]]:
    """Each seat, of these or of all, with each decision."""
    judged = [seat for seat in episode.seats if seats is None or seat in seats]
    return ((seat, decision) for decision in episode.task.decisions for seat in judged)


def is_probed(episode: Episode, seat: Seat, decision: Decision) -> bool:
    """Whether the seat's code is probed for the option of the decision that it follows."""
    return decision.id in episode.task.probes.get(seat, {})


def faulted(episode: Episode) -> bool:
    return episode.stop_reason is StopReason.SANDBOX_FAULT
