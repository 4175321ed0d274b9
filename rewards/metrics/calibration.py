"""Whether the confidence of the sealed final report means what it says.

The event is "the option that the seat names is right", its probability the confidence that the seat gives to it. All
have one case per seat and decision with a readable final report, none where no confidence was asked for; confidences
count in whole per cent.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.metrics.rate import Formula, Rate, Statistic, divide, doc, no_prior, seats_and_decisions

BINS = 10
_PERCENTS = 101

Seats = Collection[Seat] | None  # those that a number is about; None: all


def _reports(episode: Episode, seats: Seats) -> Iterator[tuple[int, bool]]:
    """Confidence in per cent, and whether the named option is right."""
    for seat, decision in seats_and_decisions(episode, seats) if episode.confidences else ():
        stance = episode.final(seat, decision.id)
        if stance is not None:
            yield round(100 * stance.confidence), decision.is_right(stance.option)


def brier(episode: Episode, seats: Seats = None) -> Rate:
    """Brier score: mean (confidence - right)^2.

    Range: [0, 1], less is better for the same answers, as a wrong one that is doubted costs little; 0.25 for always
    saying 50 %. Cases: readable final reports.
    Source: Brier (1950).
    Example: 90 % and right, 60 % and wrong: (0.01 + 0.36) / 2 = 0.185.
    """
    errors = [(percent / 100 - right) ** 2 for percent, right in _reports(episode, seats)]
    return Rate(sum(errors), len(errors))


def overconfidence(episode: Episode, seats: Seats = None) -> Sequence[float]:
    """Confidence less rightness summed in each bin, and the number of reports."""
    bins, reports = np.zeros(BINS), 0
    for percent, right in _reports(episode, seats):
        bins[min(percent * BINS // 100, BINS - 1)] += percent / 100 - right
        reports += 1
    return [*bins, reports]


def _ece(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error: |mean confidence - share right| in ten bins of equal width, weighted by their cases.

    Range: [0, 1], less is better for the same answers; it is above 0 by chance alone where there are few cases, and so
    is its interval, which does not hold 0 even of perfect calibration. The bins are [0, 10 %) to [90 %, 100 %]. Cases:
    readable final reports. Source: Naeini et al. (2015).
    Example: 90 % and right, 60 % and wrong: (0.1 + 0.6) / 2 = 0.35.
    """
    return divide(np.abs(sums[..., :-1]).sum(-1), sums[..., -1])


def histograms(episode: Episode, seats: Seats = None) -> Sequence[float]:
    """Number of right reports at each per cent, then of wrong ones."""
    counts = np.zeros((2, _PERCENTS))
    for percent, right in _reports(episode, seats):
        counts[int(not right), percent] += 1
    return list(counts.ravel())


def _auroc(sums: np.ndarray) -> np.ndarray:
    """P(a right report is surer than a wrong one), ties counting half: the area under the ROC curve.

    Range: [0, 1], more is better for the same answers; 0.5 says nothing. Not defined unless some reports are right and
    some are wrong. Cases: the fewer of the readable final reports that are right and wrong.
    Source: Hanley and McNeil (1982).
    Example: right at 90 % and 60 %, wrong at 60 %: (1 + 0.5) / 2 = 0.75.
    """
    right, wrong = sums[..., :_PERCENTS], sums[..., _PERCENTS:]
    less_sure = wrong.cumsum(-1) - wrong / 2
    return divide((right * less_sure).sum(-1), right.sum(-1) * wrong.sum(-1))


def _fewer(counts: np.ndarray) -> float:
    return min(counts[:_PERCENTS].sum(), counts[_PERCENTS:].sum())


def _surest_and_least_sure(counts: np.ndarray) -> np.ndarray:
    """Pseudo-cases: right and wrong reports at both ends of the scale, as many as a unit has on average."""
    rows = np.zeros((4, 2 * _PERCENTS))
    rows[range(4), [0, _PERCENTS - 1, _PERCENTS, 2 * _PERCENTS - 1]] = 1
    sizes = counts[:, :_PERCENTS].sum(1).mean(), counts[:, _PERCENTS:].sum(1).mean()
    return rows * np.repeat(sizes, _PERCENTS)


ece = Statistic(overconfidence, Formula(_ece, lambda sums: sums[-1], no_prior), doc(_ece))
auroc = Statistic(histograms, Formula(_auroc, _fewer, _surest_and_least_sure), doc(_auroc))
