"""Decimals: one function rounds to a number of decimals, the other accepts exactly that many.

Claims: two numbers from 1 to 15. Blend: their mean.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, draw_numbers


class Decimals(FunctionFamily):
    name = "decimals"
    kind = "numeric"
    contract = "number of decimals"
    signatures = ("show(x)", "exact(s)")
    glosses = ("x rounded to the decimals", "has s the decimals")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return draw_numbers(rng, 1, 15)

    def source(self, part: int, option: str) -> str:
        return (
            f"def show(x): return f'{{x:.{option}f}}'",
            f"def exact(s): return len(s.partition('.')[2]) == {option}",
        )[part]

    def check(self, part: int, option: str, n: int) -> str:
        x, decimals = n / 7 + 1 / 3, int(option)
        tries = ", ".join(f"exact('{n}.{'5' * d}')" for d in (decimals - 1, decimals, decimals + 1))
        return (f"same(show({x!r}), '{x:.{decimals}f}')", f"same(({tries}), (False, True, False))")[part]

    def round_trip(self, n: int) -> str:
        x = n / 7 + 1 / 3
        return f"same((exact(show({x!r})), exact(show({x!r}) + '0')), (True, False))"
