"""Capacity: one function says how many calls fit into some minutes, the other whether a minute had too many.

Measured: calls in a minute, from 100 to 900. The capacity itself is not too many.
"""

from envs.families.estimate import EstimateFamily


class Capacity(EstimateFamily):
    name = "capacity"
    contract = "estimate of the calls that a server takes in a minute"
    signatures = ("quota(m)", "over(c)")
    glosses = ("calls allowed in m minutes", "are c calls in a minute too many")
    low, high = 100, 900

    def source(self, part: int, option: str) -> str:
        return (f"def quota(m): return m * {option}", f"def over(c): return c > {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        calls = int(option)
        counts = f"over({calls - n}), over({calls}), over({calls + 1})"
        return (f"same(quota({n}), {n * calls})", f"same(({counts}), (False, False, True))")[part]

    def round_trip(self, n: int) -> str:
        return f"same((over(quota({n}) // {n}), over(quota({n}) // {n} + 1)), (False, True))"
