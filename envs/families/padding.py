"""Padding: one function pads a code with zeros, the other accepts codes of the full width only.

Claims: two widths from 6 to 40. Blend: their mean.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, draw_numbers


class Padding(FunctionFamily):
    name = "padding"
    kind = "numeric"
    contract = "width"
    signatures = ("pad(s)", "valid(s)")
    glosses = ("zero-fill s to the width", "has s the width")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return draw_numbers(rng, 6, 40)

    def source(self, part: int, option: str) -> str:
        return (f"def pad(s): return s.zfill({option})", f"def valid(s): return len(s) == {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        width, code = int(option), str(n) * 2
        tries = ", ".join(f"valid('{n}' * {w})" for w in (width - 1, width, width + 1))
        return (f"same(pad('{code}'), '{code.zfill(width)}')", f"same(({tries}), (False, True, False))")[part]

    def round_trip(self, n: int) -> str:
        return f"same((valid(pad('{n}')), valid(pad('{n}') + '0')), (True, False))"
