"""What conditions change, over the seeds of a method: each of a battery minus the one that it is `against`.

Where one seat alone is judged on either side, beside a partner, it is judged on both. Loads no torch.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from envs.core.episode import Episode
from marl_coop.evaluation.comparison import COMPARED, OF_ONE_SEAT, check_same_tasks
from marl_coop.evaluation.evaluated import Evaluated, read_evaluation
from marl_coop.evaluation.results import Results
from marl_coop.runs.rundir import RunError
from rewards.metrics import METRICS, Change, change_across_seeds
from rewards.metrics.across_seeds import Plays


class Sides(NamedTuple):
    """What is compared: a method in a condition, minus a method, mostly the same, in another."""

    method: str
    condition: str
    than_method: str
    than_condition: str

    @property
    def than(self) -> str:
        """The second side, in a table of the first one's method."""
        alike = self.method == self.than_method
        return self.than_condition if alike else f"{self.than_method} in {self.than_condition}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionChange:
    """The first side minus the second.

    Attributes:
        seeds: those of the first side, in order; [None] where it was not trained.
        tasks: how many were played on either side.
        metrics: by name, over seeds.
        undefined: those that were asked for and have no case on a side of some seed.
    """

    sides: Sides
    seeds: Sequence[int | None]
    tasks: int
    metrics: Mapping[str, Change]
    undefined: Sequence[str]


@dataclass(slots=True)
class _Played:
    """What one seed did on either side: on the first beside each of its partners in a cross play, else once."""

    after: dict[tuple, Evaluated]
    before: Evaluated

    @property
    def one_seat(self) -> bool:
        return any(one.beside_partners for one in (self.before, *self.after.values()))

    def plays(self) -> tuple[Plays, Plays]:
        """By task, what was played before and after."""
        after: dict[str, list[Episode]] = {}
        for task, episode in chain.from_iterable(one.episodes.items() for one in self.after.values()):
            after.setdefault(task, []).append(episode)
        return {task: [episode] for task, episode in self.before.episodes.items()}, after


def compare_conditions(folders: Sequence[Path], metrics: Sequence[str] = COMPARED) -> list[ConditionChange]:
    """Every difference of two conditions that evaluations list, over the seeds of its methods.

    The partners of a cross play count as one where they are seeds of one method: a seed's play beside all of them is
    taken together.

    Args:
        folders: of evaluations. A team that is in several, as a floor is, counts once.
        metrics: names of those to compare by.

    Raises:
        RunError: a folder is no evaluation, no condition is against another, a seed did other things in two folders, or
            seeds did not play the same tasks.
    """
    found: dict[Sides, dict[int | None, _Played]] = {}
    for folder in folders:
        if (folder / "run.json").is_file():
            where = shlex.quote(str(folder))
            raise RunError(
                f"{where} is a run, which has no conditions: give the evaluation that marl-coop eval {where} made"
            )
        _collect(folder, *read_evaluation(folder), found)
    if not found:
        raise RunError(
            "nothing to compare: no condition of these evaluations is `against` another; say in the battery which is "
            "(docs/battery.md)"
        )
    changes = [_change(sides, by_seed, metrics) for sides, by_seed in found.items()]
    if not any(change.metrics for change in changes):
        raise RunError(f"nothing to compare: {', '.join(metrics)} has no case on both sides of every seed")
    return changes


def _collect(
    folder: Path,
    results: Results,
    played: Mapping[tuple[str, str], Evaluated],
    found: dict[Sides, dict[int | None, _Played]],
) -> None:
    """Put what was played in one evaluation to its sides and seeds."""
    pairs = dict.fromkeys(
        ((row.who, row.condition), (row.than_who, row.than_condition))
        for row in results.rows
        if row.than_who is not None and row.than_condition not in (None, row.condition)
    )
    for first, second in pairs:
        mine, other = played[first], played[second]
        condition, partner = _partner(mine, results)
        sides = Sides(mine.method, condition, other.method, other.condition)
        one = found.setdefault(sides, {}).setdefault(mine.seed, _Played({}, other))
        for known, again in ((one.before, other), (one.after.setdefault(partner, mine), mine)):
            if not again.is_like(known):
                check_same_tasks(known, again)
                seed = "" if again.seed is None else f" with seed {again.seed}"
                what = f"{again.method!r}{seed} in {again.condition}"
                raise RunError(f"{known.place!r} and {again.place!r} are both {what}; leave one out")


def _partner(one: Evaluated, results: Results) -> tuple[str, tuple]:
    """The condition and, of a cross play, who sat beside it: its method is named in the place of its folder."""
    name, _, partner = one.condition.partition(":")
    trained = (results.trained or {}).get(partner)
    return (f"{name}:{trained.method}", trained) if trained else (one.condition, ())


def _change(sides: Sides, by_seed: Mapping[int | None, _Played], metrics: Sequence[str]) -> ConditionChange:
    seeds = sorted(by_seed, key=lambda seed: (seed is not None, seed))
    played = [by_seed[seed] for seed in seeds]
    _check_same(one.before for one in played)
    _check_same(after for one in played for after in one.after.values())
    known = OF_ONE_SEAT if any(one.one_seat for one in played) else METRICS
    try:
        before, after = zip(*(one.plays() for one in played), strict=True)
        found = change_across_seeds(before, after, {name: known[name] for name in metrics})
    except ValueError as error:
        raise RunError(f"{sides.condition} and {sides.than} of {sides.method!r} have not the same tasks") from error
    return ConditionChange(
        sides=sides,
        seeds=seeds,
        tasks=len(played[0].before.episodes),
        metrics=found,
        undefined=[name for name in metrics if name not in found],
    )


def _check_same(side: Iterable[Evaluated]) -> None:
    """Raises RunError where not all seeds had the same tasks on a side."""
    first, *others = side
    for other in others:
        check_same_tasks(first, other)
