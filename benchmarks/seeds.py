"""How often the 95 % interval of `rewards.metrics.across_seeds` holds the truth, by number of seeds.

    python benchmarks/seeds.py

A run has a score in each of four families: normal around 0, a part of it common to the families of a seed (standard
deviation 1) and a part of each cell (0.5). Beside it the bootstrap that draws the seeds of each family by themselves.
"""

import argparse

import numpy as np

from rewards.metrics.across_seeds import iqm

FAMILIES, RESAMPLES = 4, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=300, help="simulated for each row (default: 300)")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| seeds | across_seeds | seeds of each family by themselves |\n|---|---|---|")
    for seeds in (2, 3, 5, 10):
        held = np.mean([_held(seeds, rng) for _ in range(args.experiments)], axis=0)
        print(f"| {seeds} | {held[0]:.2f} | {held[1]:.2f} |")


def _held(seeds: int, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether the interval of each bootstrap holds 0 in one experiment."""
    scores_RF = rng.normal(size=(seeds, 1)) + rng.normal(scale=0.5, size=(seeds, FAMILIES))
    weights_ER = rng.standard_gamma(seeds / (seeds + 2), (RESAMPLES, seeds))
    weights_EC = np.repeat(weights_ER, FAMILIES, axis=1)
    ours_E = iqm(np.broadcast_to(scores_RF.ravel(), weights_EC.shape), weights_EC)
    drawn = rng.integers(seeds, size=(RESAMPLES, seeds, FAMILIES))
    cells_EC = scores_RF[drawn, np.arange(FAMILIES)].reshape(RESAMPLES, -1)
    return _holds_0(ours_E), _holds_0(iqm(cells_EC, np.ones_like(cells_EC)))


def _holds_0(resamples_E: np.ndarray) -> bool:
    low, high = np.percentile(resamples_E, (2.5, 97.5))
    return bool(low <= 0 <= high)


if __name__ == "__main__":
    main()
