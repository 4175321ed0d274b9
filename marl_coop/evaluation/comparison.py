"""Trained runs beside each other, on the same tasks: how far each method is above another. Loads no torch.

A method is what the runs of one recorded name have in common; they differ by their seeds. Where a method has one seed
alone, a difference speaks of that checkpoint, and is paired by task (`rewards.metrics.compare`); where any has several,
of methods (`rewards.metrics.across_seeds`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from envs.core.task import Seat, Task
from marl_coop.evaluation.evaluated import Evaluated
from marl_coop.evaluation.seating import Seating
from marl_coop.runs.rundir import RunError
from rewards.metrics import HEADLINES, across_seeds, compare, measure, of_seats, seats_of
from rewards.metrics.rate import Statistic

ENOUGH_SEEDS = 5  # for a claim about a method
COMPARED = (*HEADLINES, "kairos_utility", "resistance", "kairos_f1")
BESIDE_PARTNERS: Seating[None] = Seating((None,), partner=(None,))
OF_ONE_SEAT = of_seats(lambda episode: BESIDE_PARTNERS.judged(episode.seats, episode.task.seed))

Verdict = Literal["higher", "lower", "not told apart"]


def verdict(low: float | None, high: float | None) -> Verdict:
    """What a difference says: its interval is above 0, below 0, or neither."""
    if low is not None and low > 0:
        return "higher"
    return "lower" if high is not None and high < 0 else "not told apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """A metric of a method or, with `than`, how far it is above that reference.

    `improvement` is the probability that a run of the method is better than one of the reference, in [0, 1], with its
    interval; None where seeds are not compared, or where it is not said whether more is better. `n` is the number of
    cases of one run, None over several. `of_seeds` is the metric of each run, in the order of `Comparison.seeds`; it is
    empty of a difference, and where seeds are not compared.
    """

    condition: str
    method: str
    than: str | None = None
    metric: str
    value: float
    low: float | None
    high: float | None
    seeds: int
    n: int | None = None
    improvement: tuple[float, float, float] | None = None
    of_seeds: tuple[float, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return verdict(self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Methods in a condition.

    `seeds` are those of each method, none where it was not trained. `of_methods`: rows are over seeds. `alike`: all
    judge the same seats of each task; else rates of seats are of those that all of them judge.
    """

    condition: str
    reference: str
    tasks: int
    seeds: Mapping[str, Sequence[int]]
    of_methods: bool
    alike: bool = True
    rows: Sequence[ComparedRow]


def compare_methods(
    evaluated: Sequence[Evaluated], reference: str | None = None, metrics: Sequence[str] = COMPARED
) -> list[Comparison]:
    """Each condition in which two methods or more were evaluated.

    Args:
        metrics: names of those to compare by.
        reference: the method that the others are compared with; None: the first in each condition.

    Raises:
        RunError: there is nothing to compare, a method has a seed twice, or two were not evaluated on the same tasks.
    """
    conditions: dict[str, dict[str, list[Evaluated]]] = {}
    for one in _each_once(evaluated):
        conditions.setdefault(one.condition, {}).setdefault(one.method, []).append(one)
    several = {name: methods for name, methods in conditions.items() if len(methods) > 1}
    if not several:
        known = sorted({one.method for one in evaluated})
        if len(known) == 1:
            raise RunError(
                f"nothing to compare: all of these are seeds of one method, {known[0]!r}; give another a name of its "
                "own when it is trained (name=NAME)"
            )
        raise RunError(f"nothing to compare: no condition in which two of {', '.join(known)} were evaluated")
    if reference is not None:
        _check_known([reference], {method for methods in several.values() for method in methods})
    return [
        _comparison(name, methods, reference or next(iter(methods)), metrics)
        for name, methods in several.items()
        if reference is None or reference in methods
    ]


def only(evaluated: Sequence[Evaluated], methods: Sequence[str]) -> list[Evaluated]:
    """Those that are of some methods.

    Raises:
        RunError: there is nothing of one of them.
    """
    _check_known(methods, {one.method for one in evaluated})
    return [one for one in evaluated if one.method in methods]


def _check_known(methods: Sequence[str], known: Collection[str]) -> None:
    for method in methods:
        if method not in known:
            raise RunError(f"there is no method {method!r}; there are {', '.join(sorted(known))}")


def passed_over(evaluated: Sequence[Evaluated], comparisons: Sequence[Comparison]) -> list[str]:
    """A line for each condition that is in none of the comparisons: one method alone was evaluated there, or not the
    reference."""
    compared = {comparison.condition for comparison in comparisons}
    others: dict[str, set[str]] = {}
    for one in evaluated:
        if one.condition not in compared:
            others.setdefault(one.condition, set()).add(one.method)
    return [
        f"not compared: {condition}, where only {', '.join(sorted(methods))} {'was' if len(methods) == 1 else 'were'} "
        "evaluated"
        for condition, methods in others.items()
    ]


def _each_once(evaluated: Sequence[Evaluated]) -> list[Evaluated]:
    """Those that differ: the same team may be in several evaluations, as their floor is, each time by another name.

    Raises:
        RunError: two are of one method and one seed, and did not have the same tasks or did not do the same.
    """
    found: dict[tuple, Evaluated] = {}
    for one in evaluated:
        other = found.setdefault((one.condition, one.method, one.seed), one)
        if not one.is_like(other):
            check_same_tasks(other, one)
            seed = "" if one.seed is None else f" with seed {one.seed}"
            raise RunError(f"{other.place!r} and {one.place!r} are both {one.method!r}{seed}; leave one out")
    return list(found.values())


def _comparison(
    condition: str, methods: Mapping[str, Sequence[Evaluated]], reference: str, names: Sequence[str]
) -> Comparison:
    everyone = [one for of_method in methods.values() for one in of_method]
    sizes = [side for side in ([one for one in everyone if one.alone is alone] for alone in (False, True)) if side]
    for first, *others in sizes:
        for other in others:
            check_same_tasks(first, other)
    if len(sizes) == 2:
        check_same_problems(*(side[0] for side in sizes))
    of_methods = any(len(runs) > 1 for runs in methods.values())
    judged, alike = _judged(everyone)
    known = OF_ONE_SEAT if everyone[0].beside_partners else of_seats(lambda episode: judged[episode.task.id])
    metrics = {name: known[name] for name in names}
    rows = _rows_of_methods if of_methods else _rows_of_checkpoints
    return Comparison(
        condition=condition,
        reference=reference,
        tasks=len(everyone[0].episodes),
        seeds={name: [one.seed for one in runs if one.seed is not None] for name, runs in methods.items()},
        of_methods=of_methods,
        alike=alike,
        rows=rows(condition, methods, reference, metrics),
    )


def _judged(everyone: Sequence[Evaluated]) -> tuple[dict[str, list[Seat]], bool]:
    """Task -> the seats that learners had in every evaluation of it, and whether these were the same in all."""
    found, alike = {}, True
    for task, episode in everyone[0].episodes.items():
        judged = [set(seats_of(one.learners, one.episodes[task])) for one in everyone]
        found[task] = [seat for seat in episode.seats if all(seat in seats for seats in judged)]
        alike = alike and all(seats == judged[0] for seats in judged)
    return found, alike


def check_same_tasks(one: Evaluated, other: Evaluated) -> None:
    """Raises RunError where two teams did not have the same tasks, or the same seats to judge."""
    _check_same(one, other, _content)
    if one.beside_partners != other.beside_partners:
        names = f"{one.place!r} and {other.place!r}"
        raise RunError(f"{names} had one seat and all seats of {one.condition!r}; they cannot be compared")


def check_same_problems(team: Evaluated, alone: Evaluated) -> None:
    """Raises RunError where one agent alone did not have to settle what a team had to: the agent's tasks are those of a
    pair, with both briefs and both parts in one hand."""
    _check_same(team, alone, _problem)


def _content(task: Task) -> Task:
    """All of a task but what its sources are called: the briefs say that, and older records say it nowhere else."""
    return replace(task, decisions=tuple(replace(decision, source={}) for decision in task.decisions))


def _problem(task: Task) -> tuple:
    return task.family, task.seed, [(d.id, d.options, d.utility, d.blends, d.weight) for d in task.decisions]


def _check_same(one: Evaluated, other: Evaluated, content: Callable[[Task], Any]) -> None:
    names, mine, theirs = f"{one.place!r} and {other.place!r}", one.episodes, other.episodes
    if mine.keys() != theirs.keys():
        both = len(mine.keys() & theirs.keys())
        alone = sorted(mine.keys() ^ theirs.keys())
        raise RunError(
            f"{names} were not evaluated on the same tasks: {len(mine)} and {len(theirs)}, of which {both} are in "
            f"both; not in both: {', '.join(alone[:3])}{', ...' if len(alone) > 3 else ''}; give both the same seed, "
            "number and environment of evaluation"
        )
    for task in mine:
        if content(mine[task].task) != content(theirs[task].task):
            raise RunError(f"{names} were not evaluated on the same tasks: {task!r} has another content in the second")


def _rows_of_checkpoints(
    condition: str, methods: Mapping[str, Sequence[Evaluated]], reference: str, metrics: Mapping[str, Statistic]
) -> list[ComparedRow]:
    played = {name: list(runs[0].episodes.values()) for name, runs in methods.items()}
    found = {(name, None): measure(episodes, metrics) for name, episodes in played.items()}
    found |= {
        (name, reference): compare(played[reference], episodes, metrics)
        for name, episodes in played.items()
        if name != reference
    }
    return [
        ComparedRow(condition=condition, method=method, than=than, metric=metric, seeds=1, **asdict(number))
        for (method, than), numbers in found.items()
        for metric, number in numbers.items()
        if number.value is not None
    ]


def _rows_of_methods(
    condition: str, methods: Mapping[str, Sequence[Evaluated]], reference: str, metrics: Mapping[str, Statistic]
) -> list[ComparedRow]:
    runs = {name: [one.episodes for one in of_method] for name, of_method in methods.items()}
    rows = []
    for metric, by_method in across_seeds(runs, reference, metrics).items():
        for method, scores in by_method.items():
            better = scores.improvement
            for than, estimate in ((None, scores.score), (reference, scores.difference)):
                if estimate is not None:
                    rows.append(
                        ComparedRow(
                            condition=condition,
                            method=method,
                            than=than,
                            metric=metric,
                            **asdict(estimate),
                            improvement=(better.value, better.low, better.high) if than and better else None,
                            of_seeds=() if than else scores.of_seeds,
                        )
                    )
    return rows


def speaks_of(comparison: Comparison) -> str:
    """What the comparison may be taken to say, in a sentence or two."""
    trained = {name: len(seeds) for name, seeds in comparison.seeds.items() if seeds}
    alone = [name for name, seeds in trained.items() if seeds == 1]
    few = [f"{name} ({seeds})" for name, seeds in trained.items() if 1 < seeds < ENOUGH_SEEDS]
    said = []
    if alone:
        said.append(f"One seed: {', '.join(alone)}. It speaks of a checkpoint and not of a method.")
    if few:
        said.append(f"Too few seeds for a claim about a method, so intervals are too narrow: {', '.join(few)}.")
    if comparison.of_methods:
        said.append("Interquartile means over seeds; intervals for other seeds and other tasks.")
    else:
        said.append("Intervals for other tasks, paired by task.")
    if not comparison.alike:
        said.append("Not all train the same seats: CDR, CR, J and what else is of seats is of those that all train.")
    differences = sum(row.than is not None for row in comparison.rows)
    if differences > 1:
        said.append("Of 20 differences that are none, one is told apart by chance.")
    return " ".join(said)
