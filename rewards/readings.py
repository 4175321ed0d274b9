"""Readings of an episode, which terms, baselines and metrics share: priors, answers and acts, but no formula of a term.

A reading is a fact of the record on which everybody must agree, such as the option that a prior leads to or the promise
that still stands. What such a fact is worth is for each term and each metric to say, in code of its own.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from envs.core.episode import ActKind, Episode, Stance
from envs.core.task import Decision, Seat

POSITIONS = (ActKind.PROPOSE, ActKind.CHALLENGE, ActKind.CONCEDE)


def mean_over_decisions(episode: Episode, value: Callable[[Decision], float]) -> float:
    """Mean of `value` over the task's decisions, by decision weight; 0 for a task that has no decision to settle."""
    total = sum(decision.weight for decision in episode.task.decisions)
    return sum(d.weight * value(d) for d in episode.task.decisions) / total if total else 0.0


def prior_option(episode: Episode, agent: Seat, decision: Decision) -> str | None:
    """The option that the seat's sealed prior finds likeliest; None without a readable prior.

    It goes by probability: confidence 0.1 in one of two options is a prior for the other one. Where several are as
    likely, it is the one that the prior names, as there is no better one to name, or none if that is a mere blend.
    """
    stance = episode.prior(agent, decision.id)
    if stance is None:
        return None
    probability = {option: stance.probability(decision, option) for option in decision.options}
    likeliest = [option for option, p in probability.items() if p == max(probability.values())]
    if len(likeliest) == 1:
        return likeliest[0]
    return stance.option if stance.option in decision.claimable else None


def prior_options(episode: Episode, decision: Decision) -> dict[Seat, str]:
    """The prior option of each seat that has one."""
    options = {seat: prior_option(episode, seat, decision) for seat in episode.seats}
    return {seat: option for seat, option in options.items() if option is not None}


def held(episode: Episode, agent: Seat, decision: Decision) -> str | None:
    """What the seat had to hold before the talk: what its source claims, where the task says so, else its sealed prior.

    A seat chooses how it words its prior and not what it was told, so nothing that it says makes this vanish.
    """
    return decision.belief.get(agent) or prior_option(episode, agent, decision)


def held_options(episode: Episode, decision: Decision) -> dict[Seat, str]:
    """What each seat held, of those that held anything."""
    options = {seat: held(episode, seat, decision) for seat in episode.seats}
    return {seat: option for seat, option in options.items() if option is not None}


def is_compromise(decision: Decision, answer: str, priors: Iterable[str]) -> bool:
    """Whether an answer lies between the priors: a declared blend or, for numbers, one strictly between them."""
    if decision.numeric is None:
        return answer in decision.blends
    numbers = [float(prior) for prior in priors]
    return float(answer) not in numbers and min(numbers) < float(answer) < max(numbers)


def differ(priors: Mapping[Seat, str]) -> bool:
    """Whether there is a disagreement: two seats whose priors are not the same option."""
    return len(set(priors.values())) > 1


def settled_side(episode: Episode, decision: Decision, priors: Mapping[Seat, str]) -> str | None:
    """The prior that every seat committed to; None where they end apart, on a blend or on something new."""
    answers = {episode.committed(seat, decision.id) for seat in episode.seats}
    side = answers.pop() if len(answers) == 1 else None
    if side is None or side not in priors.values() or is_compromise(decision, side, priors.values()):
        return None
    return side


class Promise(NamedTuple):
    """A COMMIT: the option that a seat promised to realise, and the round in which it did."""

    option: str
    round: int


def standing_promise(episode: Episode, agent: Seat, decision: Decision) -> Promise | None:
    """The seat's last COMMIT on a decision that it did not take back in time, while a partner had a turn to heed it."""
    partners_last = max((turn.round for turn in episode.turns if turn.agent != agent), default=-1)
    promise = None
    for turn in episode.turns_of(agent):
        for act in turn.acts:
            if act.decision != decision.id:
                continue
            if act.kind is ActKind.COMMIT and act.option is not None:
                promise = Promise(act.option, turn.round)
            elif act.kind is ActKind.RETRACT and turn.round < partners_last:
                promise = None
    return promise


def expected(episode: Episode, agent: Seat, decision: Decision, last_round: float = math.inf) -> Stance | None:
    """The prediction that stands for a seat after a round: its last EXPECT on the decision; None where it made none."""
    standing = None
    for turn in episode.turns_of(agent):
        for act in turn.acts if turn.round <= last_round else ():
            if act.kind is ActKind.EXPECT and act.decision == decision.id and act.option is not None:
                standing = Stance(decision=decision.id, option=act.option, confidence=act.confidence)
    return standing


def positions(episode: Episode, decision: Decision, last_round: int) -> dict[Seat, str]:
    """What each seat stands for after a round, by what it last proposed, challenged with or conceded to.

    A seat that has taken no position is not in it.
    """
    return {
        turn.agent: act.option
        for turn in episode.turns
        if turn.round <= last_round
        for act in turn.acts
        if act.decision == decision.id and act.kind in POSITIONS and act.option is not None
    }
