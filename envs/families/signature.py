"""Signature: one function takes three arguments by place, the other hands them to it.

Claims: two orders of the arguments. Blend: the first argument as in one, the rest as in the other.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, shuffled

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

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        x, y, z = shuffled(_ARGUMENTS[rng.integers(len(_ARGUMENTS))], rng)
        return ContractOptions.of(
            [f"{x}-{y}-{z}", f"{z}-{x}-{y}", f"{y}-{z}-{x}"], _blend
        )  # the blends are the other orders

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
        made = f"make(*call(lambda *xs: xs, {values}))"
        return f"same((len({made}), {{**{values}, **{made}}}), (3, {values}))"


def _blend(first: str, rest: str) -> str:
    """The first argument of one order, then the others as the other order has them."""
    name = first.partition("-")[0]
    return "-".join([name, *(other for other in rest.split("-") if other != name)])
