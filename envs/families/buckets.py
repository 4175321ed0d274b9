"""Buckets: keys fall into buckets in turn; one function says into which, the other how many rounds were before.

Claims: two numbers of buckets from 10 to 99. Blend: their mean.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, draw_numbers

_MOST = 99


class Buckets(FunctionFamily):
    name = "buckets"
    kind = "numeric"
    contract = "number of buckets"
    signatures = ("bucket(k)", "rounds(k)")
    glosses = ("the bucket of key k, from 0", "how many full rounds before key k")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return draw_numbers(rng, 10, _MOST)

    def source(self, part: int, option: str) -> str:
        return (f"def bucket(k): return k % {option}", f"def rounds(k): return k // {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        count = int(option)
        last, name = count * (n + 1) - 1, self.function(part)  # the last key of a round, and the first of the next
        return f"same(({name}({last}), {name}({last + 1})), {((count - 1, 0), (n, n + 1))[part]})"

    def round_trip(self, n: int) -> str:
        first = f"{n} * (max([bucket(k) for k in range({_MOST})]) + 1)"  # of round n
        return f"same((rounds({first} - 1), rounds({first})), ({n - 1}, {n}))"
