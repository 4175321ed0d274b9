"""Numbers for the log, from all processes."""

import math
from collections.abc import Mapping

from accelerate.utils import gather_object


class MeanMetrics:
    """Means by name of what was added since they were last taken, each case of each process with the same weight, and
    the largest of what is a peak.

    A name may have cases in some processes and none in others, and not every process need know every name: a mix of
    partners is not the same everywhere.

    >>> metrics = MeanMetrics()
    >>> metrics.add("ratio", 1.0, cases=3)
    >>> metrics.add("ratio", 2.0, cases=1)
    >>> metrics.add("cdr", math.nan)
    >>> metrics.add_peak("gap", 0.5)
    >>> metrics.add_peak("gap", 0.1)
    >>> metrics.take()
    {'gap': 0.5, 'ratio': 1.25}
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}  # name -> sum over the cases, number of them
        self._peaks: dict[str, float] = {}

    def add(self, name: str, mean: float, cases: float = 1.0) -> None:
        """Add the mean of some cases; none of them, or a mean that is not defined (nan), leaves no trace."""
        if cases and not math.isnan(mean):
            total, count = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = total + float(mean) * cases, count + cases

    def add_peak(self, name: str, value: float) -> None:
        """Add a case of which the largest counts."""
        self._peaks[name] = max(value, self._peaks.get(name, -math.inf))

    def take(self) -> dict[str, float]:
        """The means and peaks over all processes, in order of their names; every process must call it, and starts
        anew."""
        everyone: list[tuple[Mapping[str, tuple[float, float]], Mapping[str, float]]]
        everyone = gather_object([(self._sums, self._peaks)])
        self._sums, self._peaks = {}, {}
        sums: dict[str, tuple[float, float]] = {}
        found: dict[str, float] = {}
        for means, peaks in everyone:
            for name, (total, count) in means.items():
                before, cases = sums.get(name, (0.0, 0.0))
                sums[name] = before + total, cases + count
            for name, value in peaks.items():
                found[name] = max(value, found.get(name, -math.inf))
        found |= {name: total / count for name, (total, count) in sums.items()}
        return dict(sorted(found.items()))
