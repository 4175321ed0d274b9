"""What came of a battery: every metric of every team in every condition, and paired differences.

`results.json` has

    who             the teams that are evaluated, in order; `floor`, `start` and `ceiling` name further ones, or null
    trained         team -> {method, seed}: of each team that is a run, a checkpoint or `warm`, what it is one seed of
    conditions      name -> environment (class and arguments), number and seed of the tasks
    results         rows {who, condition, metric, value, low, high, n}: a value with its 95 % interval and its number of
                    cases, the denominator of a rate
    differences     rows with `than_who` and `than_condition` too: what is measured of the first pair minus that of the
                    second, on the same tasks
    unplayed        {who, condition, reason}: what could not be played, or not be compared
    episodes        {who, condition, file, judged}: a file of `marl_coop.runs.records`, relative to results.json, and
                    "all" or "one" for how many seats were the team's

and `results.csv` both kinds of rows. A metric without a case has no row. Until all is played and measured there is
`playing.json` in their place, which has the same keys and no rows yet.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from envs.core.episode import Episode
from marl_coop.evaluation.matches import Match
from marl_coop.runs.files import write_whole
from marl_coop.runs.rundir import RunError
from rewards.metrics import METRICS, Metric, compare, coordination, measure, of_seats
from rewards.metrics.rate import Statistic

COLUMNS: tuple[str, ...] = ("who", "condition", "than_who", "than_condition", "metric", "value", "low", "high", "n")


RESULTS, PLAYING = "results.json", "playing.json"
NOT_COMPARED = "not compared with"  # how the reason begins why what was played is not compared


class PlayedMatch(NamedTuple):
    """A match and its episodes, in the order of the tasks."""

    match: Match
    episodes: Sequence[Episode]


class Unplayed(NamedTuple):
    """What could not be played, or not be compared, and why; `who` is "" for nobody, `condition` for none."""

    who: str
    condition: str
    reason: str

    def __str__(self) -> str:
        what = "" if self.reason.startswith(NOT_COMPARED) else "not played: "
        return f"{what}{' in '.join(filter(None, (self.who, self.condition)))}: {self.reason}"


class Trained(NamedTuple):
    """What a team that was trained is one seed of: the recorded name of its run, with that of the checkpoint if it is
    one."""

    method: str
    seed: int


class Kept(NamedTuple):
    """Where the episodes of a team in a condition are, relative to results.json; several may be in one file, where they
    come to the same play, and more than the condition has, of a longer battery. `judged`: "all" or "one" of the seats
    was the team's."""

    who: str
    condition: str
    file: str
    judged: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """A metric of a team in a condition or, with `than_who`, how far it is above another team or condition."""

    who: str
    condition: str
    than_who: str | None = None
    than_condition: str | None = None
    metric: str
    value: float
    low: float | None = None  # of one case of a quantity without bounds there is no interval
    high: float | None = None
    n: int


def values(played: PlayedMatch) -> list[ResultRow]:
    """Every metric of a match that is defined; beside partners, rates of seats are those of the team's seat."""
    match = played.match
    return list(result_rows(match.who, match.condition, played.episodes, _of(match)))


def result_rows(
    who: str, condition: str, episodes: Sequence[Episode], metrics: Mapping[str, Statistic]
) -> Iterator[ResultRow]:
    """A row for each of some metrics that is defined, by what a team played in a condition."""
    return _rows(measure(episodes, metrics), who=who, condition=condition)


def difference(first: PlayedMatch, second: PlayedMatch) -> list[ResultRow]:
    """What is measured of the first match minus that of the second, paired by task.

    Where one has a seat alone beside partners, that seat is judged in both. Where one team has one seat and the other
    more, the rows of `rewards.metrics.coordination` are added, with the one seat as the solo run.

    Raises:
        ValueError: their tasks are not the same.
    """
    judged = first.match if first.match.seating.partner is not None else second.match
    found = dict(compare(second.episodes, first.episodes, _of(judged)))
    alone = [len(side.episodes[0].seats) == 1 for side in (first, second)]
    if alone == [True, False]:
        found |= coordination(first.episodes, second.episodes)
    elif alone == [False, True]:
        found |= coordination(second.episodes, first.episodes)
    names = {"than_who": second.match.who, "than_condition": second.match.condition}
    return list(_rows(found, who=first.match.who, condition=first.match.condition, **names))


def _of(match: Match) -> Mapping[str, Statistic]:
    return METRICS if match.seating.partner is None else of_seats(match.judged)


def _rows(metrics: Mapping[str, Metric], **names: str) -> Iterator[ResultRow]:
    for name, metric in metrics.items():
        if metric.value is not None:
            yield ResultRow(**names, metric=name, value=metric.value, low=metric.low, high=metric.high, n=metric.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that came of a battery, as `results.json` has it. `trained` is None where that is of a version without."""

    who: Sequence[str]
    floor: str | None
    start: str | None
    ceiling: str | None
    trained: Mapping[str, Trained] | None
    conditions: Mapping[str, Mapping[str, Any]]
    played: Sequence[PlayedMatch]
    rows: Sequence[ResultRow]
    unplayed: Sequence[Unplayed]

    def measured(
        self,
        played: Sequence[PlayedMatch],
        pairs: Sequence[tuple[PlayedMatch, PlayedMatch]],
        advance: Callable[[int], None],
    ) -> "Results":
        """These results with every metric of what was played, and the difference of each of the pairs.

        Args:
            advance: is told of each match that is measured and each pair that is compared.
        """
        rows, missing = [], list(self.unplayed)
        for one in played:
            rows += values(one)
            advance(1)
        for first, second in pairs:
            try:
                rows += difference(first, second)
            except ValueError as error:
                place = f"{second.match.who} in {second.match.condition}"
                reason = f"{NOT_COMPARED} {place}: {error}"
                missing.append(Unplayed(first.match.who, first.match.condition, reason))
            advance(1)
        return replace(self, played=played, rows=rows, unplayed=missing)

    def announce(self, folder: Path) -> None:
        """Write `playing.json`."""
        write_whole(folder / PLAYING, self._json(folder))

    def write(self, folder: Path) -> None:
        """Write `results.json` and `results.csv`, in the place of `playing.json`."""
        write_whole(folder / RESULTS, self._json(folder))
        with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(map(asdict, self.rows))
        (folder / PLAYING).unlink(missing_ok=True)

    def _json(self, folder: Path) -> str:
        rows = [asdict(row) for row in self.rows]
        content = {
            "who": list(self.who),
            "floor": self.floor,
            "start": self.start,
            "ceiling": self.ceiling,
            "trained": {who: trained._asdict() for who, trained in (self.trained or {}).items()},
            "conditions": self.conditions,
            "results": [
                {name: row[name] for name in row if name not in ("than_who", "than_condition")}
                for row in rows
                if row["than_who"] is None
            ],
            "differences": [row for row in rows if row["than_who"] is not None],
            "unplayed": [one._asdict() for one in self.unplayed],
            "episodes": [_kept(one.match, folder)._asdict() for one in self.played],
        }
        return json.dumps(content, indent=1) + "\n"


def _kept(match: Match, folder: Path) -> Kept:
    judged = "all" if match.seating.partner is None else "one"
    return Kept(match.who, match.condition, str(match.file.relative_to(folder)), judged)


def read_results(folder: Path, name: str = RESULTS) -> tuple[Results, list[Kept]]:
    """What `Results.write` or, by the name PLAYING, `Results.announce` wrote: all but what was played, and where that
    is.

    Raises:
        RunError: there is no such file of an evaluation that can be read.
    """
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        results = Results(
            **{name: content[name] for name in ("who", "floor", "ceiling", "conditions")},
            start=content.get("start"),  # a version that had none wrote others
            trained={who: Trained(**of) for who, of in content["trained"].items()} if "trained" in content else None,
            played=[],
            rows=[ResultRow(**row) for kind in ("results", "differences") for row in content[kind]],
            unplayed=[Unplayed(**one) for one in content["unplayed"]],
        )
        return results, [Kept(**one) for one in content["episodes"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{str(folder)!r} has no {name} of an evaluation that can be read") from error
