"""The records of a run as JSON lines: episodes with their rewards, and one line of metrics per update.

A line of episodes has `episode`, and in training also `rewards` and `credit`: the fields of an `EpisodeRecord`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from envs.core.episode import Episode
from envs.core.task import Seat
from marl_coop.runs.files import replaced, write_whole
from marl_coop.runs.rundir import RunError
from rewards import RewardBreakdown


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCredit:
    """What an update learns from one turn.

    `value` is what was expected from the turn on, by the critic or as the mean over the plays of its task; `target` the
    return, which a critic is taught; `advantage` the weight of the turn's tokens in the loss. `logprobs` are in nats,
    to two decimals, of `tokens`: the texts of the sampled tokens, of which half a character is a replacement character.
    """

    value: float
    target: float
    advantage: float
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What an update learns from one episode: `turns` of each seat that learns from it, and `muted`, the replays in
    which nobody hears that seat, where it was played anew for its messages' credit."""

    turns: Mapping[Seat, tuple[TurnCredit, ...]]
    muted: Mapping[Seat, Episode] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """One line of a file of episodes; an evaluation pays nobody and teaches nothing."""

    episode: Episode
    rewards: RewardBreakdown | None = None
    credit: Credit | None = None

    @staticmethod
    def from_json(line: str | bytes) -> "EpisodeRecord":
        """What a line says. Raises ValueError, in one line, where it is cut off or of another kind."""
        try:
            record = _adapter(EpisodeRecord).validate_python(json.loads(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}") from None
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        record.episode.check()
        if record.rewards is not None:
            _check_rewards(record.rewards, record.episode)
        for replay in record.credit.muted.values() if record.credit else ():
            replay.check()
        return record


def _check_rewards(rewards: RewardBreakdown, episode: Episode) -> None:
    """Raises ValueError where there is not one value of each term that has a weight for each turn of each seat."""
    for seat in episode.seats:
        found = {name: len(values) for name, values in rewards.values.get(seat, {}).items()}
        if found != dict.fromkeys(rewards.weights, len(episode.turns_of(seat))):
            raise ValueError(f"rewards.values: not one for each turn of {seat!r} and each term in rewards.weights")


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


def write_episodes(
    file: Path,
    episodes: Sequence[Episode],
    breakdowns: Sequence[RewardBreakdown] = (),
    credits: Sequence[Credit] = (),
) -> None:
    """One line per episode, with its reward breakdown and credit where there are any; there are as many or none."""
    file.parent.mkdir(exist_ok=True)
    with replaced(file) as out:
        for i, episode in enumerate(episodes):
            line = {"episode": json.loads(episode.to_json())}
            if breakdowns:
                line["rewards"] = breakdowns[i].to_dict()
            if credits:
                line["credit"] = _adapter(Credit).dump_python(credits[i], mode="json")
            out.write(json.dumps(line) + "\n")


def read_episodes(file: Path) -> list[Episode]:
    """The episodes that `write_episodes` wrote. Raises RunError where a line is cut off or of another kind."""
    episodes: list[Episode] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                episodes.append(Episode.from_json(json.dumps(json.loads(line)["episode"])))
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                why = f"line {number} is cut off or of another kind ({type(error).__name__})"
                raise RunError(f"{str(file)!r} cannot be read as episodes: {why}") from error
    return episodes


def append_metrics(file: Path, record: dict) -> None:
    """One more line of metrics."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(record) + "\n")
        out.flush()
        os.fsync(out.fileno())  # before the checkpoint that comes after it


def read_metrics(file: Path) -> list[dict]:
    """The records of the updates, in order; what else the trainer logged is left out.

    Raises:
        RunError: a line is no record, or one of an update has something else than numbers.
    """
    found = []
    for number, line in enumerate(lines_of(file), start=1):
        record = logged(line)
        if record is None or not of_numbers(record):
            raise RunError(f"{str(file)!r} cannot be read as metrics: line {number} is cut off or of another kind")
        found.append(record)
    return [record for record in found if "update" in record]


def lines_of(file: Path) -> list[str]:
    """The lines of a file; none where there is no such file, as before the first update."""
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def logged(line: str) -> dict | None:
    """The record that a line holds; None where it was cut off or is of another kind."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def of_numbers(record: Mapping[str, object]) -> bool:
    """Whether a record holds numbers alone, as those of metrics do, and if it is of an update, which one."""
    return isinstance(record.get("update", 0), int) and all(isinstance(v, int | float) for v in record.values())


def forget_metrics_after(file: Path, step: int) -> None:
    """Drop the records of later optimisation steps, which a resumed run makes anew, lines that come again, and lines
    that are no records: the last was cut off when the machine went down while it was written."""
    steps = ((line, (logged(line) or {}).get("step")) for line in dict.fromkeys(lines_of(file)))
    kept = [line + "\n" for line, logged_step in steps if isinstance(logged_step, int) and logged_step <= step]
    if kept or file.exists():
        write_whole(file, "".join(kept))
