"""Audit a reward: does honest play earn more than every cheap policy of `envs.scripted.exploits`?

No language model is involved. Each policy plays the same tasks twice: alone against an ideal partner ("unilateral",
which asks whether it pays one agent to cheat) and with its like in both seats ("symmetric", whether it pays the team).
Episodes do not depend on rewards, so one `play_exploits` serves any number of audits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from rich.table import Table

from envs.core.env import SEATS, CoopEnv
from envs.core.episode import Episode, StopReason
from envs.core.seeds import Stream, task_seed
from envs.core.task import Seat
from envs.scripted.exploits import FAINT
from envs.scripted.honest import IDEAL, Auditable
from envs.scripted.play import play
from envs.scripted.registry import exploits_of
from marl_coop.runs.progress import Progress
from rewards import RewardStack
from rewards.metrics import conflicts

MODES = ("unilateral", "symmetric")
BEYOND_DOUBT = 3.29 / 1.96  # how much wider an interval of 99.9 % is than one of 95 %
NOT_AUDITABLE = "the audit plays pairs in environments of which it is known what honest play is"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over tasks and half the width of its 95 % interval."""

    value: float
    half: float

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """The interval is Student's.

        >>> f"{Mean.of(np.array([0.0, 1.0, 2.0, 3.0])):.2f}"  # t = 3.18, standard error 0.645
        '1.50 ± 2.05'
        """
        half = _student(len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        return cls(float(values.mean()), float(half))

    def __format__(self, spec: str) -> str:
        return f"{self.value:z{spec}} ± {self.half:{spec}}"


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to 0.01 from 3 degrees of freedom on (Abramowitz & Stegun 1964, 26.7.5)."""
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What each policy that applies did in each mode, on the same tasks, and why the others were left out.

    A unilateral policy sits in either seat in turn.
    """

    episodes: Mapping[tuple[str, str], Sequence[Episode]]  # (policy, mode) -> one episode per task
    left_out: Mapping[str, str]  # policy -> what it needs and the environment has not


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """How a policy fared in one mode, over the seats that it holds.

    `earned` is the return, `edge` that minus the ideal policy's on the same tasks and seats, paired by task, so the
    luck of the tasks is not in it. `utility` is the team's U and `j` the policy's own CDR - CR, None where no case was.
    """

    policy: str
    mode: str
    earned: Mean
    edge: Mean
    utility: Mean
    j: Mean | None

    @property
    def beaten(self) -> bool:
        """Whether honest play earns more for certain: the whole interval of the edge lies below 0."""
        return self.edge.value + self.edge.half < 0

    @property
    def wins(self) -> bool:
        """Whether the policy earns more beyond doubt: the whole interval of the edge, at 99.9 %, lies above 0. At 95 %
        luck alone would find one of the few that earn nearly the same in every seventh audit."""
        return self.edge.value - BEYOND_DOUBT * self.edge.half > 0


def play_exploits(
    env: CoopEnv, episodes: int = 200, exploits: Mapping[str, Auditable] | None = None, *, label: str = ""
) -> Played:
    """Let every policy play the same tasks in both modes.

    Args:
        exploits: honest play, called `IDEAL`, and what is compared with it; None: those of the environment.
        label: what a progress bar says; "" for no bar.

    Raises:
        ValueError: fewer than 2 episodes, which leave no interval, or an environment that is not `auditable`.
        RuntimeError: the sandbox failed, which is nobody's play.
    """
    if episodes < 2:
        raise ValueError(f"episodes is {episodes}; an interval needs at least 2")
    if not auditable(env):
        raise ValueError(f"{type(env).__name__} with {len(env.seats)} seats: {NOT_AUDITABLE}.")
    exploits = exploits_of(env) if exploits is None else exploits
    left_out = {name: ", ".join(lacks) for name, policy in exploits.items() if (lacks := policy.lacks(env))}
    cheats = {name: policy for name, policy in exploits.items() if name not in (IDEAL, *left_out)}
    ideal = exploits[IDEAL]
    played: dict[tuple[str, str], Sequence[Episode]] = {}
    with Progress((1 + 2 * len(cheats)) * episodes, label, "episode", shown=bool(label), pause_s=10.0) as progress:
        honest = _play(env, ideal, ideal, episodes, "symmetric", progress)
        for mode in MODES:
            played[IDEAL, mode] = honest
            for name, policy in cheats.items():
                played[name, mode] = _play(env, policy, ideal, episodes, mode, progress)
    return Played(episodes=played, left_out=left_out)


def auditable(env: CoopEnv) -> bool:
    """Whether it is for a pair, and of which it is known what honest play is."""
    return env.seats == SEATS and bool(exploits_of(env))


def audit(stack: RewardStack, played: Played) -> list[Audited]:
    """One row per policy and mode, the ideal policy's first, then by what they earned."""
    honest = {mode: _earned(stack, played.episodes[IDEAL, mode], mode) for mode in MODES}
    rows = []
    for (name, mode), episodes in played.episodes.items():
        earned = _earned(stack, episodes, mode)
        rows.append(
            Audited(
                policy=name,
                mode=mode,
                earned=Mean.of(earned),
                edge=Mean.of(earned - honest[mode]),
                utility=Mean.of(np.array([episode.outcome.utility for episode in episodes])),
                j=_youden(episodes, mode),
            )
        )
    return sorted(rows, key=lambda row: (row.mode != MODES[0], row.policy != IDEAL, -row.earned.value))


def winners(rows: Sequence[Audited]) -> list[Audited]:
    """The cheap policies that honest play does not beat for certain; of `FAINT` ones what beats it beyond doubt."""
    return [row for row in rows if row.policy != IDEAL and not (row.beaten or row.policy in FAINT and not row.wins)]


def table(rows: Sequence[Audited], title: str) -> Table:
    """The rows for the terminal, in red those that honest play does not beat."""
    out = Table(title=title, caption="edge: earned minus what the ideal policy earned on the same tasks; ±: 95 %.")
    for column in ("mode", "policy"):
        out.add_column(column, no_wrap=True)
    for column in ("earned", "edge", "U", "J"):
        out.add_column(column, justify="right", no_wrap=True)
    unbeaten = winners(rows)
    for row in rows:
        edge = "" if row.policy == IDEAL else f"{row.edge:.3f}"
        j = f"{row.j:.2f}" if row.j else "not defined"
        style = "bold red" if row in unbeaten else None
        out.add_row(row.mode, row.policy, f"{row.earned:.3f}", edge, f"{row.utility:.2f}", j, style=style)
    return out


def _held(mode: str, index: int) -> tuple[Seat, ...]:
    """The seats that the audited policy holds in the episode of this index."""
    return SEATS if mode == "symmetric" else (SEATS[index % 2],)


def _play(
    env: CoopEnv, policy: Auditable, ideal: Auditable, episodes: int, mode: str, progress: Progress
) -> list[Episode]:
    played = []
    for i in range(episodes):
        episode = play(
            env, {s: policy if s in _held(mode, i) else ideal for s in SEATS}, seed=task_seed(Stream.AUDIT, 0, i)
        )
        if episode.stop_reason is StopReason.SANDBOX_FAULT:
            raise RuntimeError(f"the sandbox failed on {episode.task.id}: {episode.outcome.detail}; run it again")
        played.append(episode)
        progress.advance()
    return played


def _earned(stack: RewardStack, episodes: Sequence[Episode], mode: str) -> np.ndarray:
    """[episode]: return of the seats that a policy of this mode holds."""
    scores = [stack.score(episode) for episode in episodes]
    return np.array([np.mean([score.total(seat) for seat in _held(mode, i)]) for i, score in enumerate(scores)])


def _youden(episodes: Sequence[Episode], mode: str) -> Mean | None:
    """CDR - CR of the policy, its interval from the linearised ratios (delta method)."""
    counts = np.zeros((len(episodes), 2, 2))  # [episode, (CDR, CR), (count, cases)]
    for i, episode in enumerate(episodes):
        for conflict in conflicts(episode, _held(mode, i)):
            counts[i, int(conflict.told_right)] += conflict.final_right != conflict.told_right, 1
    mean = counts.mean(0)
    if not mean[:, 1].all():
        return None
    rates = mean[:, 0] / mean[:, 1]
    cdr, cr = (rates + (counts[..., 0] - rates * counts[..., 1]) / mean[:, 1]).T
    return Mean.of(cdr - cr)
