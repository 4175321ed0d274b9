"""Profile of a run by phases, which the code names where they begin.

    with profiling() as profile:
        play()                              # has somewhere: with phase("decode", tokens=100): ...
    profile.take()["decode"].seconds

A phase within another one counts as the inner one alone, so that phases add up to the whole. The thread that profiles
is the one that is measured: what it waits for is in the phase that waits. Without `profiling` a phase costs nothing.
`torch.profiler` has each operation, at a price; this has a few names, and the seconds are those of a run without it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

OTHER = "other"  # what no phase names


@dataclass(slots=True)
class PhaseTotal:
    """What one phase came to: seconds, or whatever the clock of the profile counts; how often it began; tokens."""

    seconds: float = 0.0
    calls: int = 0
    tokens: int = 0

    def add(self, other: "PhaseTotal") -> None:
        self.seconds += other.seconds
        self.calls += other.calls
        self.tokens += other.tokens


def wall_clock() -> float:
    """Seconds, once an accelerator has done what it was given: else its time would be in the phase after."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


class Profile:
    """Totals by phase, and `OTHER`, since they were last taken.

    Args:
        clock: a number that grows: wall-clock, `time.process_time`, operations done.

    >>> ticks = iter(range(100))
    >>> profile = Profile(clock=lambda: next(ticks))
    >>> profile.enter("play"); profile.enter("decode", tokens=7); profile.leave(); profile.leave()
    >>> {name: total.seconds for name, total in profile.take().items()}
    {'other': 2, 'play': 2, 'decode': 1}
    """

    def __init__(self, clock: Callable[[], float] = wall_clock):
        self._clock, self._since = clock, clock()
        self._running = [(OTHER, False)]  # the innermost last, and whether it is one with what is within it
        self._totals: dict[str, PhaseTotal] = {}

    def enter(self, name: str, *, tokens: int = 0, whole: bool = False) -> None:
        """Begin a phase; with `whole` the phases within it are not told apart."""
        self._count()
        outer, undivided = self._running[-1]
        if undivided:
            self._running.append((outer, True))
            return
        self._running.append((name, whole))
        self._total(name).add(PhaseTotal(calls=1, tokens=tokens))

    def leave(self) -> None:
        self._count()
        self._running.pop()

    def take(self) -> dict[str, PhaseTotal]:
        self._count()
        totals, self._totals = self._totals, {}
        return totals

    def _count(self) -> None:
        before, self._since = self._since, self._clock()
        self._total(self._running[-1][0]).seconds += self._since - before

    def _total(self, name: str) -> PhaseTotal:
        return self._totals.setdefault(name, PhaseTotal())


_active: ContextVar[Profile | None] = ContextVar("profile", default=None)  # threads of a pool have none


@contextmanager
def profiling(clock: Callable[[], float] = wall_clock) -> Iterator[Profile]:
    """Have the phases of this thread counted."""
    profile = Profile(clock)
    token = _active.set(profile)
    try:
        yield profile
    finally:
        _active.reset(token)


@contextmanager
def phase(name: str, *, tokens: int = 0, whole: bool = False) -> Iterator[None]:
    """A phase of the running profile; a decorator as well.

    Args:
        tokens: of chats, without padding, that it works on.
        whole: the phases within it count as this one.
    """
    profile = _active.get()
    if profile is None:
        yield
        return
    profile.enter(name, tokens=tokens, whole=whole)
    try:
        yield
    finally:
        profile.leave()
