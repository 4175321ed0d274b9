"""What a run's folder holds, read for a person: also of a run that is still going, that crashed, or that is empty. The
folder of an evaluation by `marl-coop eval` is read too, one that has not ended by its `playing.json`.

What cannot be read is left out and said: each such thing is a line of `notices`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from envs.core.episode import Episode
from envs.core.tokens import one_line
from marl_coop.evaluation.comparison import BESIDE_PARTNERS, OF_ONE_SEAT
from marl_coop.evaluation.results import PLAYING, RESULTS, Kept, ResultRow, Results, read_results, result_rows
from marl_coop.runs.checkpoints import BEST
from marl_coop.runs.played import TRAINING, PlayedEpisode, episode_files, read_played
from marl_coop.runs.records import lines_of, logged, of_numbers
from marl_coop.runs.rundir import LOCK, RunError
from marl_coop.viewer.text import visible
from rewards import RewardStack
from rewards.metrics import METRICS, seats_of
from rewards.schedules import DualAscent

_NO_CONTENT = (LOCK, "view.html", "view.json")  # what lies in the folder of a run of which nothing is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as far as its folder tells; what it does not tell is empty."""

    folder: Path
    name: str
    learners: tuple[str, ...] = ()  # the adapters that are trained, where the run says so
    starts: tuple[Mapping[str, Any], ...] = ()
    config_text: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()  # of each update
    results: Mapping[str, Any] = field(default_factory=dict)  # results.json
    evaluation: Results | None = None  # what came of a battery; all but name, episodes and notices is then empty
    finished: bool = False
    best: Mapping[str, Any] = field(default_factory=dict)  # best.json
    alarms: tuple[Mapping[str, Any], ...] = ()
    played: tuple[PlayedEpisode, ...] = ()
    stack: RewardStack | None = None  # the run's rewards, where its configuration can be read
    weights: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # update -> those that it paid by
    last_written: datetime | None = None
    notices: tuple[str, ...] = ()

    def phase(self, name: str) -> list[Episode]:
        """The episodes of `before` or `after`."""
        return [played.episode for played in self.played if played.phase == name]

    def stack_of(self, one: PlayedEpisode) -> RewardStack | None:
        """The run's rewards by the weights of an episode's update or, where it has none, those at the end of training;
        a price that holds a budget is the last one on record."""
        if self.stack is None or not self.weights:
            return self.stack
        if one.update is not None and one.update in self.weights:
            return self.stack.with_weights(self.weights[one.update])
        last = self.weights[max(self.weights)]
        held = [term.name for term in self.stack.terms if isinstance(term.weight, DualAscent)]
        return self.stack.with_weights({name: last[name] for name in held if name in last})

    def updates(self, phase: str = TRAINING) -> dict[int, list[Episode]]:
        """The episodes of each update of training, or of each evaluation while it trained."""
        found: dict[int, list[Episode]] = {}
        for played in self.played:
            if played.phase == phase and played.update is not None:
                found.setdefault(played.update, []).append(played.episode)
        return found


def read_run(folder: Path) -> Run:
    """Everything that a run, or an evaluation, has written so far.

    Raises:
        RunError: there is no such folder, or it holds something else.
    """
    if not folder.is_dir():
        raise RunError(f"{str(folder)!r} is no folder; name that of a run or of an evaluation")
    if (folder / PLAYING).is_file():
        return _evaluation(folder, PLAYING)
    files = episode_files(folder)
    known = [folder / name for name in ("run.json", "config.yaml", "metrics.jsonl", "results.json")] + files
    present = [file for file in known if file.is_file()]
    if not present and any(path.name not in _NO_CONTENT for path in folder.iterdir()):
        raise RunError(
            f"{str(folder)!r} is not the folder of a run: it has no run.json, no metrics and no episodes; nor of an "
            "evaluation: it has no results.json"
        )
    notices: list[str] = []
    told, results = (_read_json(folder / name, notices) for name in ("run.json", "results.json"))
    if "who" in results:
        return _evaluation(folder, RESULTS)
    starts = tuple(start for start in _listed(told.get("starts")) if isinstance(start, Mapping))
    config_text, config = _configuration(folder, starts, notices)
    learners = tuple(filter(lambda name: isinstance(name, str), _listed(told.get("learners"))))
    played = tuple(
        replace(one, judged=tuple(seats_of(learners, one.episode))) for file in files for one in _played(file, notices)
    )
    return Run(
        folder=folder,
        name=str(told.get("name") or folder.resolve().name),
        learners=learners,
        starts=starts,
        config_text=config_text,
        config=config,
        metrics=tuple(line for line in _lines(folder / "metrics.jsonl", notices, of_numbers) if "update" in line),
        results=results,
        finished=bool(results),
        best=_read_json(folder / BEST, notices),
        alarms=tuple(_lines(folder / "alarms.jsonl", notices, lambda alarm: "alarm" in alarm)),
        played=played,
        stack=_rewards(config, notices),
        weights={one.update: one.record.rewards.weights for one in played if one.update and one.record.rewards},
        last_written=max((datetime.fromtimestamp(file.stat().st_mtime) for file in present), default=None),
        notices=tuple(notices),
    )


def _evaluation(folder: Path, name: str) -> Run:
    """An evaluation that has ended or, by the file of one that has not, what there is of it."""
    results, kept = read_results(folder, name)
    finished, notices = name == RESULTS, [*map(str, results.unplayed)]
    counts = [results.conditions[match.condition]["episodes"] for match in kept]
    of_matches = [[*_of_match(folder, *one, notices, finished)] for one in zip(kept, counts, strict=True)]
    played = tuple(chain.from_iterable(of_matches))
    if not finished:
        there = f"{len(played)} of {sum(counts)} episodes are there"
        notices.append(
            f"{there}; differences are taken when it has ended: the same command goes on where it was stopped"
        )
        rows = [row for match, found in zip(kept, of_matches, strict=True) for row in _measured(match, found)]
        results = replace(results, rows=rows)
    written = [file for file in (folder / name, *(folder / match.file for match in kept)) if file.is_file()]
    return Run(
        folder=folder,
        name=folder.resolve().name,
        evaluation=results,
        finished=finished,
        played=played,
        last_written=datetime.fromtimestamp(max(file.stat().st_mtime for file in written)),
        notices=tuple(notices),
    )


def _measured(match: Kept, found: Sequence[PlayedEpisode]) -> Iterator[ResultRow]:
    """The metrics of what a team has played in a condition so far."""
    if found:
        metrics = METRICS if match.judged == "all" else OF_ONE_SEAT
        yield from result_rows(match.who, match.condition, [one.episode for one in found], metrics)


def _of_match(folder: Path, match: Kept, count: int, notices: list[str], finished: bool) -> Iterator[PlayedEpisode]:
    """The episodes of a team in a condition, which are the first `count` of its file."""
    file = folder / match.file
    if not file.is_file():
        if finished:
            notices.append(f"{match.file} is not there: the episodes of {match.who} in {match.condition}")
        return
    for one in [*_played(file, notices)][:count]:
        episode, line = one.episode, one.id.rpartition(":")[2]
        judged = BESIDE_PARTNERS.judged(episode.seats, episode.task.seed) if match.judged == "one" else None
        name = visible(f"{match.condition}/{match.who}:{line}")
        yield replace(one, id=name, phase=match.condition, team=match.who, judged=judged)


def _played(file: Path, notices: list[str]) -> Iterator[PlayedEpisode]:
    flaws: list[str] = []
    read = 0
    for one in read_played(file, lambda number, error: flaws.append(f"line {number}: {one_line(error)}")):
        read += 1
        yield one
    if flaws:
        notices.append(f"{len(flaws)} of {read + len(flaws)} lines of {file.name} cannot be read ({flaws[0]})")


def _lines(file: Path, notices: list[str], known: Callable[[Mapping], bool]) -> Sequence[Mapping[str, Any]]:
    """The records of a file of JSON lines that are of a kind that is known."""
    lines = lines_of(file)
    found = [record for line in lines if (record := logged(line)) is not None and known(record)]
    if unread := len(lines) - len(found):
        notices.append(f"{unread} of {len(lines)} lines of {file.name} cannot be read")
    return found


def _read_json(file: Path, notices: list[str]) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        notices.append(f"{file.name} cannot be read: {one_line(error)}")
        return {}
    return content if isinstance(content, Mapping) else {}


def _configuration(folder: Path, starts: tuple, notices: list[str]) -> tuple[str, Mapping[str, Any]]:
    file = folder / str(starts[-1].get("config") if starts else "config.yaml")
    if not file.is_file():
        return "", {}
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        notices.append(f"{file.name} cannot be read: {one_line(error)}")
        content = {}
    return text, content if isinstance(content, Mapping) else {}


def _rewards(config: Mapping[str, Any], notices: list[str]) -> RewardStack | None:
    """The run's reward terms; None where a term is not to be had here, as one from another machine."""
    if not isinstance(config.get("rewards"), Mapping) or not config["rewards"]:
        return None
    try:
        return RewardStack.from_config(config["rewards"])
    except (ValueError, ValidationError, TypeError) as error:
        notices.append(f"evaluation is shown without rewards: {one_line(error)}")
        return None


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else []
