"""How often the 95 % interval of `rewards.metrics.across_seeds` holds the truth, and how far the value is from it.

    python benchmarks/seeds.py

Runs of some seeds solve tasks, or not. A task is solved with the probability 0.8, more or less by the luck of the seed
(standard deviation 0.1, the same for all tasks) and by the task (evenly from -0.15 to 0.15, the same for all seeds).
Beside it the interquartile mean over seeds and families of tasks, with rliable's bootstrap, that draws the seeds of
each family by themselves.
"""

import argparse
import sys

import numpy as np

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from rewards.metrics.across_seeds import iqm, resampled, weights
from rewards.metrics.bayesian_bootstrap import LEVELS, RESAMPLES
from rewards.metrics.rate import of_rates

TRUTH, SEED_SD, SPREAD = 0.8, 0.1, 0.15
SHAPES = ((24, 13), (200, 4))  # tasks, and families that they are of
RATE = of_rates(np.positive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=count, default=300, help="simulated for each row (default: 300)")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| tasks, families | seeds | across_seeds: held, mean value | over families, as rliable: held, mean value |")
    print("|---|---|---|---|")
    for tasks, families in SHAPES:
        for seeds in (2, 3, 5, 10):
            found = [_experiment(seeds, tasks, families, rng) for _ in range(args.experiments)]
            held, value = np.mean(found, axis=0).T
            cells = (f"{share:.2f}, {mean:.2f}" for share, mean in zip(held, value, strict=True))
            print(f"| {tasks}, {families} | {seeds} | {' | '.join(cells)} |")


def _experiment(seeds: int, tasks: int, families: int, rng: np.random.Generator) -> list[tuple[bool, float]]:
    """Of each way, whether its interval holds the truth, and its value."""
    luck_R1, ease_U = SEED_SD * rng.normal(size=(seeds, 1)), SPREAD * rng.uniform(-1, 1, tasks)
    solved_RU = (rng.random((seeds, tasks)) < TRUTH + luck_R1 + ease_U).astype(float)
    sums_RUK = np.stack([solved_RU, np.ones_like(solved_RU)], axis=-1)
    runs = [("ours", number) for number in range(seeds)]
    ours_E = iqm(resampled(RATE, sums_RUK, runs), weights(seeds, "runs of ours"))
    of_family = np.arange(tasks) % families
    scores_RF = np.stack([solved_RU[:, of_family == family].mean(axis=1) for family in range(families)], axis=1)
    drawn = rng.integers(seeds, size=(RESAMPLES, seeds, families))
    cells_EC = scores_RF[drawn, np.arange(families)].reshape(RESAMPLES, -1)
    theirs_E = iqm(cells_EC, np.ones_like(cells_EC))
    values = (_iqm(solved_RU.mean(axis=1)), _iqm(scores_RF.ravel()))
    return [(_holds(resamples_E), value) for resamples_E, value in zip((ours_E, theirs_E), values, strict=True)]


def _iqm(values_C: np.ndarray) -> float:
    return float(iqm(values_C, np.ones_like(values_C)))


def _holds(resamples_E: np.ndarray) -> bool:
    low, high = np.percentile(resamples_E, LEVELS)
    return bool(low <= TRUTH <= high)


if __name__ == "__main__":
    sys.exit(run_script(main))
