"""Whether seats who disagree meet in the middle, and whether the middle was the right place.

Cases are disagreements: decisions on which two readable priors differ, in code the symbols that several seats changed.
"""

from collections.abc import Iterator
from typing import NamedTuple

from envs.core.episode import Episode
from envs.core.task import Decision, Numeric, Seat
from envs.source.edits import mixing, surviving
from rewards.metrics.rate import Rate, share
from rewards.readings import is_compromise, prior_options
from rewards.terms.consensus import differ, excess_loss, log_rolling, pool, settled_side


class _Disagreement(NamedTuple):
    decision: Decision
    priors: dict[Seat, str]
    answer: str | None  # what the seat is committed to


def _disagreements(episode: Episode) -> Iterator[_Disagreement]:
    """One per seat and decision."""
    for decision in episode.task.decisions:
        priors = prior_options(episode, decision)
        if differ(priors):
            for seat in episode.seats:
                yield _Disagreement(decision, priors, episode.committed(seat, decision.id))


def blend_rate(episode: Episode) -> Rate:
    """P(final is a compromise | priors differ), whether the compromise was good or bad.

    Range: [0, 1]. Cases: seats and decisions with a disagreement. Source: our own.
    """
    return share(
        [a is not None and is_compromise(decision, a, p.values()) for decision, p, a in _disagreements(episode)]
    )


def dominated_blend_rate(episode: Episode) -> Rate:
    """P(final is a blend, or nobody's prior, and worth less than the best prior | priors differ).

    Range: [0, 1], less is better. Cases: seats and decisions with a disagreement that is not about a number; an answer
    that realises no option is no blend. Source: our own, after the "integrative compromise" of arXiv 2602.01011.
    """

    def dominated(decision: Decision, priors: dict[Seat, str], answer: str | None) -> bool:
        if answer is None or (answer in priors.values() and answer not in decision.blends):
            return False
        return decision.utility_of(answer) < max(map(decision.utility_of, priors.values()))

    return share([dominated(*case) for case in _disagreements(episode) if case.decision.numeric is None])


def log_rolling_rate(episode: Episode) -> Rate:
    """Mean of `log_rolling`: how evenly the settled disagreements were shared out between the expert and the others.

    Range: [0, 1]; 1 takes turns, 0 goes with one side throughout. Cases: episodes with two or more disagreements that
    all seats settled on one seat's prior. Source: our own, after the logrolling of negotiation research.
    """
    settled = 0
    for decision in episode.task.decisions:
        priors = prior_options(episode, decision)
        settled += differ(priors) and settled_side(episode, decision, priors) is not None
    return Rate(log_rolling(episode), 1) if settled > 1 else Rate()


class _Segment(NamedTuple):
    """A disagreement on a number. `novice` is the mean of the priors of the seats that are not the expert."""

    numeric: Numeric
    priors: dict[Seat, float]
    expert: Seat
    novice: float
    answer: float

    def position(self, number: float) -> float:
        """0 at the novice, 1 at the expert."""
        return (number - self.novice) / (self.priors[self.expert] - self.novice)


def _segments(episode: Episode) -> Iterator[_Segment]:
    for decision, options, answer in _disagreements(episode):
        if decision.numeric is not None and decision.expert in options and answer is not None:
            priors = {seat: float(option) for seat, option in options.items()}
            others = [number for seat, number in priors.items() if seat != decision.expert]
            novice = sum(others) / len(others)
            if novice != priors[decision.expert]:
                yield _Segment(decision.numeric, priors, decision.expert, novice, float(answer))


def numeric_position(episode: Episode) -> Rate:
    """Mean position of the final number between the priors: 0 is the novice's, 1 the expert's, 0.5 halfway.

    Range: any number; outside [0, 1] it lies beyond a prior. Cases: seats and decisions with a disagreement on a
    number between the expert and the others, and an answer. Averaging is often right: `numeric_pool_position` says
    where. Source: the weight on advice of the judge-advisor literature.
    """
    positions = [segment.position(segment.answer) for segment in _segments(episode)]
    return Rate(sum(positions), len(positions))


def numeric_pool_position(episode: Episode) -> Rate:
    """Mean position of the pool of the priors by 1 / sigma^2, on the scale and over the cases of `numeric_position`.

    Range: [0, 1] with two seats. Standard errors 0.3 and 1.5 put it at 0.962. Source: Cochran (1937).
    """
    positions = [segment.position(pool(segment.numeric, segment.priors)) for segment in _segments(episode)]
    return Rate(sum(positions), len(positions))


def numeric_excess_loss(episode: Episode) -> Rate:
    """Mean `excess_loss`: how much further from the truth the final number is than the pool.

    Range: [0, 1], less is better. Cases: as of `numeric_position`. Source: our own.
    """
    losses = [excess_loss(s.numeric, s.priors, s.expert, s.answer) for s in _segments(episode)]
    return Rate(sum(losses), len(losses))


def code_mixing(episode: Episode) -> Rate:
    """Mean `mixing` of the final code: the share of edits on contested symbols that are of the minor side.

    Range: [0, 1), 1/2 at most with two seats; 0 takes one seat's version. Whether the mix did harm is for `consensus`.
    Cases: episodes with a merge on record in which an edit of one seat alone, on a symbol that others changed too,
    survives. Source: our own.
    """
    merge = episode.outcome.merge
    mixed = mixing(surviving(merge)) if merge else None
    return Rate() if mixed is None else Rate(mixed, 1)
