"""Scale: one function turns seconds into wire ticks, the other turns them back.

Claims: two whole factors from 10 to 99. Blend: their mean. Inputs are large enough that integer division cannot hide
a wrong factor.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, draw_numbers


class Scale(FunctionFamily):
    name = "scale"
    kind = "numeric"
    contract = "factor"
    signatures = ("pack(s)", "unpack(w)")
    glosses = ("turn seconds s into ticks", "turn ticks w into seconds")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return draw_numbers(rng, 10, 99)

    def source(self, part: int, option: str) -> str:
        return (f"def pack(s): return s * {option}", f"def unpack(w): return w // {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        seconds = 100 * n
        ticks = seconds * int(option)
        return (f"same(pack({seconds}), {ticks})", f"same(unpack({ticks}), {seconds})")[part]

    def round_trip(self, n: int) -> str:
        return f"same(unpack(pack({100 * n})), {100 * n})"
