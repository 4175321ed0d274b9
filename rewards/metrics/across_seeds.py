"""Several training seeds of several methods on the same tasks: interquartile means, differences, improvement.

The unit of a claim about a method is the training seed. A run's score is the metric over all its tasks, as every other
table has it, and a method's is the interquartile mean over its runs: the mean of their middle half, which one lucky
seed does not move (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
section 4.3, of one benchmark; runs at the quartiles count by their part within). The probability of improvement is that
of a run of one method over a run of another, a tie being half of one (same; Mann and Whitney's U).

The scores are not those of each family of tasks by itself: a family of two tasks scores 0, 1/2 or 1, and the middle
half of such scores is 1 where 81 % of the tasks are solved.

Intervals are those of a Bayesian bootstrap over both seeds and tasks: runs of each method are weighed at random, and
tasks, the same for all runs as they play the same (Owen 2007, "The pigeonhole bootstrap"). The weights, and the
pseudo-cases that a rate in [0, 1] gets, are those of `rewards.metrics.bayesian_bootstrap`. So the claim is about other
seeds and other tasks drawn as these are. rliable 1.2, the library of that paper, takes the tasks as they are, and needs
arch below 8, which does not import beside pandas 3.

Axes: E resample, R run, U task, K sum, C whatever has a weight.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from envs.core.episode import Episode
from rewards.metrics.bayesian_bootstrap import LEVELS, RESAMPLES
from rewards.metrics.intervals import FAULTS, sums_of
from rewards.metrics.rate import Formula, Statistic, faulted
from rewards.metrics.table import METRICS

Runs = Sequence[Mapping[str, Episode]]  # a method's runs, each by task
Plays = Mapping[str, Sequence[Episode]]  # what a run played of each task


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number of a method over its seeds, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScores:
    """A metric of a method, its difference to the reference, and the probability of improvement over that, in [0, 1].

    The last two are None of the reference itself, `improvement` also where it is not said whether more is better.
    `of_seeds` are the scores of the runs, in their order.
    """

    score: Estimate
    of_seeds: tuple[float, ...]
    difference: Estimate | None
    improvement: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How far the second side of a pair is above the first, over seeds; `of_seeds`: of each run, in their order."""

    difference: Estimate
    of_seeds: tuple[float, ...]


def across_seeds(
    methods: Mapping[str, Runs], reference: str, metrics: Mapping[str, Statistic] = METRICS
) -> dict[str, dict[str, MethodScores]]:
    """Metric -> method -> its scores; a metric that is not defined in every run is left out.

    A task with a sandbox fault in any run counts in `sandbox_fault_rate` alone.

    Args:
        methods: the runs of each, which hold the same tasks.
        reference: the method that the others are compared with.
    """
    runs = [{task: [run[task]] for task in run} for of_method in methods.values() for run in of_method]
    names = [(method, number) for method, of_method in methods.items() for number in range(len(of_method))]
    return {
        name: dict(_scores(methods, reference, values_R, resamples_ER, direction=metrics[name].direction))
        for name, values_R, resamples_ER in _scores_of(runs, names, metrics)
    }


def change_across_seeds(
    before: Sequence[Plays], after: Sequence[Plays], metrics: Mapping[str, Statistic] = METRICS
) -> dict[str, Change]:
    """Metric -> the interquartile mean over runs of what each has after minus before, in two conditions for example.

    A run is weighed once, with both of its sides, so what seeds differ in on either side alike cancels out. A task has
    as many plays as a side played of it, and one with a sandbox fault on any side of any run counts in
    `sandbox_fault_rate` alone. A metric that is not defined on every side is left out.

    Example: three runs solve 1, 2 and 3 of four tasks before, and one more each after: 0.25, whatever the seed.

    Args:
        before, after: the two sides of each run, in one order, which all hold the same tasks.
    """
    if len(before) != len(after):
        raise ValueError("every run must have both sides")
    seeds, ones = len(before), np.ones(len(before))
    names = [(side, number) for side in ("before", "after") for number in range(seeds)]
    found = {}
    for name, values_R, resamples_ER in _scores_of([*before, *after], names, metrics):
        change_R, changes_ER = (scores[..., seeds:] - scores[..., :seeds] for scores in (values_R, resamples_ER))
        difference = _estimate(iqm(change_R, ones), iqm(changes_ER, weights(seeds, "runs")), seeds=seeds)
        found[name] = Change(difference=difference, of_seeds=tuple(map(float, change_R)))
    return found


def _scores_of(
    runs: Sequence[Plays], names: Sequence[tuple[str, int]], metrics: Mapping[str, Statistic]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each metric that is defined in every run: its name, [run] its values, [resample, run] those of the resamples."""
    if any(run.keys() != runs[0].keys() for run in runs):
        raise ValueError("the runs must hold the same tasks")
    for name, statistic in metrics.items():
        tasks = [t for t in sorted(runs[0]) if name == FAULTS or not any(faulted(e) for run in runs for e in run[t])]
        sums_RUK = _side_by_side([sums_of(statistic, [run[task] for task in tasks]) for run in runs])
        values_R = statistic.formula.value(sums_RUK.sum(axis=1)) if sums_RUK.size else np.array([np.nan])
        if not np.isnan(values_R).any():
            yield name, values_R, resampled(statistic.formula, sums_RUK, names)


def iqm(values_C: np.ndarray, weights_C: np.ndarray) -> np.ndarray:
    """The interquartile mean of weighted values: between the quartiles, each counts by what lies there of its weight.

    >>> float(iqm(np.array([0.0, 1, 2, 3, 4, 5, 6, 100]), np.ones(8)))
    3.5

    Args:
        values_C, weights_C: of one shape; the mean is over the last axis.
    """
    order = np.argsort(values_C, axis=-1)
    values_C, weights_C = (np.take_along_axis(each, order, axis=-1) for each in (values_C, weights_C))
    ends_C = np.cumsum(weights_C, axis=-1) / weights_C.sum(axis=-1, keepdims=True)
    inside_C = np.clip(ends_C, 0.25, 0.75)
    inside_C = np.diff(inside_C, axis=-1, prepend=0.25)
    return (values_C * inside_C).sum(axis=-1) / 0.5


def improvement(
    scores_R: np.ndarray, others_R: np.ndarray, weights_R: np.ndarray, other_weights_R: np.ndarray
) -> np.ndarray:
    """P(a run of the first > a run of the other) + P(equal) / 2; weights are of the runs.

    >>> first, other = np.array([0.9, 0.5]), np.array([0.5, 0.4, 0.6])
    >>> float(improvement(first, other, np.ones(2), np.ones(3)))  # 3 of 3 below 0.9; 1 and a tie at 0.5
    0.75
    """
    first, other = scores_R[..., :, None], others_R[..., None, :]
    wins_RR = (first > other) + 0.5 * (first == other)
    shares_RR = weights_R[..., :, None] * other_weights_R[..., None, :]
    return (wins_RR * shares_RR).sum(axis=(-2, -1)) / shares_RR.sum(axis=(-2, -1))


def resampled(formula: Formula, sums_RUK: np.ndarray, names: Sequence[tuple[str, int]]) -> np.ndarray:
    """[resample, run]: the score of each run, its tasks weighed the same in all runs.

    Args:
        names: of each run, its method and its number there; what is drawn for a run depends on these alone.
    """
    runs, units, _ = sums_RUK.shape
    totals_REK = weights(units, "tasks") @ sums_RUK
    for run, (method, number) in enumerate(names):
        prior_PK = formula.prior(sums_RUK[run][sums_RUK[run].any(axis=1)])
        if len(prior_PK):
            rng = np.random.default_rng((number, *method.encode()))
            totals_REK[run] += rng.standard_gamma(0.5, (RESAMPLES, len(prior_PK))) @ prior_PK
    found = [formula.of_resamples(sums_RUK[run].sum(axis=0))(totals_REK[run]) for run in range(runs)]
    return np.stack(found, axis=-1)


@lru_cache(maxsize=64)  # metrics of the same tasks share them
def weights(units: int, name: str) -> np.ndarray:
    """[resample, unit], as in `bayesian_bootstrap`; fixed for what is weighed, by its name: whoever else is compared, a
    method's interval is the same."""
    return np.random.default_rng((units, *name.encode())).standard_gamma(units / (units + 2), (RESAMPLES, units))


def _side_by_side(sums_UK: Sequence[np.ndarray]) -> np.ndarray:
    """[run, task, sum]; a run with fewer seats has zeros where others have the sums of the rest."""
    width = max(one.shape[1] for one in sums_UK)
    return np.stack([np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in sums_UK])


def _scores(
    methods: Mapping[str, Runs], reference: str, values_R: np.ndarray, resamples_ER: np.ndarray, direction: int
) -> Iterator[tuple[str, MethodScores]]:
    """Each method with its scores. What is made of scores and weights is made of those seen, then of the resamples."""
    sides, start = {}, 0
    for name, runs in methods.items():
        part = slice(start, start := start + len(runs))
        seen = values_R[part], np.ones(len(runs))
        drawn = resamples_ER[:, part], weights(len(runs), f"runs of {name}")
        sides[name] = seen, drawn
    for name, side in sides.items():
        seeds = len(methods[name])
        score = _estimate(*(iqm(*scores) for scores in side), seeds=seeds)
        of_seeds = tuple(map(float, side[0][0]))
        if name == reference:
            yield name, MethodScores(score=score, of_seeds=of_seeds, difference=None, improvement=None)
            continue
        pairs = list(zip(side, sides[reference], strict=True))
        seeds = min(seeds, len(methods[reference]))
        difference = _estimate(*(iqm(*mine) - iqm(*other) for mine, other in pairs), seeds=seeds)
        better = None
        if direction:
            wins = (
                improvement(direction * mine, direction * other, mine_weights, other_weights)
                for (mine, mine_weights), (other, other_weights) in pairs
            )
            better = _estimate(*wins, seeds=seeds)
        yield name, MethodScores(score=score, of_seeds=of_seeds, difference=difference, improvement=better)


def _estimate(score: np.ndarray, resamples_E: np.ndarray, *, seeds: int) -> Estimate:
    low, high = np.percentile(resamples_E[~np.isnan(resamples_E)], LEVELS)
    value = float(score)
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), seeds=seeds)
