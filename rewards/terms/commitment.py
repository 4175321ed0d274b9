"""Commitment: charge a promise about one's own part that was broken, not taken back, and relied on."""

from envs.core.episode import ActKind, Episode
from envs.core.task import Decision, Seat
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import Promise, mean_over_decisions, standing_promise
from rewards.schedules import Weight


class Commitment(RewardTerm):
    """Minus the share of decisions, by weight, on which the seat's standing COMMIT names another option than its part
    realises and a partner relied on it; paid on the last turn.

    A RETRACT undoes the COMMIT if a partner still has a turn to act on it, and a later COMMIT takes its place. A
    partner relies on an option that its own part realises, or that it concedes or commits to after the promise.

    Range: [-1, 0]; exactly 0 without acts.
    Source: our own, after the broken commitments that CooperBench counts among the failures of teams of two.

    Gaming: nothing is paid for keeping a promise and only declared decisions count, so trivial promises earn nothing.
    Never promising avoids the charge, and where the partner cannot tell what the seat will do it leaves its half of
    `expectation`, and U, to luck. A promise too
    late to be used is no coordination either. Keeping a promise that turned out wrong costs U, and taking it back in
    time is free.

    Example: two decisions of equal weight; the seat commits to a on both, its code realises a and b, and the partner
    built on a both times: -1/2.
    """

    weight: Weight = 0.1

    def applies(self, episode: Episode) -> bool:
        return any(turn.acts for turn in episode.turns)

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        def broken(decision: Decision) -> float:
            promise = standing_promise(episode, agent, decision)
            if promise is None or promise.option == episode.committed(agent, decision.id):
                return 0.0
            return -float(relied_on(episode, agent, decision, promise))

        return at_last_turn(episode, agent, mean_over_decisions(episode, broken))


def relied_on(episode: Episode, agent: Seat, decision: Decision, promise: Promise) -> bool:
    """Whether a partner built on the promised option, or said later that it would."""
    if any(episode.committed(seat, decision.id) == promise.option for seat in episode.partners_of(agent)):
        return True
    return any(
        (act.decision, act.option) == (decision.id, promise.option) and act.kind in (ActKind.CONCEDE, ActKind.COMMIT)
        for turn in episode.turns
        if turn.agent != agent and turn.round > promise.round
        for act in turn.acts
    )
