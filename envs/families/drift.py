"""Drift: one function sets a time from a slow clock forward, the other turns a true time into the slow clock's.

Measured: seconds that the clock is slow, from 100 to 900.
"""

from envs.families.estimate import EstimateFamily


class Drift(EstimateFamily):
    name = "drift"
    contract = "estimate of the seconds that the clock is slow"
    signatures = ("mend(t)", "shown(t)")
    glosses = ("true time when the clock shows t", "what the clock shows at true time t")
    low, high = 100, 900

    def source(self, part: int, option: str) -> str:
        return (f"def mend(t): return t + {option}", f"def shown(t): return t - {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        true = 1000 * n
        shown = true - int(option)
        return (f"same(mend({shown}), {true})", f"same(shown({true}), {shown})")[part]

    def round_trip(self, n: int) -> str:
        return f"same(shown(mend({n})), {n})"
