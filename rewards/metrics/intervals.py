"""From episodes to numbers with intervals: one list, two lists on the same tasks, a team beside solo runs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from envs.core.episode import Episode
from rewards.metrics.bayesian_bootstrap import interval
from rewards.metrics.rate import Formula, Metric, Statistic, change, faulted, no_prior, of_rates
from rewards.metrics.table import METRICS
from rewards.metrics.tokens import generated_tokens

FAULTS = "sandbox_fault_rate"  # the one metric that counts episodes with a sandbox fault

Units = Sequence[Sequence[Episode]]  # what is weighed as one: an episode, or all the episodes of a task


def rates(episodes: Sequence[Episode], metrics: Mapping[str, Statistic] = METRICS) -> dict[str, float | None]:
    """Every metric's value without an interval, None where it is not defined; quick enough for each training update."""
    values = {name: _value(formula, sums) for name, formula, sums in _tables(episodes, metrics)}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def cases(episodes: Sequence[Episode], name: str, metrics: Mapping[str, Statistic] = METRICS) -> int:
    """Number of cases of a metric."""
    ((_, formula, sums),) = _tables(episodes, {name: metrics[name]})
    return int(formula.cases(sums.sum(0))) if sums.size else 0


def measure(episodes: Sequence[Episode], metrics: Mapping[str, Statistic] = METRICS) -> dict[str, Metric]:
    """Every metric by name, with the interval of `rewards.metrics.bayesian_bootstrap` over episodes.

    Args:
        metrics: `METRICS`, some of them, `of_seats` or `of_players`.
    """
    if not episodes:
        raise ValueError("no episodes to measure")
    return {name: _metric(formula, sums) for name, formula, sums in _tables(episodes, metrics)}


def compare(
    before: Sequence[Episode], after: Sequence[Episode], metrics: Mapping[str, Statistic] = METRICS
) -> dict[str, Metric]:
    """Paired difference after - before of every metric, on the same tasks; n is the smaller number of cases.

    The unit is the task, with all its episodes on both sides. A task with a sandbox fault on either side counts in
    `sandbox_fault_rate` alone. Raises ValueError where the two sides do not hold the same tasks.
    """
    everything = _by_task(before=before, after=after)
    sound = [_without_faults(*sides) for sides in everything]

    def difference(name: str, statistic: Statistic) -> Metric:
        old, new = (sums_of(statistic, side) for side in zip(*(everything if name == FAULTS else sound), strict=True))
        return _metric(change(statistic.formula, old.shape[1]), np.concatenate([old, new], axis=1))

    return {name: difference(name, statistic) for name, statistic in metrics.items()}


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
    tasks = [_beside(*_without_faults(*sides)) for sides in _by_task(solo=solo, team=team)]
    case, team_passes, passes, breaks, solo_tokens, team_tokens = np.array(tasks).T
    broken = _metric(of_rates(np.positive), np.stack([breaks, passes], axis=1))
    token_ratio = replace(of_rates(np.positive), prior=no_prior)
    return {
        "curse_of_coordination": _metric(
            change(of_rates(np.positive), 2), np.stack([team_passes, case, passes, case], axis=1)
        ),
        "coordination_failure_rate": replace(broken, n=int((passes > 0).sum())),
        "token_ratio": replace(_metric(token_ratio, np.stack([team_tokens, solo_tokens], axis=1)), n=int(case.sum())),
    }


def _beside(solo: Sequence[Episode], team: Sequence[Episode]) -> tuple[float, ...]:
    """One task: 1, success of the team, of the solo runs, of these where the team fails, tokens of these and of it."""
    if not solo:
        return (0.0,) * 6
    passes, team_passes = (float(np.mean([episode.outcome.success for episode in side])) for side in (solo, team))
    tokens = (float(np.mean([generated_tokens(episode) for episode in side])) for side in (solo, team))
    return 1.0, team_passes, passes, passes * (1 - team_passes), *tokens


def _tables(
    episodes: Sequence[Episode], metrics: Mapping[str, Statistic] = METRICS
) -> Iterator[tuple[str, Formula, np.ndarray]]:
    """Name, formula and sums of every metric, an episode to a unit."""
    everything = [[episode] for episode in episodes]
    sound = [[] if faulted(episode) else [episode] for episode in episodes]
    for name, statistic in metrics.items():
        yield name, statistic.formula, sums_of(statistic, everything if name == FAULTS else sound)


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


def sums_of(statistic: Statistic, units: Units) -> np.ndarray:
    """[unit, k]: the sums of each unit. An episode with fewer seats than another adds nothing to the sums of the rest.

    k is 0 where no unit has an episode.
    """
    addends = [[statistic.addends(episode) for episode in unit] for unit in units]
    sums = np.zeros((len(units), max((len(row) for rows in addends for row in rows), default=0)))
    for unit, rows in enumerate(addends):
        for row in rows:
            sums[unit, : len(row)] += row
    return sums


def _value(formula: Formula, sums: np.ndarray) -> float:
    """What all units make together, nan where it is not defined."""
    return float(formula.value(sums.sum(0))) if sums.size else np.nan


def _metric(formula: Formula, sums: np.ndarray) -> Metric:
    n, value = int(formula.cases(sums.sum(0))) if sums.size else 0, _value(formula, sums)
    if np.isnan(value):
        return Metric(None, None, None, n)
    ends = interval(formula, sums)
    return Metric(value, *(ends or (None, None)), n=n)
