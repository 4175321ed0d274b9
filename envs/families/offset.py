"""Offset: one function adds a number, the other takes it off again.

Claims: two whole numbers 4 to 12 apart, from 10 to 99. Blend: their mean. Any error shows at once in both directions.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, draw_numbers


class Offset(FunctionFamily):
    name = "offset"
    kind = "numeric"
    contract = "offset"
    signatures = ("encode(n)", "decode(n)")
    glosses = ("add the offset to n", "take the offset off n")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return draw_numbers(rng, 10, 99)

    def source(self, part: int, option: str) -> str:
        return (f"def encode(n): return n + {option}", f"def decode(n): return n - {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        sent = n + int(option)
        return (f"same(encode({n}), {sent})", f"same(decode({sent}), {n})")[part]

    def round_trip(self, n: int) -> str:
        return f"same(decode(encode({n})), {n})"
