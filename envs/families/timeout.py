"""Time-out: one function gives the last moment of a call, the other says whether a waiting time was too long.

Claims: two whole numbers of seconds from 10 to 99. Blend: their mean. The limit itself is still in time.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, draw_numbers


class Timeout(FunctionFamily):
    name = "timeout"
    kind = "numeric"
    contract = "time-out"
    signatures = ("deadline(t)", "late(d)")
    glosses = ("start t plus the time-out", "is wait d over the time-out")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return draw_numbers(rng, 10, 99)

    def source(self, part: int, option: str) -> str:
        return (f"def deadline(t): return t + {option}", f"def late(d): return d > {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        limit = int(option)
        waits = f"late({limit - n}), late({limit}), late({limit + 1})"
        return (f"same(deadline({n}), {n + limit})", f"same(({waits}), (False, False, True))")[part]

    def round_trip(self, n: int) -> str:
        return f"same((late(deadline({n}) - {n}), late(deadline({n}) - {n - 1})), (False, True))"
