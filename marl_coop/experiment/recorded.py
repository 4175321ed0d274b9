"""What the folder of a run has of its configuration and of what it played first. Loads no torch."""

import sys
from pathlib import Path

from envs.core.episode import Episode
from envs.core.seeds import Stream, task_seed
from marl_coop.config.schema import Config, Evaluation, load_config
from marl_coop.runs import rundir
from marl_coop.runs.records import read_episodes
from marl_coop.runs.rundir import RunError


def recorded_config(folder: Path) -> Config:
    """The configuration of a run's last start. Modules that it names are found where they lay when the run began, from
    now on; Python looks there last.

    Raises:
        RunError: the folder is no run.
        ConfigError: its configuration can no longer be used.
    """
    places = map(str, rundir.module_folders(folder))
    sys.path += [place for place in places if place not in sys.path]
    return load_config([rundir.configuration_of(folder)])


def recorded_before(folder: Path, section: Evaluation) -> list[Episode]:
    """Episodes that an earlier start of a run played before training; none if it came not so far.

    Args:
        section: says which tasks these are.

    Raises:
        RunError: some are missing, or they are of other tasks.
    """
    file = folder / "before.jsonl"
    wanted = sorted(task_seed(Stream.EVALUATION, section.seed, i) for i in range(section.episodes))
    episodes = read_episodes(file) if file.exists() else []
    if episodes and [episode.task.seed for episode in episodes] != wanted:
        same = len(episodes) == len(wanted)
        raise RunError(f"{str(file)!r} has {'other tasks' if same else f'{len(episodes)} episodes, not {len(wanted)}'}")
    return episodes
