"""The interval around a metric: a Bayesian bootstrap over episodes, with two pseudo-cases for what lies in [0, 1].

Each resample weighs the units (episodes, or tasks with all their episodes) at random instead of drawing them (Rubin
1981, "The Bayesian bootstrap"), so ratios, differences and whatever else is made of sums get their interval in one way,
and seats, decisions and turns of one episode stay together. The percentile bootstrap of few cases, or of a rate near 0
or 1, has no resample beyond what was seen: [0, 0] where none of 20 failed. So a rate in [0, 1] also gets a case that
fails and one that succeeds, each of random weight Gamma(1/2). For one independent case a unit that is the posterior
under Jeffreys' prior Beta(1/2, 1/2), whose interval Brown, Cai and DasGupta (2001, "Interval estimation for a binomial
proportion") recommend; for differences it follows Agresti and Min (2005), who add half a case to each cell. A
pseudo-case is as large as a unit, since a unit that never varied may be one case told several times.

Weights are Gamma(m / (m + 2)) for m units, and not Gamma(1): that makes the variance of a mean the unbiased s^2 / m.

`python benchmarks/intervals.py` has the coverage by simulation. No library that we know does this over ratios of sums.
"""

from functools import lru_cache

import numpy as np

from rewards.metrics.rate import Formula

RESAMPLES = 2000
LEVELS = 2.5, 97.5  # per cent, of a 95 % interval


def interval(formula: Formula, sums: np.ndarray) -> tuple[float, float] | None:
    """Ends of the 95 % interval, which holds the value of all units; the same for the same units in any order.

    Args:
        sums: [unit, k], with a row of zeros for a unit without a case; the value of their total must be defined.

    A resample in which the value is not defined is left out. None for one unit and no pseudo-case, which tell nothing
    of the spread.
    """
    units = sums[sums.any(axis=1)]
    pseudo_cases = formula.prior(units)
    if len(units) + len(pseudo_cases) < 2:
        return None
    units = units[np.lexsort(units.T)]
    total = sums.sum(axis=0)
    resamples = formula.of_resamples(total)(
        _weights(len(units)) @ units + _prior_weights(len(pseudo_cases)) @ pseudo_cases
    )
    value = float(formula.value(total))
    low, high = np.percentile(resamples[~np.isnan(resamples)], LEVELS)
    return min(float(low), value), max(float(high), value)


@lru_cache(maxsize=4)  # metrics of the same cases share them
def _weights(units: int) -> np.ndarray:
    """[resample, unit]; fixed for a number of units."""
    return np.random.default_rng((0, units)).standard_gamma(units / (units + 2), (RESAMPLES, units))


@lru_cache(maxsize=16)
def _prior_weights(cases: int) -> np.ndarray:
    """[resample, pseudo-case]; fixed for a number of pseudo-cases."""
    return np.random.default_rng((1, cases)).standard_gamma(0.5, (RESAMPLES, cases))
