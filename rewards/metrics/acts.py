"""What the seats do with acts: push back where they should, keep their word, foresee what their partners do.

What stands for a seat on a decision are the options that its partners proposed, challenged with or conceded to before
the round; its worth is the mean of theirs. Acts that were not read, and environments without acts, make no case.
"""

from collections.abc import Iterator
from typing import NamedTuple

from envs.core.episode import Act, ActKind, Episode, Phase, Turn
from envs.core.grammar import parse_acts
from envs.core.task import Decision, Seat
from rewards.metrics.rate import Rate, seats_and_decisions, share
from rewards.readings import expected, positions, standing_promise

_NAMES = frozenset(ActKind)


def acting(episode: Episode) -> bool:
    """Whether a seat wrote an act that could be read."""
    return any(turn.acts for turn in episode.turns)


def acting_rate(episode: Episode) -> Rate:
    """P(a seat wrote an act that could be read). Range: [0, 1]. Cases: episodes. Source: our own."""
    return Rate(float(acting(episode)), 1)


def acts_on(episode: Episode, seat: Seat, decision: Decision, *kinds: ActKind) -> Iterator[tuple[Turn, Act]]:
    """The seat's acts of some kinds on a decision, in order, with their turns."""
    for turn in episode.turns_of(seat):
        for act in turn.acts:
            if act.decision == decision.id and act.kind in kinds:
                yield turn, act


def can_be_heeded(episode: Episode, turn: Turn) -> bool:
    """Whether a partner has a turn left after this one."""
    return any(later.round > turn.round for later in episode.turns if later.agent != turn.agent)


# pushback


class _Challenge(NamedTuple):
    decision: Decision
    counter: str
    standing: dict[Seat, str]

    @property
    def gain(self) -> float:
        return self.decision.utility_of(self.counter) - _worth(self.decision, self.standing)


def _standing(episode: Episode, seat: Seat, decision: Decision, turn: Turn) -> dict[Seat, str]:
    """What each partner stands for when a turn of the seat begins; partners without a position are left out."""
    held = positions(episode, decision, turn.round - 1)
    return {partner: option for partner, option in held.items() if partner != seat}


def _worth(decision: Decision, standing: dict[Seat, str]) -> float:
    return sum(map(decision.utility_of, standing.values())) / len(standing)


def _challenges(episode: Episode) -> Iterator[_Challenge]:
    """Those of something that stands."""
    for seat, decision in seats_and_decisions(episode):
        for turn, act in acts_on(episode, seat, decision, ActKind.CHALLENGE):
            standing = _standing(episode, seat, decision, turn)
            if standing and act.option is not None:
                yield _Challenge(decision, act.option, standing)


def pushback_precision(episode: Episode) -> Rate:
    """P(the counter-proposal is worth more than what stands | CHALLENGE).

    Range: [0, 1], more is better; challenges at random approach the odds that something better is picked blindly.
    Cases: challenges of something that stands, so none in the first round. Source: our own.
    """
    return share([challenge.gain > 0 for challenge in _challenges(episode)])


def pushback_recall(episode: Episode) -> Rate:
    """P(CHALLENGE | what stands is worth less than what the seat's own brief says).

    Range: [0, 1]; more is better only as long as `pushback_precision` holds. Cases: seats and decisions with a turn of
    talk in which that is so. Source: our own.
    """
    spoke_up = []
    for seat, decision in seats_and_decisions(episode):
        evidence = decision.utility_of(decision.belief.get(seat))
        talk = [turn for turn in episode.turns_of(seat) if turn.phase is Phase.TALK]
        standing = {turn.round: _standing(episode, seat, decision, turn) for turn in talk}
        due = {number for number, held in standing.items() if held and _worth(decision, held) < evidence}
        if due:
            challenged = {turn.round for turn, _ in acts_on(episode, seat, decision, ActKind.CHALLENGE)}
            spoke_up.append(not due.isdisjoint(challenged))
    return share(spoke_up)


def yield_to_better(episode: Episode) -> Rate:
    """P(the challenged seat commits to the counter-proposal | it is worth more than what the seat stood for).

    Range: [0, 1], more is better. Cases: challenges, one for each partner that stood for something worse.
    Source: our own.
    """
    return _yielded(episode, sign=1)


def yield_to_worse(episode: Episode) -> Rate:
    """P(the challenged seat commits to the counter-proposal | it is worth less than what the seat stood for).

    Range: [0, 1], less is better. Cases: challenges, one for each partner that stood for something better.
    Source: our own.
    """
    return _yielded(episode, sign=-1)


def _yielded(episode: Episode, sign: int) -> Rate:
    return share(
        [
            episode.committed(partner, decision.id) == counter
            for decision, counter, standing in _challenges(episode)
            for partner, held in standing.items()
            if sign * (decision.utility_of(counter) - decision.utility_of(held)) > 0
        ]
    )


# commitment


def commitments_kept(episode: Episode) -> Rate:
    """P(the seat's part realises what it promised | a COMMIT that was not taken back in time).

    Range: [0, 1], more is better. Cases: promises that stand at the end, one per seat and decision. Source: our own.
    """
    promises = [(seat, d, standing_promise(episode, seat, d)) for seat, d in seats_and_decisions(episode)]
    return share([promise.option == episode.committed(seat, d.id) for seat, d, promise in promises if promise])


def commitment_coverage(episode: Episode) -> Rate:
    """P(the seat ever wrote a COMMIT on the decision).

    Range: [0, 1]. Cases: seats and decisions of episodes with an act. Source: our own.
    """
    if not acting(episode):
        return Rate()
    return share([any(acts_on(episode, s, d, ActKind.COMMIT)) for s, d in seats_and_decisions(episode)])


def late_retraction_rate(episode: Episode) -> Rate:
    """P(no partner has a turn left to act on it | RETRACT of a COMMIT).

    Range: [0, 1], less is better. Cases: retractions of a promise that stood. Source: our own.
    """
    late = []
    for seat, decision in seats_and_decisions(episode):
        promised = False
        for turn, act in acts_on(episode, seat, decision, ActKind.COMMIT, ActKind.RETRACT):
            if promised and act.kind is ActKind.RETRACT:
                late.append(not can_be_heeded(episode, turn))
            promised = act.kind is ActKind.COMMIT
    return share(late)


# expectation


class Prediction(NamedTuple):
    """A seat's last EXPECT beside one partner's part. `told`: the partner named that by COMMIT or INFORM."""

    right: bool
    confidence: float
    told: bool


def predictions(episode: Episode) -> Iterator[Prediction]:
    """One for each seat, partner and decision with an EXPECT; that of a part which realises nothing is wrong."""
    for seat, decision in seats_and_decisions(episode):
        stance = expected(episode, seat, decision)
        if stance is None:
            continue
        for partner in episode.partners_of(seat):
            realised = episode.committed(partner, decision.id)
            said = acts_on(episode, partner, decision, ActKind.COMMIT, ActKind.INFORM)
            told = any(act.option == realised for _, act in said)
            yield Prediction(stance.option == realised, stance.confidence, told)


def expectation_brier(episode: Episode) -> Rate:
    """Brier score of the event "the partner's part realises the named option": mean (confidence - event)^2.

    Range: [0, 1], less is better. Cases: predictions, where a confidence is asked for. Source: Brier (1950).
    Example: 80 % and right, 60 % and wrong: (0.04 + 0.36) / 2 = 0.2.
    """
    errors = [(p.confidence - p.right) ** 2 for p in predictions(episode)] if episode.confidences else []
    return Rate(sum(errors), len(errors))


def expectation_gap(episode: Episode) -> Rate:
    """P(the partner's part does not realise the named option): 1 - top-1 accuracy.

    Range: [0, 1], less is better; the sum of `expectation_untold` and `expectation_misread`. Cases: predictions.
    Source: our own.
    """
    return share([not p.right for p in predictions(episode)])


def expectation_untold(episode: Episode) -> Rate:
    """P(wrong, and the partner never wrote what its part realises): never communicated.

    Range: [0, 1], less is better. Cases: predictions. Source: our own.
    """
    return share([not p.right and not p.told for p in predictions(episode)])


def expectation_misread(episode: Episode) -> Rate:
    """P(wrong, although the partner wrote what its part realises): communicated but misread.

    Range: [0, 1], less is better. Cases: predictions. Source: our own.
    """
    return share([not p.right and p.told for p in predictions(episode)])


# grammar


def malformed_act_rate(episode: Episode) -> Rate:
    """P(a line is no act | it begins like one), as `Commit: nonsense` does.

    Range: [0, 1], less is better. Cases: lines of talk that begin with the name of an act, and sealed lines that begin
    with `Expect`, before a colon, in episodes with an act that could be read; `acting_rate` counts those.
    Source: our own.
    """
    lines = [line for turn in episode.turns for line in turn.reply.split("\n") if _begins_like_an_act(line, turn.phase)]
    return share([not parse_acts(line, episode.task.decisions) for line in lines]) if acting(episode) else Rate()


def _begins_like_an_act(line: str, phase: Phase) -> bool:
    head, colon, _ = line.partition(":")
    word = (head.split() or [""])[0].casefold()
    return bool(colon) and word in (_NAMES if phase is Phase.TALK else (ActKind.EXPECT,))
