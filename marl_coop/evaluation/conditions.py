"""What conditions change, over the seeds of a method: each of a battery minus the one that it is `against`.

Where one seat alone is judged on either side, beside a partner, it is judged on both. Loads no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from envs.core.episode import Episode
from marl_coop.evaluation.comparison import COMPARED, OF_ONE_SEAT, Verdict, verdict
from marl_coop.evaluation.evaluated import Evaluated, read_evaluation
from marl_coop.evaluation.results import Results
from marl_coop.runs.rundir import RunError
from rewards.metrics import METRICS, change_across_seeds
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
class ChangedMetric:
    """A metric of the first side minus that of the second: the interquartile mean over seeds with its 95 % interval,
    for other seeds and other tasks, and the difference of each seed in the order of `seeds`."""

    sides: Sides
    metric: str
    value: float
    low: float
    high: float
    seeds: Sequence[int | None]
    of_seeds: Sequence[float]
    tasks: int

    @property
    def verdict(self) -> Verdict:
        return verdict(self.low, self.high)


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


def compare_conditions(folders: Sequence[Path], metrics: Sequence[str] = COMPARED) -> list[ChangedMetric]:
    """Every difference of two conditions that evaluations list, over the seeds of its methods.

    The partners of a cross play count as one where they are seeds of one method: a seed's play beside all of them is
    taken together.

    Args:
        folders: of evaluations. A team that is in several, as a floor is, counts once.
        metrics: names of those to compare by; one that is not defined of every seed on both sides is left out.

    Raises:
        RunError: a folder is no evaluation, no condition is against another, a seed did other things in two folders, or
            seeds did not play the same tasks.
    """
    found: dict[Sides, dict[int | None, _Played]] = {}
    for folder in folders:
        _collect(folder, *read_evaluation(folder), found)
    if not found:
        raise RunError(
            "nothing to compare: no condition of these evaluations is `against` another; say in the battery which is "
            "(docs/battery.md)"
        )
    return [row for sides, by_seed in found.items() for row in _changes(sides, by_seed, metrics)]


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
                seed = "" if again.seed is None else f" with seed {again.seed}"
                what = f"{again.method!r}{seed} in {again.condition}"
                raise RunError(f"{known.place!r} and {again.place!r} are both {what}; leave one out")


def _partner(one: Evaluated, results: Results) -> tuple[str, tuple]:
    """The condition and, of a cross play, who sat beside it: its method is named in the place of its folder."""
    name, _, partner = one.condition.partition(":")
    trained = (results.trained or {}).get(partner)
    return (f"{name}:{trained.method}", trained) if trained else (one.condition, ())


def _changes(sides: Sides, by_seed: Mapping[int | None, _Played], metrics: Sequence[str]) -> list[ChangedMetric]:
    seeds = sorted(by_seed, key=lambda seed: (seed is not None, seed))
    played = [by_seed[seed] for seed in seeds]
    known = OF_ONE_SEAT if any(one.one_seat for one in played) else METRICS
    try:
        before, after = zip(*(one.plays() for one in played), strict=True)
        changes = change_across_seeds(before, after, {name: known[name] for name in metrics})
    except ValueError as error:
        places = ", ".join(repr(one.before.place) for one in played)
        what = f"{sides.condition} and {sides.than} of {sides.method!r}"
        raise RunError(f"{what} were not played on the same tasks by all of {places}: leave some out") from error
    return [
        ChangedMetric(
            sides=sides,
            metric=metric,
            value=change.difference.value,
            low=change.difference.low,
            high=change.difference.high,
            seeds=seeds,
            of_seeds=change.of_seeds,
            tasks=len(played[0].before.episodes),
        )
        for metric, change in changes.items()
    ]
