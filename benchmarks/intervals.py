"""How often the 95 % intervals of the metrics hold the true value, by simulation.

    python benchmarks/intervals.py --repeats 2000

prints a table of coverage for each kind of statistic, number of episodes and truth. Seats and decisions of an episode
depend on each other as they do in play: a rate has two cases an episode, of which the second repeats the first in
`agreement` of the episodes; J has one case of each kind in about every second episode, as in the 2x2 design; a change
is on the same tasks, half of which come out alike unless the rates differ. The truth is drawn evenly from
a range in each repeat, because the coverage of a single proportion jumps with it, whatever the method: of 20 cases at
0.03 no interval covers between 0.88 and 0.98.
"""

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rich import print
from rich.table import Table

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from rewards.metrics import METRICS
from rewards.metrics.bayesian_bootstrap import interval
from rewards.metrics.deference import j
from rewards.metrics.rate import Formula, change, of_rates
from rewards.metrics.synergy import gap_to_best_member, synergy_gap

SIZES = (20, 48, 200)
NEAR_0, MIDDLE, NEAR_1 = (0.01, 0.1), (0.3, 0.7), (0.9, 0.99)

Range = tuple[float, float]
Sample = Callable[[np.random.Generator, int], tuple[np.ndarray, float]]  # sums [episode, k] and the true value


class Case(NamedTuple):
    kind: str
    truth: str
    formula: Formula
    sample: Sample


def rate(truth: Range, agreement: float) -> Case:
    """Two cases an episode."""

    def sample(rng: np.random.Generator, episodes: int) -> tuple[np.ndarray, float]:
        p = rng.uniform(*truth)
        first, other = rng.random((2, episodes)) < p
        second = np.where(rng.random(episodes) < agreement, first, other)
        return np.stack([first + second.astype(float), np.full(episodes, 2.0)], axis=1), p

    return Case(f"rate, agreement {agreement:g}", _between(truth), of_rates(np.positive), sample)


def youden(cdr: Range, cr: Range) -> Case:
    """One case of each rate in about every second episode."""

    def sample(rng: np.random.Generator, episodes: int) -> tuple[np.ndarray, float]:
        rates = rng.uniform(*cdr), rng.uniform(*cr)
        return _deference(rng, _conflicts(rng, episodes), rng.random(episodes), *rates), rates[0] - rates[1]

    return Case("J", f"CDR {_between(cdr)}, CR {_between(cr)}", of_rates(j), sample)


def youden_change(before: tuple[Range, Range], after: tuple[Range, Range]) -> Case:
    """J after less J before, on the same tasks; half of the episodes share their luck."""

    def sample(rng: np.random.Generator, episodes: int) -> tuple[np.ndarray, float]:
        rates = np.array([[rng.uniform(*truth) for truth in side] for side in (before, after)])
        conflict, luck = _conflicts(rng, episodes), rng.random(episodes)
        again = np.where(rng.random(episodes) < 0.5, luck, rng.random(episodes))
        sums = [_deference(rng, conflict, *side) for side in zip((luck, again), *rates.T, strict=True)]
        (old_cdr, old_cr), (new_cdr, new_cr) = rates
        return np.concatenate(sums, axis=1), new_cdr - new_cr - (old_cdr - old_cr)

    texts = [f"{_between(cdr)} - {_between(cr)}" for cdr, cr in (before, after)]
    return Case("change of J", " to ".join(texts), change(of_rates(j), 4), sample)


def rate_change(before: Range, after: Range) -> Case:
    """One case an episode before and after, on the same tasks; half of the episodes share their luck."""

    def sample(rng: np.random.Generator, episodes: int) -> tuple[np.ndarray, float]:
        old, new = rng.uniform(*before), rng.uniform(*after)
        luck = rng.random(episodes)
        again = np.where(rng.random(episodes) < 0.5, luck, rng.random(episodes))
        one = np.ones(episodes)
        return np.stack([luck < old, one, again < new, one], axis=1).astype(float), new - old

    return Case(
        "change of a rate", f"{_between(before)} to {_between(after)}", change(of_rates(np.positive), 2), sample
    )


def gap(comparator: Range, follows: Range, without: Range) -> Case:
    """The team is right in `follows` of the episodes in which the comparator is, and in `without` of the others."""

    def sample(rng: np.random.Generator, episodes: int) -> tuple[np.ndarray, float]:
        right, kept, lucky = (rng.uniform(*truth) for truth in (comparator, follows, without))
        best = rng.random(episodes) < right
        team = rng.random(episodes) < np.where(best, kept, lucky)
        one, worth = np.ones(episodes), right * kept + (1 - right) * lucky
        return np.stack([best, one, team, one], axis=1).astype(float), (right - worth) / right

    return Case("gap", f"{_between(comparator)}, team {_between(follows)}", of_rates(synergy_gap), sample)


def best_member() -> Case:
    """Two seats that are right as often as each other, each beside the other's mistakes; the team is right more often.

    Which of them was best is luck, so the interval must not be of luck twice.
    """

    def sample(rng: np.random.Generator, episodes: int) -> tuple[np.ndarray, float]:
        worth = rng.uniform(0.75, 0.85)
        first, team = rng.random(episodes) < 0.5, rng.random(episodes) < worth
        one = np.ones(episodes)
        sums = np.stack([team, one, first, one, ~first, one], axis=1).astype(float)
        return sums, (0.5 - worth) / 0.5

    return Case("gap to best member", "seats alike", gap_to_best_member.formula, sample)


def price(solved: Range) -> Case:
    """About 40 tokens an episode, for each that is solved."""

    def sample(rng: np.random.Generator, episodes: int) -> tuple[np.ndarray, float]:
        p = rng.uniform(*solved)
        return np.stack([rng.poisson(40, episodes), rng.random(episodes) < p], axis=1).astype(float), 40 / p

    return Case("tokens per solved task", _between(solved), METRICS["generated_tokens_per_solved"].formula, sample)


def _conflicts(rng: np.random.Generator, episodes: int) -> np.ndarray:
    """[episode]: whether one seat alone is right."""
    return rng.random(episodes) < 0.5


def _deference(rng: np.random.Generator, conflict: np.ndarray, luck: np.ndarray, cdr: float, cr: float) -> np.ndarray:
    """[episode, 4]: numerators and denominators of CDR and CR; in seven of ten episodes one luck decides on both."""
    apart = np.where(rng.random(len(luck)) < 0.7, luck, rng.random(len(luck)))
    return np.stack([conflict & (luck < cdr), conflict, conflict & (apart > 1 - cr), conflict], axis=1).astype(float)


def _between(truth: Range) -> str:
    return f"{truth[0]:g}-{truth[1]:g}"


CASES = (
    *(rate(truth, agreement) for truth in (NEAR_0, MIDDLE, NEAR_1) for agreement in (0.0, 0.5, 1.0)),
    *(youden(cdr, cr) for cdr, cr in ((MIDDLE, MIDDLE), (NEAR_1, MIDDLE), (NEAR_1, NEAR_0), (NEAR_0, NEAR_0))),
    *(rate_change(*sides) for sides in ((MIDDLE, MIDDLE), (MIDDLE, NEAR_1), (NEAR_1, NEAR_1))),
    youden_change((MIDDLE, MIDDLE), (MIDDLE, MIDDLE)),
    youden_change((MIDDLE, MIDDLE), (NEAR_1, NEAR_0)),
    youden_change((NEAR_1, NEAR_0), (NEAR_1, NEAR_0)),
    gap(MIDDLE, MIDDLE, MIDDLE),
    gap(MIDDLE, NEAR_1, NEAR_0),
    gap(NEAR_1, NEAR_1, MIDDLE),
    best_member(),
    price(MIDDLE),
    price(NEAR_1),
)


def coverage(case: Case, episodes: int, repeats: int, seed: int = 0) -> float:
    """Share of the repeats with a defined value in which the interval holds the truth, in [0, 1]."""
    rng = np.random.default_rng(seed)
    held = []
    for _ in range(repeats):
        sums, truth = case.sample(rng, episodes)
        ends = None if np.isnan(case.formula.value(sums.sum(axis=0))) else interval(case.formula, sums)
        if ends is not None:
            held.append(ends[0] <= truth <= ends[1])
    return float(np.mean(held))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=count, default=2000, help="samples of each case and size")
    repeats = parser.parse_args().repeats
    table = Table("statistic", "truth", *(f"{size} episodes" for size in SIZES))
    for case in CASES:
        table.add_row(case.kind, case.truth, *(f"{coverage(case, size, repeats):.3f}" for size in SIZES))
    print(table)
    print(f"standard error at most {0.5 / repeats**0.5:.3f}, at 0.95 {(0.95 * 0.05 / repeats) ** 0.5:.3f}")


if __name__ == "__main__":
    sys.exit(run_script(main))
