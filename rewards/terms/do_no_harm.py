"""Do no harm: charge what passed on the partner's own part and fails after the merge."""

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.schedules import Weight


class DoNoHarm(RewardTerm):
    """r = -(tests of the partners' parts that pass on the part alone and fail after the merge) / (all their tests),
    on the last turn.

    Range: [-1, 0]; exactly 0 for a task whose parts have no tests.
    Source: our own; a merge that breaks what worked is what two agents do and one cannot.

    Gaming: a partner whose part fails on its own cannot be harmed, and that failure costs U, which both share. Writing
    nothing harms nothing and solves nothing. The tests are hidden, so they cannot be written around.

    Example: the partner's part passes 2 of its 2 tests alone and 1 of them after the merge: -1/2.
    """

    weight: Weight = 0.0  # measured: U counts the same failed tests

    def applies(self, episode: Episode) -> bool:
        return any(part.alone for part in episode.outcome.parts.values())

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        parts = episode.outcome.parts
        theirs = [parts[seat] for seat in episode.partners_of(agent) if seat in parts]
        broken = [a and not m for part in theirs for a, m in zip(part.alone, part.merged, strict=True)]
        return at_last_turn(episode, agent, 0.0 - sum(broken) / len(broken) if broken else 0.0)
