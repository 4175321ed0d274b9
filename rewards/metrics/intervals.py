"""From episodes to numbers with intervals: one list, two lists on the same tasks, a team beside solo runs."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from envs.core.episode import Episode
from rewards.metrics.rate import Metric, Statistic, divide, faulted
from rewards.metrics.table import METRICS
from rewards.metrics.tokens import generated_tokens

RESAMPLES = 2000
FAULTS = "sandbox_fault_rate"  # the one metric that counts episodes with a sandbox fault

Units = Sequence[Sequence[Episode]]  # what is resampled as one: an episode, or all the episodes of a task


def rates(episodes: Sequence[Episode]) -> dict[str, float | None]:
    """Every metric's value without an interval, None where it is not defined; quick enough for each training update."""
    values = {name: _value(statistic.value, sums) for name, statistic, sums in _tables(episodes)}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def measure(episodes: Sequence[Episode]) -> dict[str, Metric]:
    """Every metric of `METRICS` by name.

    The interval is the percentile bootstrap over episodes, because the decisions, seats and turns of one episode are
    not independent. All metrics share the resamples, whose seed is fixed. A resample in which a metric is not defined
    is left out of its interval. An interval of width 0 says that no episode differed, not that there is no doubt.
    """
    if not episodes:
        raise ValueError("no episodes to measure")
    draws = _draws(len(episodes))
    return {name: _metric(statistic.value, statistic.cases, sums, draws) for name, statistic, sums in _tables(episodes)}


def compare(before: Sequence[Episode], after: Sequence[Episode]) -> dict[str, Metric]:
    """Paired difference after - before of every metric, on the same tasks; n is the smaller number of cases.

    The unit that is resampled is the task, with all its episodes on both sides. A task with a sandbox fault on either
    side counts in `sandbox_fault_rate` alone. Raises ValueError where the two sides do not hold the same tasks.
    """
    everything = _by_task(before=before, after=after)
    sound = [_without_faults(*sides) for sides in everything]
    draws = _draws(len(everything))

    def difference(name: str, statistic: Statistic) -> Metric:
        old, new = (_sums(statistic, side) for side in zip(*(everything if name == FAULTS else sound), strict=True))
        width = old.shape[1]
        return _metric(
            lambda sums: statistic.value(sums[..., width:]) - statistic.value(sums[..., :width]),
            lambda sums: min(statistic.cases(sums[:width]), statistic.cases(sums[width:])),
            np.concatenate([old, new], axis=1),
            draws,
        )

    return {name: difference(name, statistic) for name, statistic in METRICS.items()}


def coordination(solo: Sequence[Episode], team: Sequence[Episode]) -> dict[str, Metric]:
    """What it costs to work as a team, against solo runs of the same tasks. Tasks with a sandbox fault are left out.

    `curse_of_coordination`: P(solo passes) - P(team passes). Range: [-1, 1], less is better. Cases: tasks.
    `coordination_failure_rate`: P(team fails | solo passes). Range: [0, 1], less is better. Cases: tasks that a solo
    run passes. Both are claims only at equal total tokens, so near 1 of
    `token_ratio`: tokens that the team writes for each token of a solo run. Range: from 0. Cases: tasks.

    A task with several runs enters with the means over its runs. Source: CooperBench (arXiv 2601.13295), where two
    agents pass about 25 % and one alone about 50 %.

    Example: solo passes tasks 1 and 2 of four and the team tasks 2 and 3: a curse of 0, a failure rate of 1/2.
    """
    rows = [_beside(*_without_faults(*sides)) for sides in _by_task(solo=solo, team=team)]
    sums, draws = np.array(rows), _draws(len(rows))
    ratios = {  # columns of a row: numerator, denominator, cases
        "curse_of_coordination": (1, 0, 0),
        "coordination_failure_rate": (3, 2, 4),
        "token_ratio": (6, 5, 0),
    }
    return {
        name: _metric(lambda s, a=a, b=b: divide(s[..., a], s[..., b]), lambda s, c=c: s[c], sums, draws)
        for name, (a, b, c) in ratios.items()
    }


def _beside(solo: Sequence[Episode], team: Sequence[Episode]) -> tuple[float, ...]:
    """One task: 1, solo - team success, solo success, solo passes and team fails, whether solo passes, tokens."""
    if not solo:
        return (0.0,) * 7
    passes, team_passes = (float(np.mean([episode.outcome.success for episode in side])) for side in (solo, team))
    tokens = (float(np.mean([generated_tokens(episode) for episode in side])) for side in (solo, team))
    return 1.0, passes - team_passes, passes, passes * (1 - team_passes), float(passes > 0), *tokens


def _tables(episodes: Sequence[Episode]) -> Iterator[tuple[str, Statistic, np.ndarray]]:
    """Name, statistic and sums of every metric, an episode to a unit."""
    everything = [[episode] for episode in episodes]
    sound = [[] if faulted(episode) else [episode] for episode in episodes]
    for name, statistic in METRICS.items():
        yield name, statistic, _sums(statistic, everything if name == FAULTS else sound)


def _by_task(**sides: Sequence[Episode]) -> list[tuple[list[Episode], list[Episode]]]:
    """The episodes of each task on both sides, tasks in the order of their ids."""
    tasks = {name: defaultdict(list) for name in sides}
    for name, episodes in sides.items():
        for episode in episodes:
            tasks[name][episode.task.id].append(episode)
    (first, one), (second, other) = tasks.items()
    if one.keys() != other.keys():
        only = [sorted(a.keys() - b.keys())[:5] for a, b in ((one, other), (other, one))]
        raise ValueError(f"the tasks must be the same: only in {first} {only[0]}, only in {second} {only[1]}")
    if not one:
        raise ValueError("no episodes to compare")
    return [(one[task], other[task]) for task in sorted(one)]


def _without_faults(*sides: list[Episode]) -> tuple[list[Episode], ...]:
    """Both sides of a task, or nothing of either where one has a sandbox fault."""
    return ([], []) if any(faulted(episode) for side in sides for episode in side) else sides


def _sums(statistic: Statistic, units: Units) -> np.ndarray:
    """[unit, k]: the sums of each unit. An episode with fewer seats than another adds nothing to the sums of the rest.

    k is 0 where no unit has an episode.
    """
    addends = [[statistic.addends(episode) for episode in unit] for unit in units]
    sums = np.zeros((len(units), max((len(row) for rows in addends for row in rows), default=0)))
    for unit, rows in enumerate(addends):
        for row in rows:
            sums[unit, : len(row)] += row
    return sums


def _draws(units: int) -> np.ndarray:
    """[resample, unit]: how often each unit was drawn; the same for the same number of units."""
    times_drawn = np.random.default_rng(0).multinomial(units, np.full(units, 1.0 / units), size=RESAMPLES)
    return times_drawn.astype(float)


def _value(value: Callable[[np.ndarray], np.ndarray], sums: np.ndarray) -> float:
    """What all units make together, nan where it is not defined."""
    return float(value(sums.sum(0))) if sums.size else np.nan


def _metric(
    value: Callable[[np.ndarray], np.ndarray],
    cases: Callable[[np.ndarray], float],
    sums: np.ndarray,
    draws: np.ndarray,
) -> Metric:
    n = int(cases(sums.sum(0))) if sums.size else 0
    point = _value(value, sums)
    if np.isnan(point):
        return Metric(None, None, None, n)
    resamples = value(draws @ sums)
    low, high = np.percentile(resamples[~np.isnan(resamples)], [2.5, 97.5])
    return Metric(point, float(low), float(high), n)
