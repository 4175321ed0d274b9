"""What saved episodes would have earned under other rewards, term by term. Loads no torch.

Rewards are plain Python on records, so nothing is played again. What training paid is on record; an evaluation pays
nobody, so its episodes are scored by the run's own rewards as well. Where weights follow a schedule, training episodes
go by those of their update, all others by what the schedules end with. A price that holds a budget (`DualAscent`) is
that on record or, where the run held another budget or none, moves by what the saved episodes spent; all episodes that
are not of training go by that of the last update. What `solo_gain` would pay is not known where nobody played the task
alone (`with_known_rewards`).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from envs.core.episode import Episode
from marl_coop.evaluation.audit import Mean
from marl_coop.runs.played import TRAINING, PlayedEpisode
from rewards import RewardBreakdown, RewardStack
from rewards.metrics import seats_of
from rewards.metrics.rate import faulted
from rewards.schedules import DualAscent
from rewards.terms.solo_gain import SoloGain

ALL = "all terms"


@dataclass(frozen=True, slots=True, kw_only=True)
class TermChange:
    """What a term paid in a part of a run and what it would pay, each a mean over seats and `n` episodes, weighted.

    `difference` is what it would pay minus what it paid, paired by episode. The term `ALL` is the sum of all.
    """

    part: str
    term: str
    earned: Mean
    would_earn: Mean
    difference: Mean
    n: int


def rescore(
    saved: Mapping[str, Sequence[PlayedEpisode]], own: RewardStack, other: RewardStack, learners: Collection[str]
) -> list[TermChange]:
    """What each term of either stack paid and would pay, in each part; terms that pay nothing in both are left out.

    >>> from envs.design_review import DesignReview
    >>> from envs.scripted.base import Calibrated
    >>> from envs.scripted.play import play
    >>> from marl_coop.runs.records import EpisodeRecord
    >>> env = DesignReview()
    >>> played = [play(env, dict.fromkeys(env.seats, Calibrated()), seed) for seed in range(20)]
    >>> records = [EpisodeRecord(episode=episode) for episode in played]
    >>> saved = {"after": [PlayedEpisode(id="", phase="after", record=record) for record in records]}
    >>> half, full = (RewardStack.from_config({"task_success": {"weight": w}}) for w in (0.5, 1.0))
    >>> success, total = rescore(saved, half, full, learners=())
    >>> f"{success.earned.value:.2f} {success.would_earn.value:.2f} {total.difference.value:.2f}"
    '0.40 0.80 0.40'

    Args:
        saved: the episodes; those in which the sandbox failed, or no learner sat, count for nothing.
        own, other: the rewards of the run, and those that it did not have.
        learners: adapters that are trained. Seats of others are left out; none: all seats count.
    """
    changes = []
    whole = {part: [one for one in episodes if not faulted(one.episode)] for part, episodes in saved.items()}
    own_prices, other_prices = (_prices(stack, own, whole.get(TRAINING, ()), learners) for stack in (own, other))
    for part, episodes in whole.items():
        sound = [one for one in episodes if seats_of(learners, one.episode)]
        if len(sound) < 2:
            problem = "without a sandbox fault, in which an adapter that is trained played"
            raise ValueError(f"{part}: {len(sound)} episodes {problem}; an interval needs at least 2")
        paid = [_recorded(one, learners) or _scored(one, own, own_prices, learners) for one in sound]
        would = [_scored(one, other, other_prices, learners) for one in sound]
        for term in [*dict.fromkeys([*own.names, *other.names]), ALL]:
            before, after = (np.array([terms.get(term, 0.0) for terms in side]) for side in (paid, would))
            if term == ALL or before.any() or after.any():
                changes.append(
                    TermChange(
                        part=part,
                        term=term,
                        earned=Mean.of(before),
                        would_earn=Mean.of(after),
                        difference=Mean.of(after - before),
                        n=len(sound),
                    )
                )
    return changes


def with_known_rewards(
    saved: Mapping[str, Sequence[PlayedEpisode]], own: RewardStack, other: RewardStack, left_out: Callable[[str], None]
) -> dict[str, Sequence[PlayedEpisode]]:
    """The parts of a run of which it is known what either stack pays: all, or where these pay `solo_gain` differently,
    those whose tasks were played alone too. An evaluation plays no task alone, and so does training without the term.

    Args:
        left_out: is told of each part that is left out.

    Raises:
        ValueError: no part is left.
    """
    mine, theirs = ([term for term in stack.trained_on if isinstance(term, SoloGain)] for stack in (own, other))
    if mine == theirs:
        return dict(saved)
    (term,) = theirs or mine
    known = {}
    for part, episodes in saved.items():
        alone = [term.applies(one.episode) for one in episodes if not faulted(one.episode)]
        if all(alone):
            known[part] = episodes
        else:
            lacking = f"{part}: {alone.count(False)} of {len(alone)} tasks were not played alone"
            left_out(f"{lacking}, so what {term.name} would pay is not known")
    if not known:
        raise ValueError(
            f"what {term.name} would pay is not known: these tasks were not played alone; leave its weight"
        )
    return known


def _prices(
    stack: RewardStack, own: RewardStack, training: Sequence[PlayedEpisode], learners: Collection[str]
) -> dict[int, dict[str, float]]:
    """Update of training, from 1, in order -> the price of each term that holds a budget.

    Args:
        own: the rewards of the run, which paid what is on record.
        training: episodes without a sandbox fault.
    """
    held = {term.name: (term, term.weight) for term in stack.terms if isinstance(term.weight, DualAscent)}
    recorded = {term.name for term in own.terms if term.name in held and term.weight == held[term.name][1]}
    prices, now = {}, {name: schedule.start for name, (_, schedule) in held.items()}
    by_update: dict[int, list[PlayedEpisode]] = {}
    for one in training if held else ():
        by_update.setdefault(one.update or 0, []).append(one)
    for update in sorted(by_update):
        played = by_update[update]
        for name in recorded:
            if (rewards := played[0].record.rewards) is not None:
                now[name] = rewards.weights[name]
        prices[update] = dict(now)
        for name, (term, schedule) in held.items():
            spent = [term.spent(one.episode, seat) for one in played for seat in seats_of(learners, one.episode)]
            if spent and update % schedule.every == 0:
                now[name] = schedule.moved(now[name], float(np.mean(spent)))
    return prices


def _stack_of(saved: PlayedEpisode, stack: RewardStack, prices: Mapping[int, Mapping[str, float]]) -> RewardStack:
    """The stack with the weights of an episode's update; of an evaluation, with those that schedules end with."""
    if saved.phase == TRAINING and saved.update:
        return stack.at(saved.update - 1).with_weights(prices.get(saved.update, {}))
    return stack.at(math.inf).with_weights(prices[max(prices)] if prices else {})


def _recorded(saved: PlayedEpisode, learners: Collection[str]) -> dict[str, float] | None:
    """What training paid for an episode; None where it was not of training."""
    rewards = saved.record.rewards
    return None if rewards is None else _per_seat(saved.episode, rewards, learners)


def _scored(
    saved: PlayedEpisode, stack: RewardStack, prices: Mapping[int, Mapping[str, float]], learners: Collection[str]
) -> dict[str, float]:
    try:
        breakdown = _stack_of(saved, stack, prices).score(saved.episode)
    except Exception as error:  # a term is code of the user, which may raise anything
        raise ValueError(f"{saved.id}: {type(error).__name__}: {error}") from error
    return _per_seat(saved.episode, breakdown, learners)


def _per_seat(episode: Episode, breakdown: RewardBreakdown, learners: Collection[str]) -> dict[str, float]:
    """The weighted sum of each term, and of all, as means over the seats that learn."""
    paid = [breakdown.weighted(seat) for seat in seats_of(learners, episode)]
    terms = {name: float(np.mean([sum(turns[name]) for turns in paid])) for name in breakdown.weights}
    return terms | {ALL: sum(terms.values())}


def changes_nothing(changes: Sequence[TermChange]) -> bool:
    """Whether every term would have paid in every episode what it paid."""
    return all(change.difference == Mean(0.0, 0.0) for change in changes)


def table(changes: Sequence[TermChange], title: str) -> Table:
    """The changes for the terminal."""
    out = Table(
        title=title,
        caption="Weighted, for each seat and episode; ±: 95 %. Training: what was paid, by the weights of each update.",
    )
    for column in ("episodes", "term"):
        out.add_column(column, no_wrap=True)
    for column in ("earned", "would earn", "difference"):
        out.add_column(column, justify="right", no_wrap=True)
    for change in changes:
        numbers = (f"{mean:.3f}" for mean in (change.earned, change.would_earn, change.difference))
        out.add_row(f"{change.part} ({change.n})", change.term, *numbers, end_section=change.term == ALL)
    return out
