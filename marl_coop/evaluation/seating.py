"""Who sits where in an episode of an evaluation, and whose play is judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from envs.core.task import Seat

P = TypeVar("P")
Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class Seating(Generic[P]):
    """A team in all seats, or in one seat beside partners.

    A seat has the policy of its own number; where there are more seats than policies, they begin again.

    Attributes:
        own: the policies of the team that is evaluated, in the order of its seats.
        partner: the policies of who sits in all seats but one; None where the team has all seats.
        swapped: every policy of the team moves on by one seat.
    """

    own: tuple[P, ...]
    partner: tuple[P, ...] | None = None
    swapped: bool = False

    def judged(self, seats: Sequence[Seat], task_seed: int) -> tuple[Seat, ...]:
        """The seats of the team: all, or beside partners each in turn, by the seed of the task.

        >>> beside = Seating(("a0", "a1"), partner=("p",))
        >>> beside.judged(("agent_0", "agent_1"), 6), beside.judged(("agent_0", "agent_1"), 7)
        (('agent_0',), ('agent_1',))
        """
        return tuple(seats) if self.partner is None else (seats[task_seed % len(seats)],)

    def at(self, seats: Sequence[Seat], task_seed: int) -> dict[Seat, P]:
        """Who sits in each seat.

        >>> Seating(("a0", "a1"), partner=("p",)).at(("agent_0", "agent_1"), 7)
        {'agent_0': 'p', 'agent_1': 'a1'}
        >>> Seating(("a0", "a1"), swapped=True).at(("agent_0", "agent_1", "agent_2"), 7)
        {'agent_0': 'a1', 'agent_1': 'a0', 'agent_2': 'a1'}
        """
        judged, found = self.judged(seats, task_seed), {}
        for place, seat in enumerate(seats):
            policies = self.own if self.partner is None or seat in judged else self.partner
            found[seat] = policies[(place + self.swapped) % len(policies)]
        return found

    def map(self, function: "Callable[[P], Q]") -> "Seating[Q]":
        """The same with something else in the place of each policy."""
        partner = None if self.partner is None else tuple(map(function, self.partner))
        return Seating(tuple(map(function, self.own)), partner, self.swapped)
