"""Separator: one function joins words to a line, the other splits the line.

Claims: two separators of two symbols. Blend: both, one after the other, which splits neither's lines.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily

_SYMBOLS = ":|#~=@&+;/-%<>"
_WORDS = ("ant", "bee", "cat", "dog", "elk")


class Separator(FunctionFamily):
    name = "separator"
    kind = "categorical"
    contract = "separator"
    signatures = ("join(xs)", "split(s)")
    glosses = ("join words xs to a line", "split line s into words")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        while True:
            plain = ["".join(_SYMBOLS[i] for i in rng.integers(len(_SYMBOLS), size=2)) for _ in range(3)]
            readings = ContractOptions.of(plain, "{}{}".format)
            if all(sum(blend.count(one) for one in plain) == 2 for blend in readings.blends):
                return readings

    def source(self, part: int, option: str) -> str:
        return (f"def join(xs): return '{option}'.join(xs)", f"def split(s): return s.split('{option}')")[part]

    def check(self, part: int, option: str, n: int) -> str:
        words = list(_WORDS[: 2 + n % 4])
        line = option.join(words)
        return (f"same(join({words}), {line!r})", f"same(split({line!r}), {words})")[part]

    def round_trip(self, n: int) -> str:
        words = list(_WORDS[: 2 + n % 4])
        return f"same(split(join({words})), {words})"
