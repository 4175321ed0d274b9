"""Day format: one function writes a day, the other reads it.

Claims: two formats, which differ in the order of day, month and year and in what stands between them. Blend: the order
of one with the separator of the other.
"""

from datetime import datetime

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily

_ORDERS = (("%Y", "%m", "%d"), ("%d", "%m", "%Y"), ("%m", "%d", "%Y"), ("%Y", "%d", "%m"))
_SEPARATORS = "-./_"


class DayFormat(FunctionFamily):
    name = "day_format"
    kind = "categorical"
    contract = "format"
    signatures = ("write(t)", "read(s)")
    glosses = ("datetime t as text", "text s as a datetime")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        orders = [_ORDERS[i] for i in rng.permutation(4)[:3]]
        marks = [_SEPARATORS[i] for i in rng.permutation(4)[:3]]
        return ContractOptions.of([mark.join(order) for mark, order in zip(marks, orders, strict=True)], _blend)

    def source(self, part: int, option: str) -> str:
        return (
            f"def write(t): return t.strftime('{option}')",
            f"from datetime import datetime\ndef read(s): return datetime.strptime(s, '{option}')",
        )[part]

    def check(self, part: int, option: str, n: int) -> str:
        day = _day(n)
        text = day.strftime(option)
        return (f"same(write({_code(day)}), '{text}')", f"same(str(read('{text}')), '{day}')")[part]

    def round_trip(self, n: int) -> str:
        day = _day(n)
        return f"same(str(read(write({_code(day)}))), '{day}')"


def _blend(order: str, separator: str) -> str:
    return order.replace(order[2], separator[2])


def _day(n: int) -> datetime:
    """Day and month differ and may be taken for each other."""
    return datetime(2020 + n, n, n + 1)


def _code(day: datetime) -> str:
    return f"__import__('datetime').datetime({day.year}, {day.month}, {day.day})"
