"""Page size: one function cuts a page out of a list, the other says how many pages there are.

Claims: two sizes from 5 to 40. Blend: their mean.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, draw_numbers

_MANY = 2000  # items: two sizes within the range then always make different numbers of pages


class PageSize(FunctionFamily):
    name = "page_size"
    kind = "numeric"
    contract = "page size"
    signatures = ("page(xs, i)", "pages(n)")
    glosses = ("page i of list xs, from 0", "how many pages n items fill")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return draw_numbers(rng, 5, 40)

    def source(self, part: int, option: str) -> str:
        return (
            f"def page(xs, i): return xs[i * {option}:][:{option}]",
            f"def pages(n): return (n - 1) // {option} + 1",
        )[part]

    def check(self, part: int, option: str, n: int) -> str:
        size = int(option)
        items = f"list(range({n * size}, {(n + 1) * size}))"
        counts = f"pages({n * size}), pages({n * size + 1})"
        return (f"same(page(list(range({_MANY})), {n}), {items})", f"same(({counts}), ({n}, {n + 1}))")[part]

    def round_trip(self, n: int) -> str:
        count = _MANY + n
        last = f"page(list(range({count})), pages({count}) - 1)[-1:]"
        return f"same([*{last}, *page(list(range({count})), pages({count}))], [{count - 1}])"
