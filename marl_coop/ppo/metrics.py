"""Numbers for the log, from all processes."""

import math
from collections.abc import Mapping

from accelerate.utils import gather_object


class MeanMetrics:
    """Means by name of what was added since they were last taken, each case of each process with the same weight.

    A name may have cases in some processes and none in others, and not every process need know every name: a mix of
    partners is not the same everywhere.

    >>> metrics = MeanMetrics()
    >>> metrics.add("ratio", 1.0, cases=3)
    >>> metrics.add("ratio", 2.0, cases=1)
    >>> metrics.add("cdr", math.nan)
    >>> metrics.take()
    {'ratio': 1.25}
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}  # name -> sum over the cases, number of them

    def add(self, name: str, mean: float, cases: float = 1.0) -> None:
        """Add the mean of some cases; none of them, or a mean that is not defined (nan), leaves no trace."""
        if cases and not math.isnan(mean):
            total, count = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = total + float(mean) * cases, count + cases

    def take(self) -> dict[str, float]:
        """The means over all processes, in order of their names; every process must call it, and starts anew."""
        everyone: list[Mapping[str, tuple[float, float]]] = gather_object([self._sums])
        self._sums = {}
        sums: dict[str, tuple[float, float]] = {}
        for mine in everyone:
            for name, (total, count) in mine.items():
                before, cases = sums.get(name, (0.0, 0.0))
                sums[name] = before + total, cases + count
        return {name: total / count for name, (total, count) in sorted(sums.items())}
