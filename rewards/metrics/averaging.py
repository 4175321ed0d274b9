"""Whether seats who disagree meet in the middle, and whether the middle was the right place.

Cases are disagreements: decisions on which the claims of two sources differ, in code the symbols that several seats
changed. Claims are the task's, so no prior adds or removes a case.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from envs.core.episode import AMBIGUOUS, Episode
from envs.core.task import Decision, Numeric, Seat
from envs.source.edits import mixing, surviving
from rewards.metrics.rate import Rate, is_probed, seats_and_decisions, share
from rewards.readings import differ, is_compromise, settled_side

Seats = Collection[Seat] | None  # those that a number is about; None: all


class _Disagreement(NamedTuple):
    decision: Decision
    answer: str | None  # the option that the seat is committed to; None where it realises none

    @property
    def claims(self) -> Mapping[Seat, str]:
        return self.decision.belief


def _disagreements(episode: Episode, seats: Seats) -> Iterator[_Disagreement]:
    """One per seat and decision."""
    for seat, decision in seats_and_decisions(episode, seats):
        if differ(decision.belief):
            answer = episode.committed(seat, decision.id)
            yield _Disagreement(decision, answer if answer in decision.options else None)


def blend_rate(episode: Episode, seats: Seats = None) -> Rate:
    """P(final is a compromise | claims differ), whether the compromise was good or bad.

    Range: [0, 1]. Cases: seats and decisions with a disagreement. Source: our own.
    Example: the sources claim 10 and 16, and the seats end on 13 and 16: 1/2.
    """
    return share(
        [
            case.answer is not None and is_compromise(case.decision, case.answer, case.claims.values())
            for case in _disagreements(episode, seats)
        ]
    )


def dominated_blend_rate(episode: Episode, seats: Seats = None) -> Rate:
    """P(final is a blend, or nobody's claim, and worth less than the best claim | claims differ).

    Range: [0, 1], less is better. Cases: seats and decisions with a disagreement that is not about a number; an answer
    that realises no option is no blend. Source: our own, after the "integrative compromise" of arXiv 2602.01011.
    Example: the sources claim a, worth 1, and b; one seat ends on their blend, worth 0.8, the other on b: 1/2.
    """

    def dominated(case: _Disagreement) -> bool:
        claims = case.claims.values()
        if case.answer is None or (case.answer in claims and case.answer not in case.decision.blends):
            return False
        return case.decision.utility_of(case.answer) < max(map(case.decision.utility_of, claims))

    return share([dominated(case) for case in _disagreements(episode, seats) if case.decision.numeric is None])


def log_rolling_rate(episode: Episode) -> Rate:
    """How evenly the settled disagreements were shared out between the expert and the others: twice the smaller share.

    Range: [0, 1]; 1 takes turns, 0 goes with one side throughout. Cases: episodes with two or more disagreements that
    all seats settled on one seat's claim. Source: our own, after the logrolling of negotiation research.
    Example: of four settled disagreements one went to the expert: 2 x 1/4 = 0.5.
    """
    to_expert = []
    for decision in episode.task.decisions:
        claims = decision.belief
        side = settled_side(episode, decision, claims) if differ(claims) else None
        if side is not None:
            to_expert.append(side == claims.get(decision.expert))
    rarer = min(to_expert.count(True), to_expert.count(False))
    return Rate(2 * rarer / len(to_expert), 1) if len(to_expert) > 1 else Rate()


def pool(numeric: Numeric, numbers: Mapping[Seat, float]) -> float:
    """The mean of some seats' numbers, weighted by 1 / sigma^2 (Cochran 1937).

    >>> numeric = Numeric(truth=10.0, tolerance=0.5, sigma={"agent_0": 1.0, "agent_1": 2.0})
    >>> pool(numeric, {"agent_0": 10.0, "agent_1": 15.0})
    11.0
    """
    return float(np.average(list(numbers.values()), weights=[numeric.sigma[seat] ** -2.0 for seat in numbers]))


class _Segment(NamedTuple):
    """A disagreement on a number. `novice` is the mean of the claims of the seats that are not the expert."""

    numeric: Numeric
    claims: dict[Seat, float]
    expert: Seat
    novice: float
    answer: float | None

    def position(self, number: float) -> float:
        """0 at the novice, 1 at the expert."""
        return (number - self.novice) / (self.claims[self.expert] - self.novice)


def _segments(episode: Episode, seats: Seats) -> Iterator[_Segment]:
    for case in _disagreements(episode, seats):
        decision = case.decision
        if decision.numeric is not None and decision.expert in case.claims:
            claims = {seat: float(option) for seat, option in case.claims.items()}
            others = [number for seat, number in claims.items() if seat != decision.expert]
            novice = sum(others) / len(others)
            if novice != claims[decision.expert]:
                answer = None if case.answer is None else float(case.answer)
                yield _Segment(decision.numeric, claims, decision.expert, novice, answer)


def numeric_position(episode: Episode, seats: Seats = None) -> Rate:
    """Mean position of the final number between the claims: 0 is the novice's, 1 the expert's, 0.5 halfway.

    Range: any number; outside [0, 1] it lies beyond a claim. Cases: seats and decisions with a disagreement on a
    number between the expert and the others, and an answer. Averaging is often right: `numeric_pool_position` says
    where. Source: the weight on advice of the judge-advisor literature.
    """
    positions = [
        segment.position(segment.answer) for segment in _segments(episode, seats) if segment.answer is not None
    ]
    return Rate(sum(positions), len(positions))


def numeric_pool_position(episode: Episode, seats: Seats = None) -> Rate:
    """Mean position of the pool of the claims by 1 / sigma^2, on the scale of `numeric_position`.

    Range: [0, 1] with two seats. Cases: as of `numeric_position`. Source: Cochran (1937).
    Example: standard errors 0.3 and 1.5 put it at 0.962.
    """
    pools = [
        segment.position(pool(segment.numeric, segment.claims))
        for segment in _segments(episode, seats)
        if segment.answer is not None
    ]
    return Rate(sum(pools), len(pools))


def numeric_excess_loss(episode: Episode, seats: Seats = None) -> Rate:
    """Mean share of the way, in squared error, from the pool to the worst novice that the final number went.

    (L(final) - L(pool)) / (L(worst novice) - L(pool) + tolerance^2), clipped to [0, 1]; where no novice is worse than
    the pool by more than the tolerance, 1 for any number that is worse than it. No answer went all of the way.

    Range: [0, 1], less is better. Cases: seats and decisions with a disagreement on a number between the expert and the
    others. Source: our own.
    Example: truth 10, tolerance 1, claims 10 +- 1 (expert) and 14 +- 1: the pool is 12, and ending at 13 goes
    (9 - 4) / (16 - 4 + 1) of the way.
    """
    losses = [_excess_loss(segment) for segment in _segments(episode, seats)]
    return Rate(sum(losses), len(losses))


def _excess_loss(segment: _Segment) -> float:
    if segment.answer is None:
        return 1.0
    truth = segment.numeric.truth
    to_pool = (pool(segment.numeric, segment.claims) - truth) ** 2
    novices = [number for seat, number in segment.claims.items() if seat != segment.expert]
    way = max((number - truth) ** 2 for number in novices) - to_pool + segment.numeric.tolerance**2
    gone = (segment.answer - truth) ** 2 - to_pool
    return float(np.clip(gone / way, 0.0, 1.0)) if way > 0 else float(gone > 0)


def code_mixing(episode: Episode) -> Rate:
    """Mean `mixing` of the final code: the share of edits on contested symbols that are of the minor side.

    Range: [0, 1), 1/2 at most with two seats; 0 takes one seat's version. Whether the mix did harm is for `consensus`.
    Cases: episodes with a merge on record in which an edit of one seat alone, on a symbol that others changed too,
    survives. Source: our own.
    """
    merge = episode.outcome.merge
    mixed = mixing(surviving(merge)) if merge else None
    return Rate() if mixed is None else Rate(mixed, 1)


def ambiguous_code_rate(episode: Episode, seats: Seats = None) -> Rate:
    """P(the seat's part follows several options of the decision): it agrees to nothing and reads whatever comes.

    Range: [0, 1], less is better. Cases: seats and decisions of tasks whose code is probed for the option that it
    follows. Source: our own.
    """
    probed = [(s, d) for s, d in seats_and_decisions(episode, seats) if is_probed(episode, s, d)]
    return share([episode.outcome.committed[seat][decision.id] == AMBIGUOUS for seat, decision in probed])
