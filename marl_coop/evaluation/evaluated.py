"""What teams did on tasks, read from the folders of runs and evaluations, to be compared. Loads no torch."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from envs.core.episode import Episode
from marl_coop.evaluation.results import RESULTS, Kept, Results, Trained, read_results
from marl_coop.runs import rundir
from marl_coop.runs.records import read_episodes
from marl_coop.runs.rundir import RunError

AFTER_TRAINING = "after training"  # the condition of a run's own evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What one team did in one condition.

    Attributes:
        place: where it comes from, for errors.
        method: the recorded name of its run or, of a team that was not trained, its own.
        seed: of the training; None where there was none.
        condition: of a battery, or `AFTER_TRAINING`.
        episodes: by the id of their task; each task once.
        beside_partners: the team had one seat of each episode.
        learners: the adapters that a run trains, whose seats are judged; none: all seats are.
    """

    place: str
    method: str
    seed: int | None
    condition: str
    episodes: Mapping[str, Episode]
    beside_partners: bool = False
    learners: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether it was one agent, with the whole of each task in its hands."""
        return all(len(episode.seats) == 1 for episode in self.episodes.values())

    def is_like(self, other: "Evaluated") -> bool:
        """Whether both did the same: the names of who played are left aside, as they are those of folders."""
        return self is other or _nameless(self) == _nameless(other)


def _nameless(evaluated: Evaluated) -> dict[str, Episode]:
    return {task: replace(episode, players={}) for task, episode in evaluated.episodes.items()}


def read_evaluated(folder: Path) -> list[Evaluated]:
    """What lies in a run's folder, or in that of an evaluation (`marl_coop.evaluation.results`).

    Raises:
        RunError: it is neither, or it has no evaluation to compare.
    """
    if (folder / "run.json").is_file():
        return [_run(folder)]
    if not (folder / RESULTS).is_file():
        raise RunError(
            f"{str(folder)!r} is neither a run nor an evaluation: it has no run.json, and no results.json that lists "
            "episodes"
        )
    return list(read_evaluation(folder)[1].values())


def read_evaluation(folder: Path) -> tuple[Results, dict[tuple[str, str], Evaluated]]:
    """What came of an evaluation, and what was played there by who and condition.

    Raises:
        RunError: the folder is none, or of a version that did not say what was trained.
    """
    results, kept = read_results(folder)
    if results.trained is None:
        raise RunError(
            f"{str(folder)!r} does not say which of its teams are seeds of one method: an older version wrote it; the "
            "same marl-coop eval writes it anew"
        )
    trained = results.trained
    return results, {(one.who, one.condition): _team(folder, one, results, trained.get(one.who)) for one in kept}


def _run(folder: Path) -> Evaluated:
    if not (folder / "after.jsonl").is_file():
        raise RunError(
            f"{str(folder)!r} has not been evaluated after training; let it finish: marl-coop train --resume "
            f"{shlex.quote(str(folder))}"
        )
    record = rundir.recorded(folder)
    return Evaluated(
        place=str(folder),
        method=record["name"],
        seed=record["starts"][-1]["seed"],
        condition=AFTER_TRAINING,
        episodes=_by_task(folder / "after.jsonl"),
        learners=rundir.learners(folder),
    )


def _team(folder: Path, kept: Kept, results: Results, trained: Trained | None) -> Evaluated:
    """A team of an evaluation; one that was a run, or a checkpoint of one, has the name and the seed of it."""
    return Evaluated(
        place=f"{kept.who} in {folder}",
        method=trained.method if trained else kept.who,
        seed=trained.seed if trained else None,
        condition=kept.condition,
        episodes=_by_task(folder / kept.file, results.conditions[kept.condition]["episodes"]),
        beside_partners=kept.judged == "one",
    )


def _by_task(file: Path, count: int | None = None) -> dict[str, Episode]:
    """The episodes of a file, or the first `count` of them."""
    try:
        episodes = read_episodes(file)[:count]
    except OSError as error:
        raise RunError(f"{str(file)!r} cannot be read as episodes: {error}") from error
    if not episodes:
        raise RunError(f"{str(file)!r} has no episodes to compare")
    found = {episode.task.id: episode for episode in episodes}
    if len(found) < len(episodes):
        raise RunError(f"{str(file)!r} has a task more than once, so runs cannot be paired by it")
    return found
