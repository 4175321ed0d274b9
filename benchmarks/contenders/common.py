"""What all contenders share: the job, what was played, and how time and memory are measured."""

import pickle
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.core.seeds import Stream, stable_seed, task_seed
from marl_coop.config.checks import check_config
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE
from marl_coop.config.schema import Config, load_config
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.rollout.trajectory import Rollout

UPDATE = 0  # the one that is played
AGENTS = {"agent_0": "agent_0", "agent_1": "agent_1"}
COMPARABLE = {"engine": "embedded", "advantage": "gae", "num_generations": None, "num_ppo_epochs": 1}


@dataclass(frozen=True, slots=True)
class Job:
    """What every contender is given.

    Attributes:
        overrides: of the configuration, as for train.py.
        threads: of torch.
        folder: where the first of ours leaves its adapters and what it played, for the others.
    """

    overrides: tuple[str, ...]
    threads: int
    folder: Path

    @property
    def played(self) -> Path:
        return self.folder / "played.pickle"


@dataclass(slots=True)
class Result:
    """What a contender took: wall-clock and CPU seconds of `play` and `update`, peak memory of its process.

    `tokens`: sampled in `play`, or of the chats in `update`. `phases`: CPU seconds, calls and tokens by phase.
    """

    play: tuple[float, float] | None = None
    update: tuple[float, float] | None = None
    play_tokens: int = 0
    update_tokens: int = 0
    peak_gib: float = 0.0
    phases: dict[str, tuple[float, int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        """Seconds and memory, in a line."""
        taken = {"play": self.play, "update": self.update}
        said = [f"{what} {s[0]:.1f} s ({s[1]:.1f} s of CPU time)" for what, s in taken.items() if s]
        return f"{', '.join(said)}, {self.peak_gib:.2f} GiB"

    @property
    def whole(self) -> tuple[float, float]:
        assert self.play and self.update
        return self.play[0] + self.update[0], self.play[1] + self.update[1]


@dataclass(slots=True)
class Played:
    """An update as ours played it: every request's prompt and reply, and the rows that are learned from.

    `replies`: (chat, length of its prompt) -> ids of the prompt, ids of the reply, their log-probabilities.
    """

    replies: dict[tuple[Any, int], tuple[list[int], list[int], list[float]]] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)  # `SeatSample`

    def reply(self, chat: Any, ids: Sequence[int]) -> tuple[list[int], list[float]]:
        """Raises RuntimeError where the chat is not what ours was asked to continue."""
        prompt, reply, logprobs = self.replies.get((chat, len(ids)), (None, [], []))
        if prompt != list(ids):
            raise RuntimeError(f"the chat {chat!r} has a prompt of {len(ids)} tokens that ours was never asked")
        return reply, logprobs

    @property
    def sampled(self) -> int:
        return sum(len(reply) for _, reply, _ in self.replies.values())

    @property
    def chat_tokens(self) -> int:
        return sum(len(row.trace.ids) for row in self.rows)

    def save(self, file: Path) -> None:
        file.write_bytes(pickle.dumps(self))

    @classmethod
    def load(cls, file: Path) -> "Played":
        return pickle.loads(file.read_bytes())


class Stopwatch:
    """Wall-clock and CPU seconds of what it is put around, summed over the calls."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> "Stopwatch":
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return timed

    def minus(self, other: "Stopwatch") -> tuple[float, float]:
        return self.wall - other.wall, self.cpu - other.cpu

    @property
    def seconds(self) -> tuple[float, float]:
        return self.wall, self.cpu


def configuration(overrides: Sequence[str]) -> Config:
    """That of the quickstart with some overrides.

    Raises:
        ConfigError: no run can be so, or not every contender would do the same work.
    """
    root = Path(__file__).parents[2]
    config = load_config([root / "configs/quickstart.yaml"], [*overrides, "training.report_to=none"])
    for key, usual in COMPARABLE.items():
        if (said := config.training.get(key, usual)) != usual:
            problem = f"{said!r} is refused: contenders are compared on {usual!r} alone, which the others do too"
            raise config.error(("training", key), problem)
    if config.policies != AGENTS or config.reward_stack.plays_alone or config.curriculum:
        problem = "contenders are compared on two seats with an adapter each: no mixes, replays or curriculum"
        raise ConfigError(problem, source=COMMAND_LINE)
    check_config(config)
    return config


def load_experiment(job: Job):
    """The experiment of the quickstart with the job's overrides; torch has the job's threads."""
    import torch

    from marl_coop.experiment.experiment import Experiment

    torch.set_num_threads(job.threads)
    return Experiment(configuration(job.overrides))


def play_first(runner: RolloutRunner, seed: int, episodes: int) -> list[Rollout]:
    """The first episodes of the run's first update."""
    seeds = [task_seed(Stream.TRAINING, seed, i) for i in range(episodes)]
    return runner.play(seeds, stable_seed(seed, UPDATE))


def peak_gib() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
