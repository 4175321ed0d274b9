"""What the team makes of what its seats were told: its worth against that of comparators that never talk.

What a seat is worth alone is the claim of its source, and not what it stated before the talk: a prior that is worse
than it need be would make the team look better than its members.

The worth of an answer is the mean utility over an episode's decisions, by decision weight. Every gap names its
comparator, because the same team can lose 24 % against one and gain 24 % on another. All worths have one case per
episode that has a decision to settle, those of comparators only where the task says what the sources claim, and range
over [0, 1]. They are ratios of means and not means of ratios.
"""

from collections.abc import Callable, Sequence

import numpy as np

from envs.core.episode import Episode
from envs.core.task import Decision, Seat
from rewards.metrics.averaging import pool
from rewards.metrics.rate import Formula, Rate, Statistic, both_ways, divide, doc
from rewards.readings import mean_over_decisions


def _worth(episode: Episode, value: Callable[[Decision], float]) -> Rate:
    return Rate(mean_over_decisions(episode, value), 1) if episode.task.decisions else Rate()


def _comparator(episode: Episode, value: Callable[[Decision], float]) -> Rate:
    """No case either where nothing is known of what the sources claim of a decision."""
    return _worth(episode, value) if all(decision.belief for decision in episode.task.decisions) else Rate()


def _alone(seat: Seat, decision: Decision) -> float:
    """Worth of what a seat would answer without talk: the claim of its source, 0 where it has none."""
    return decision.utility_of(decision.belief.get(seat))


def worth_team(episode: Episode) -> Rate:
    """Worth of the answer that all seats are committed to; 0 where they end apart.

    Range: [0, 1], more is better. Cases: episodes with a decision. Source: our own.
    """

    def value(decision: Decision) -> float:
        answers = {episode.committed(seat, decision.id) for seat in episode.seats}
        return decision.utility_of(answers.pop()) if len(answers) == 1 else 0.0

    return _worth(episode, value)


def worth_expert(episode: Episode) -> Rate:
    """Worth of the expert's claim: everybody follows the seat that the cues point to.

    Range: [0, 1]. Cases: episodes with known claims. Source: arXiv 2602.01011.
    """
    return _comparator(episode, lambda decision: _alone(decision.expert, decision))


def worth_novice(episode: Episode) -> Rate:
    """Worth of the claims of the seats that are not the expert, on average.

    Range: [0, 1]. Cases: episodes with known claims and such a seat. Source: our own.
    """

    def value(decision: Decision) -> float:
        others = [seat for seat in episode.seats if seat != decision.expert]
        return sum(_alone(seat, decision) for seat in others) / len(others)

    return _comparator(episode, value) if len(episode.seats) > 1 else Rate()


def worth_vote(episode: Episode) -> Rate:
    """Worth of a majority vote on the claims, ties drawn by lot: what the team gets without a word.

    Seats without a claim do not vote. Range: [0, 1]. Cases: episodes with known claims. Source: the baseline of arXiv
    2508.17536.
    """

    def value(decision: Decision) -> float:
        votes = list(decision.belief.values())
        tied = {option for option in votes if votes.count(option) == max(map(votes.count, votes))}
        return sum(map(decision.utility_of, tied)) / len(tied)

    return _comparator(episode, value)


def worth_attainable(episode: Episode) -> Rate:
    """Worth of what the briefs add up to: a team that reads its briefs and the cues without a mistake.

    That is what the expert's brief claims; of an estimate, the option nearest to the `pool` of what the briefs say.
    No ideal team does better as long as the seat with the better cue is right at least as often as the other one, and
    what it claims is likelier than any option that nobody claims.
    Range: [0, 1]. Cases: episodes in which the expert's brief claims something. Source: our own; the Bayes-optimal
    answer under that condition.
    """
    if not all(decision.expert in decision.belief for decision in episode.task.decisions):
        return Rate()

    def value(decision: Decision) -> float:
        if decision.numeric is None or not decision.numeric.estimate:
            return decision.utility_of(decision.belief[decision.expert])
        number = pool(decision.numeric, {seat: float(option) for seat, option in decision.belief.items()})
        return decision.utility_of(min(decision.options, key=lambda option: abs(float(option) - number)))

    return _worth(episode, value)


def worth_any_right(episode: Episode) -> Rate:
    """Worth of the best claim of all: at least one seat is correct. No team can know which, so none can promise it.

    Range: [0, 1]. Cases: episodes with known claims. Source: the oracle ("at least one correct") of arXiv 2602.01011.
    """
    return _comparator(episode, lambda decision: max(_alone(seat, decision) for seat in episode.seats))


def synergy_gap(comparator: np.ndarray, team: np.ndarray) -> np.ndarray:
    """(comparator - team) / comparator; not defined where the comparator is worth nothing.

    Range: (-inf, 1], less is better; 0 equals the comparator, below 0 the team beats it. Cases: episodes. Source: the
    relative synergy gap of arXiv 2602.01011, whose 37.6 % and 41.1 % are against `worth_any_right`.

    Example: the comparator is worth 0.8 and the team 0.6: a gap of 0.25.
    """
    return divide(comparator - team, comparator)


def elr(team: np.ndarray, expert: np.ndarray, novice: np.ndarray) -> np.ndarray:
    """Expert-leveraging ratio (team - novice) / (expert - novice); not defined unless the expert beats the novice.

    Range: any number, more is better; 1 is as good as following the expert, 0 as following the novice. Cases: episodes.
    Source: our own.

    Example: team 0.75, expert 0.85, novice 0.45: 0.75.
    """
    return divide(team - novice, expert - novice)


def _members(episode: Episode) -> Sequence[float]:
    """The worth of the team and of each seat alone, each with its case."""
    alone = (_comparator(episode, lambda d, seat=seat: _alone(seat, d)) for seat in episode.seats)
    return [number for rate in (worth_team(episode), *alone) for number in rate]


def _best_member(sums: np.ndarray) -> np.ndarray:
    """Worth of the claims of the one seat that is best over all episodes.

    The seat is picked on the episodes that it is judged on, so this is a little too high where seats are alike; the
    interval is that of the seat which was picked.
    Range: [0, 1]. Cases: episodes. Source: arXiv 2602.01011 and the strong synergy of team research.
    """
    return _member(sums, _best_seat(sums))


def _best_seat(sums: np.ndarray) -> np.ndarray:
    return sums[..., 2::2].argmax(-1)


def _member(sums: np.ndarray, seat: np.ndarray) -> np.ndarray:
    """Worth of a seat [...]; one that a team lacks is worth nothing to it."""
    worth = np.take_along_axis(sums[..., 2::2], seat[..., None], axis=-1)[..., 0]
    return divide(worth, sums[..., 3::2].max(-1))


def _gap_to_best_member(sums: np.ndarray) -> np.ndarray:
    """(best fixed member - team) / best fixed member: `synergy_gap`.

    Range: (-inf, 1], less is better. Cases: episodes. Source: as `worth_best_member`.
    """
    return _gap_to_member(sums, _best_seat(sums))


def _gap_to_member(sums: np.ndarray, seat: np.ndarray) -> np.ndarray:
    return synergy_gap(_member(sums, seat), divide(sums[..., 0], sums[..., 1]))


def _of_members(
    value: Callable[[np.ndarray], np.ndarray], of_seat: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Statistic:
    def chosen(total: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        seat = _best_seat(total)
        return lambda sums: of_seat(sums, np.broadcast_to(seat, sums.shape[:-1]))

    return Statistic(_members, Formula(value, lambda sums: sums[3::2].max(), both_ways, chosen), doc(value))


worth_best_member = _of_members(_best_member, _member)
gap_to_best_member = _of_members(_gap_to_best_member, _gap_to_member)
