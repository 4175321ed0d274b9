"""How long a run takes and how much memory, by the records of one that is finished."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import CRITICS
from marl_coop.runs.records import read_metrics

CORES_PER_RUN = 2  # a run of a small model gains little from more
HEADROOM = 1.2  # of memory, over what a run was seen to take


@dataclass(frozen=True, slots=True)
class RunTime:
    """Seconds of what comes before the first evaluation, of an update, and of an episode of evaluation; memory of the
    main process in GiB."""

    setup_s: float
    update_s: float
    episode_s: float
    memory_gib: float

    def total_s(self, updates: int, episodes: int) -> float:
        """Seconds of a run with so many updates, evaluated on so many episodes before and after.

        >>> RunTime(60.0, 30.0, 0.5, 2.0).total_s(updates=10, episodes=100)
        460.0
        """
        return self.setup_s + updates * self.update_s + 2 * episodes * self.episode_s


def measured(folder: Path, episodes: int) -> RunTime | None:
    """By when a finished run wrote its files; None where it was stopped between, or its files were copied since.

    Args:
        folder: of the run.
        episodes: of one of its evaluations.
    """
    starts = rundir.recorded(folder)["starts"]
    records = read_metrics(folder / "metrics.jsonl")
    if len(starts) > 1 or not records:
        return None
    begun = datetime.fromisoformat(starts[0]["time"]).timestamp()
    written = [(folder / name).stat().st_mtime for name in ("before.jsonl", CRITICS, "after.jsonl")]
    before, trained, after = written
    episode_s = (after - trained) / episodes
    setup_s = max(0.0, before - begun - episodes * episode_s)
    if not begun <= before < trained < after:
        return None
    memory = max(record.get("memory_gib", 0.0) for record in records)
    return RunTime(setup_s, (trained - before) / len(records), episode_s, memory)


def fitting(memory_gib: float, gpus: Sequence[str]) -> int:
    """How many runs fit at once: one to a GPU, else as cores and free memory allow; at least one."""
    if gpus:
        return len(gpus)
    free_gib = psutil.virtual_memory().available / 2**30
    by_memory = math.floor(free_gib / (HEADROOM * memory_gib)) if memory_gib else 1
    return max(1, min((psutil.cpu_count() or 1) // CORES_PER_RUN, by_memory))


def in_words(seconds: float) -> str:
    """A length of time to two places.

    >>> in_words(45.0), in_words(130.0), in_words(9000.0)
    ('45 s', '2 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
