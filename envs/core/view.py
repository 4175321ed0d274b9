"""What one seat may see of an episode: prompts and posteriors are functions of it."""

from dataclasses import dataclass

from envs.core.config import EnvConfig
from envs.core.episode import Phase
from envs.core.task import Decision, Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An episode as far as a seat may know it. Of a decision these are the options and its own belief and cue."""

    seat: Seat
    seats: tuple[Seat, ...]
    phase: Phase | None
    config: EnvConfig  # how instances are drawn is public
    decisions: tuple[Decision, ...]
    heard: tuple[tuple[Seat, str], ...]  # who said what to this seat so far, oldest first

    @property
    def partners(self) -> tuple[Seat, ...]:
        return tuple(seat for seat in self.seats if seat != self.seat)
