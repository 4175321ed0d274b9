"""Index base: one function looks an item up by number, the other finds the number of an item.

Claims: two numbers of the first item, from 0 to 16. Blend: their mean.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, draw_numbers

_ITEMS = "abcdefghijklmnopqrstuvwxyz"


class IndexBase(FunctionFamily):
    name = "index_base"
    kind = "numeric"
    contract = "number for the first item"
    signatures = ("pick(xs, i)", "find(xs, x)")
    glosses = ("item number i of xs", "the number of x in xs")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return draw_numbers(rng, 0, 16)

    def source(self, part: int, option: str) -> str:
        return (f"def pick(xs, i): return xs[i - {option}]", f"def find(xs, x): return xs.index(x) + {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        number, item = n + int(option), _ITEMS[n]
        return (f"same(pick({_ITEMS!r}, {number}), {item!r})", f"same(find({_ITEMS!r}, {item!r}), {number})")[part]

    def round_trip(self, n: int) -> str:
        return f"same(pick({_ITEMS!r}, find({_ITEMS!r}, {_ITEMS[n]!r})), {_ITEMS[n]!r})"
