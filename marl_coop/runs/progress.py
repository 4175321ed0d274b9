"""How far a long piece of work is: a bar in a terminal, lines elsewhere, with the time left in both."""

import os
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from tqdm import tqdm

_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"  # a rate would push the numbers out


class Progress:
    """Counts units of work on stderr.

    Args:
        total: units in all.
        label: what the work is.
        unit: what is counted, in the singular.
        done: units that an earlier start has done.
        shown: False shows nothing, as on every process but the main one; nor does TQDM_DISABLE=1 in the environment.
        pause_s: seconds between two lines where stderr is no terminal; the last one is always written.
    """

    def __init__(self, total: int, label: str, unit: str, *, done: int = 0, shown: bool = True, pause_s: float = 0.0):
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self._before, self._started, self._pause_s = done, time.monotonic(), pause_s
        self._written = self._started
        shown = shown and not os.environ.get("TQDM_DISABLE")  # which tqdm reads only where nobody says `disable`
        self._lines = shown and not sys.stderr.isatty()
        hidden = not shown or self._lines
        self._bar = tqdm(total=total, initial=done, desc=label, bar_format=_BAR, disable=hidden, **_size())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.close()

    def advance(self, units: int = 1, numbers: Mapping[str, str] = MappingProxyType({})) -> None:
        """So many more units are done; the numbers are shown beside the count."""
        units = min(units, self.total - self.done)
        self.done += units
        self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(units)
        now = time.monotonic()
        if self._lines and units and (self.done == self.total or now - self._written >= self._pause_s):
            self._written = now
            print(self._line(now - self._started, numbers), file=sys.stderr, flush=True)

    def _line(self, elapsed_s: float, numbers: Mapping[str, str]) -> str:
        left_s = elapsed_s / (self.done - self._before) * (self.total - self.done)
        times = f"{tqdm.format_interval(elapsed_s)}<{tqdm.format_interval(left_s)}"  # as tqdm writes them
        said = "".join(f", {name}={number}" for name, number in numbers.items())
        return f"{self.label}: {self.done}/{self.total} {self.unit}s [{times}{said}]"


def _size() -> dict[str, Any]:
    """The terminal's, where it does not say it, as in some containers: tqdm would show nothing."""
    try:
        return {} if all(os.get_terminal_size(sys.stderr.fileno())) else {"ncols": 80, "nrows": 24}
    except (OSError, ValueError):  # no terminal
        return {}
