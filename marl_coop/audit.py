"""Audit a reward: does honest play earn more than every cheap policy of `envs.zoo`?

No language model is involved. Each policy plays the same tasks twice: alone against an ideal partner ("unilateral",
which asks whether it pays one agent to cheat) and with its like in both seats ("symmetric", whether it pays the team).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from envs.base import SEATS, CoopEnv
from envs.episode import Episode, Seat, StopReason
from envs.partners import Partner, play
from envs.zoo import IDEAL, ZOO
from rewards import RewardStack
from rewards.metrics import measure

AUDIT_SEEDS = 2**39  # tasks that nothing else plays
MODES = ("unilateral", "symmetric")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """How a policy fared in one mode. Intervals are 95 %, over tasks.

    `earned` is the mean return of the seats that it holds; `edge` is that minus the ideal policy's on the same tasks
    and seats, with its interval. `honest_first` is true if the whole interval lies below 0.
    """

    policy: str
    mode: str
    earned: float
    edge: float
    edge_low: float
    edge_high: float
    utility: float
    j: float | None

    @property
    def honest_first(self) -> bool:
        return self.edge_high < 0


def audit(
    stack: RewardStack,
    make_env: Callable[[], CoopEnv],
    episodes: int = 200,
    zoo: Mapping[str, Partner] = ZOO,
) -> list[Audited]:
    """One row per policy and mode, the ideal policy's first, then by what they earned.

    A unilateral cheat sits in either seat in turn. The edge is paired by task, so the luck of the tasks is not in it.

    Raises:
        ValueError: fewer than 2 episodes, which leave no interval, or an environment that is not `auditable`.
    """
    if episodes < 2:
        raise ValueError(f"episodes is {episodes}; an interval needs at least 2")
    env, rows = make_env(), []
    if not auditable(env):
        raise ValueError(f"{type(env).__name__} with {len(env.seats)} seats: the audit plays pairs of the 2x2 design.")
    ideal = _play(env, zoo[IDEAL], zoo[IDEAL], episodes, mode="symmetric")
    for mode in MODES:
        honest = _earned(stack, ideal, mode)
        for name, partner in zoo.items():
            played = ideal if name == IDEAL else _play(env, partner, zoo[IDEAL], episodes, mode)
            rows.append(_row(name, mode, _earned(stack, played, mode), honest, played))
    return sorted(rows, key=lambda row: (row.mode != MODES[0], row.policy != IDEAL, -row.earned))


def auditable(env: CoopEnv) -> bool:
    """Whether the policies of the zoo can play it: a pair, with the cells that they reckon with."""
    return env.seats == SEATS and env.cells is not None


def table(rows: Sequence[Audited], title: str) -> Table:
    """The rows for the terminal."""
    out = Table(title=title, caption="edge: earned minus what the ideal policy earned on the same tasks, with 95 %.")
    for column in ("mode", "policy"):
        out.add_column(column, no_wrap=True)
    for column in ("earned", "edge", "U", "J"):
        out.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        edge = "" if row.policy == IDEAL else f"{row.edge:+.3f} [{row.edge_low:+.3f}, {row.edge_high:+.3f}]"
        j = "not defined" if row.j is None else f"{row.j:+.2f}"
        style = None if row.policy == IDEAL or row.honest_first else "bold red"
        out.add_row(row.mode, row.policy, f"{row.earned:.3f}", edge, f"{row.utility:.2f}", j, style=style)
    return out


def winners(rows: Sequence[Audited]) -> list[Audited]:
    """The cheap policies that honest play does not beat for certain."""
    return [row for row in rows if row.policy != IDEAL and not row.honest_first]


def _held(mode: str, index: int) -> tuple[Seat, ...]:
    """The seats that the audited policy holds in the episode of this index."""
    return SEATS if mode == "symmetric" else (SEATS[index % 2],)


def _play(env: CoopEnv, partner: Partner, ideal: Partner, episodes: int, mode: str) -> list[Episode]:
    return [
        play(env, {s: partner if s in _held(mode, i) else ideal for s in SEATS}, seed=AUDIT_SEEDS + i)
        for i in range(episodes)
    ]


def _earned(stack: RewardStack, episodes: Sequence[Episode], mode: str) -> np.ndarray:
    """Return per episode of the seats that a policy of this mode holds; nan after a sandbox fault."""
    earned = []
    for i, episode in enumerate(episodes):
        breakdown = stack.score(episode)
        fault = episode.stop_reason is StopReason.SANDBOX_FAULT
        earned.append(np.nan if fault else float(np.mean([breakdown.total(seat) for seat in _held(mode, i)])))
    return np.array(earned)


def _row(name: str, mode: str, earned: np.ndarray, honest: np.ndarray, episodes: Sequence[Episode]) -> Audited:
    difference = (earned - honest)[~np.isnan(earned - honest)]
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    metrics = measure(episodes)
    return Audited(
        policy=name,
        mode=mode,
        earned=float(np.nanmean(earned)),
        edge=float(difference.mean()),
        edge_low=float(difference.mean() - half),
        edge_high=float(difference.mean() + half),
        utility=metrics["utility"].value,
        j=metrics["j"].value,
    )
