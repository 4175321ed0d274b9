"""Played episodes: an `Episode` (text, for rewards and metrics) and each seat's `Trajectory` (tokens, for training)."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from envs.core.episode import Episode, StopReason
from envs.core.task import Seat, Task
from marl_coop.engines import FinishReason
from marl_coop.players import Mix, PastSelf, Player


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One reply in its chat: ids[start:stop] were sampled in a round, with these log-probabilities.

    `version`: of the weights that sampled it; None for a reply that was given as text, which has no log-probabilities.
    """

    start: int
    stop: int
    round: int
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = FinishReason.STOP
    version: int | None = None


@dataclass(slots=True, kw_only=True)
class Trajectory:
    """One seat's chat of one episode. `turns[k]` belongs to the seat's k-th turn in the episode.

    `player`: who sat there.
    `prefix_hidden_TH`: hidden states below the lowest adapter of all ids but the last, if the engine gives them.
    """

    seat: Seat
    player: Player
    ids: list[int] = field(default_factory=list)
    turns: list[Transition] = field(default_factory=list)
    prefix_hidden_TH: Tensor | None = None

    @property
    def adapter(self) -> str | None:
        """The adapter that the chat goes through; None for the base, and for a partner that writes text."""
        if isinstance(self.player, PastSelf):
            return self.player.copy
        return self.player if isinstance(self.player, str) else None

    def latest(self, other: "Trajectory") -> list[int]:
        """For each turn of another seat, the number of this seat's last turn that is not of a later round; -1: none."""
        rounds = [turn.round for turn in self.turns]
        return [bisect_right(rounds, turn.round) - 1 for turn in other.turns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A played episode; `play` is its number among those of one task, from 0."""

    episode: Episode
    traces: Mapping[Seat, Trajectory]
    play: int = 0

    @property
    def fault(self) -> bool:
        """Whether the machine failed, which is nobody's play."""
        return self.episode.stop_reason is StopReason.SANDBOX_FAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySpec:
    """An episode to play with something changed: another task text, others in the seats, replies that are given.

    `given` maps (seat, index of its turn) to the ids of a reply that is not sampled; nobody hears the `muted` seats.
    `play` is that of the rollout whose random numbers it shares.
    """

    task: Task
    policies: Mapping[Seat, Player | Mix]
    given: Mapping[tuple[Seat, int], list[int]]
    muted: tuple[Seat, ...] = ()
    play: int = 0
