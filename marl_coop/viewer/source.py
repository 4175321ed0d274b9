"""What a run's folder holds, read for a person: also of a run that is still going, that crashed, or that is empty.

What cannot be read is left out and said: each such thing is a line of `notices`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from envs.core.episode import Episode
from envs.core.tokens import one_line
from marl_coop.runs.records import EpisodeRecord
from marl_coop.runs.rundir import RunError
from rewards import RewardStack

BEFORE, AFTER = "before", "after"
_UPDATE = re.compile(r"update-(\d+)\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedEpisode:
    """One episode of a run.

    `id` is `file:line`, the file without its ending and the line from 1, such as `after:3`; `phase` is `before`,
    `after` or `training`, and `update` the number of the update in the metrics, from 1.
    """

    id: str
    phase: str
    update: int | None
    record: EpisodeRecord

    @property
    def episode(self) -> Episode:
        return self.record.episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as far as its folder tells; what it does not tell is empty."""

    folder: Path
    name: str
    starts: tuple[Mapping[str, Any], ...] = ()
    config_text: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()  # of each update
    results: Mapping[str, Any] = field(default_factory=dict)  # results.json
    played: tuple[PlayedEpisode, ...] = ()
    stack: RewardStack | None = None  # the run's rewards, where its configuration can be read
    last_written: datetime | None = None
    notices: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return bool(self.results)

    def phase(self, name: str) -> list[Episode]:
        """The episodes of `before` or `after`."""
        return [played.episode for played in self.played if played.phase == name]

    def updates(self) -> dict[int, list[Episode]]:
        """The episodes of each update of training."""
        found: dict[int, list[Episode]] = {}
        for played in self.played:
            if played.update is not None:
                found.setdefault(played.update, []).append(played.episode)
        return found


def read_run(folder: Path) -> Run:
    """Everything that a run has written so far.

    Raises:
        RunError: there is no such folder, or it holds something else than a run.
    """
    if not folder.is_dir():
        raise RunError(f"{str(folder)!r} is no folder; name that of a run")
    files = _episode_files(folder)
    known = [folder / name for name in ("run.json", "config.yaml", "metrics.jsonl", "results.json")] + files
    present = [file for file in known if file.is_file()]
    if not present and any(path.name != ".lock" for path in folder.iterdir()):
        raise RunError(f"{str(folder)!r} is not the folder of a run: it has no run.json, no metrics and no episodes")
    notices: list[str] = []
    told = _read_json(folder / "run.json", notices)
    starts = tuple(start for start in _listed(told.get("starts")) if isinstance(start, Mapping))
    config_text, config = _configuration(folder, starts, notices)
    played = tuple(one for file in files for one in _played(file, notices))
    return Run(
        folder=folder,
        name=str(told.get("name") or folder.resolve().name),
        starts=starts,
        config_text=config_text,
        config=config,
        metrics=tuple(_metrics(folder / "metrics.jsonl", notices)),
        results=_read_json(folder / "results.json", notices),
        played=played,
        stack=_rewards(config, notices),
        last_written=max((datetime.fromtimestamp(file.stat().st_mtime) for file in present), default=None),
        notices=tuple(notices),
    )


def _episode_files(folder: Path) -> list[Path]:
    """Files of episodes in the order in which they were played."""
    training = sorted(file for file in (folder / "episodes").glob("update-*.jsonl") if _UPDATE.fullmatch(file.stem))
    found = [folder / f"{BEFORE}.jsonl", *training, folder / f"{AFTER}.jsonl"]
    return [file for file in found if file.is_file()]


def _played(file: Path, notices: list[str]) -> Iterator[PlayedEpisode]:
    update = _UPDATE.fullmatch(file.stem)
    phase, unread, why = "training" if update else file.stem, 0, ""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = EpisodeRecord.from_json(line)
            except ValueError as error:
                unread, why = unread + 1, why or f"line {number}: {one_line(error)}"
                continue
            yield PlayedEpisode(
                id=f"{file.stem}:{number}", phase=phase, update=int(update[1]) if update else None, record=record
            )
    if unread:
        notices.append(f"{unread} of {number} lines of {file.name} cannot be read ({why})")


def _metrics(file: Path, notices: list[str]) -> Iterator[Mapping[str, Any]]:
    unread = 0
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            unread += 1
            continue
        if isinstance(record, Mapping) and "update" in record:
            yield record
    if unread:
        notices.append(f"{unread} lines of {file.name} cannot be read")


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
