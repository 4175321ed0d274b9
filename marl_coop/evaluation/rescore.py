"""What saved episodes would have earned under other rewards, term by term. Loads no torch.

Rewards are plain Python on records, so nothing is played again. What training paid is on record; an evaluation pays
nobody, so its episodes are scored by the run's own rewards as well. Where weights follow a schedule, training episodes
go by those of their update, all others by what the schedules end with.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from envs.core.episode import Episode, StopReason
from marl_coop.evaluation.audit import Mean
from marl_coop.runs.played import TRAINING, PlayedEpisode
from rewards import RewardBreakdown, RewardStack
from rewards.metrics import seats_of

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
    for part, episodes in saved.items():
        sound = [one for one in episodes if one.episode.stop_reason is not StopReason.SANDBOX_FAULT]
        sound = [one for one in sound if seats_of(learners, one.episode)]
        if len(sound) < 2:
            problem = "without a sandbox fault, in which an adapter that is trained played"
            raise ValueError(f"{part}: {len(sound)} episodes {problem}; an interval needs at least 2")
        paid = [_paid(one, own, learners) for one in sound]
        would = [_scored(one.episode, other.at(_update(one)), learners) for one in sound]
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


def _update(saved: PlayedEpisode) -> float:
    """The update by whose weights an episode is paid, from 0; infinite for an evaluation."""
    return saved.update - 1 if saved.phase == TRAINING and saved.update else math.inf


def _paid(saved: PlayedEpisode, own: RewardStack, learners: Collection[str]) -> dict[str, float]:
    """What training paid for an episode or, of an evaluation, what the run's own rewards make of it."""
    record = saved.record
    if record.rewards is None:
        return _scored(record.episode, own.at(_update(saved)), learners)
    return _per_seat(record.episode, record.rewards, learners)


def _scored(episode: Episode, stack: RewardStack, learners: Collection[str]) -> dict[str, float]:
    return _per_seat(episode, stack.score(episode), learners)


def _per_seat(episode: Episode, breakdown: RewardBreakdown, learners: Collection[str]) -> dict[str, float]:
    """The weighted sum of each term, and of all, as means over the seats that learn."""
    paid = [breakdown.weighted(seat) for seat in seats_of(learners, episode)]
    terms = {name: float(np.mean([sum(turns[name]) for turns in paid])) for name in breakdown.weights}
    return terms | {ALL: sum(terms.values())}


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
