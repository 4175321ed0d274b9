"""Signature: one function takes three arguments by place, the other hands them to it.

Claims: two orders of the arguments. Blend: the first argument as in one, the rest as in the other.
"""

from collections.abc import Sequence

import numpy as np

from envs.families.base import FunctionFamily, Readings

_ARGUMENTS = (
    ("host", "port", "path"),
    ("user", "item", "count"),
    ("start", "stop", "step"),
    ("name", "size", "mode"),
    ("key", "value", "age"),
    ("width", "height", "depth"),
)


class Signature(FunctionFamily):
    name = "signature"
    kind = "structural"
    contract = "order of arguments"
    signatures = ("make(...)", "call(f, d)")
    glosses = ("its three arguments as a dict", "f on the three values of dict d")

    def draw(self, rng: np.random.Generator) -> Readings:
        names = _ARGUMENTS[rng.integers(len(_ARGUMENTS))]
        x, y, z = (names[i] for i in rng.permutation(3))
        a, blend = "-".join((x, y, z)), "-".join((x, z, y))
        rest = ["-".join((z, x, y)), "-".join((z, y, x))]  # z stands before y, as in the blend
        b = rest.pop(rng.integers(2))
        rest += ["-".join((y, x, z)), "-".join((y, z, x))]
        return Readings(claims=(a, b), blend=blend, other=rest[rng.integers(3)])

    def fits(self, option: str, readings: Readings, taken: Sequence[str]) -> bool:
        return set(option.split("-")) == set(readings.other.split("-")) and super().fits(option, readings, taken)

    def source(self, part: int, option: str) -> str:
        names = option.split("-")
        if part == 0:
            return f"def make({', '.join(names)}): return dict({', '.join(f'{name}={name}' for name in names)})"
        values = (f"d['{name}']" for name in names)
        return f"def call(f, d): return f({', '.join(values)})"

    def check(self, part: int, option: str, n: int) -> str:
        names = option.split("-")
        values = dict(zip(names, range(n, n + 3), strict=True))
        if part == 0:
            return f"same(sorted(make({n}, {n + 1}, {n + 2}).items()), {sorted(values.items())})"
        return f"same(call(lambda *xs: xs, {values}), {(n, n + 1, n + 2)})"

    def round_trip(self, n: int) -> str:
        values = {name: n + i for i, name in enumerate(sum(_ARGUMENTS, ()))}
        return f"same([{values}[name] - x for name, x in call(make, {values}).items()], [0, 0, 0])"
