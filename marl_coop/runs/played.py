"""The episodes of a run: in which files they lie, in which part of it they were played, and what they are called."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from envs.core.episode import Episode
from envs.core.task import Seat
from envs.core.tokens import one_line
from marl_coop.runs import rundir
from marl_coop.runs.records import EpisodeRecord
from marl_coop.runs.rundir import RunError
from rewards.metrics import seats_of

BEFORE, TRAINING, EVALUATION, AFTER = PHASES = "before", "training", "evaluation", "after"
_UPDATE = re.compile(r"update-(\d+)(\.\d+)?")  # and of training the process that played it


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedEpisode:
    """One episode of a run, or of an evaluation by `marl-coop eval`.

    `id` is `file:line`, the file without its ending and the line from 1, such as `after:3`; `phase` is `before`,
    `training`, `evaluation` (on unseen tasks while it trained) or `after`, and `update` the number of the update in the
    metrics, from 1, None before and after training. Of an evaluation `phase` is the condition, `team` who was
    evaluated, and `id` is `condition/team:line`. `judged` are the seats of who is evaluated, or learns; None: all.
    """

    id: str
    phase: str
    update: int | None = None
    team: str | None = None
    judged: tuple[Seat, ...] | None = None
    record: EpisodeRecord

    @property
    def episode(self) -> Episode:
        return self.record.episode


def _of_update(file: Path) -> tuple[str, int] | None:
    """The phase and the number of the update that a file is of; None where it is of neither training nor evaluation."""
    match = _UPDATE.fullmatch(file.stem)
    return match and (TRAINING if match[2] else EVALUATION, int(match[1]))


def episode_files(run: Path) -> list[Path]:
    """Files of episodes that are there, in the order in which they were played."""
    of_updates = [*run.glob("episodes/update-*.jsonl"), *run.glob("evaluations/update-*.jsonl")]
    numbered = [(of_update[1], file.name, file) for file in of_updates if (of_update := _of_update(file))]
    in_order = [file for _, _, file in sorted(numbered)]
    found = [run / f"{BEFORE}.jsonl", *in_order, run / f"{AFTER}.jsonl"]
    return [file for file in found if file.is_file()]


def forget_played_after(run: Path, update: int) -> None:
    """Delete the episodes of the updates after one, from 0, which a run plays anew, perhaps in other processes."""
    for file in episode_files(run):
        if (of_update := _of_update(file)) and of_update[1] > update:
            file.unlink()


def read_played(file: Path, unreadable: Callable[[int, ValueError], None]) -> Iterator[PlayedEpisode]:
    """The episodes of a file.

    Args:
        unreadable: is told the number, from 1, and the flaw of a line that is no episode; where it returns, the line is
            passed over.
    """
    phase, update = _of_update(file) or (file.stem, None)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = EpisodeRecord.from_json(line)
            except ValueError as error:
                unreadable(number, error)
                continue
            yield PlayedEpisode(id=f"{file.stem}:{number}", phase=phase, update=update, record=record)


def _refuse(flaw: str) -> None:
    raise RunError(flaw)


def _readable(file: Path, left_out: Callable[[str], None]) -> Iterator[PlayedEpisode]:
    flaws: list[str] = []
    yield from read_played(file, lambda number, error: flaws.append(f"line {number}: {one_line(error)}"))
    if flaws:
        left_out(f"{file}, {'' if len(flaws) == 1 else f'{len(flaws)} lines, first '}{flaws[0]}")


def saved_episodes(
    run: Path, phases: Sequence[str] = PHASES, left_out: Callable[[str], None] = _refuse
) -> dict[str, list[PlayedEpisode]]:
    """The episodes of a run by phase, of those phases that have any; judged are the seats that learn.

    Args:
        left_out: is told of each file in which lines cannot be read, how many these are and why the first; by itself
            it refuses such a file.

    Raises:
        RunError: there is none yet, none can be read, or the folder is no run.
    """
    found: dict[str, list[PlayedEpisode]] = {phase: [] for phase in phases}
    learners = rundir.learners(run)
    for file in episode_files(run):
        for one in _readable(file, left_out):
            if one.phase in found:
                found[one.phase].append(replace(one, judged=tuple(seats_of(learners, one.episode))))
    if not any(found.values()):
        raise RunError(f"{str(run)!r} has no episodes yet, or none that can be read")
    return {phase: played for phase, played in found.items() if played}
