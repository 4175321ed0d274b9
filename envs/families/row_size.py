"""Row size: one function says how many bytes some rows take, the other how many rows go into some bytes.

Measured: bytes of a row, from 100 to 900.
"""

from envs.families.estimate import EstimateFamily


class RowSize(EstimateFamily):
    name = "row_size"
    contract = "estimate of the bytes in a row"
    signatures = ("space(r)", "rows(b)")
    glosses = ("bytes that r rows take", "whole rows in b bytes")
    low, high = 100, 900

    def source(self, part: int, option: str) -> str:
        return (f"def space(r): return r * {option}", f"def rows(b): return b // {option}")[part]

    def check(self, part: int, option: str, n: int) -> str:
        space = n * int(option)
        fits = f"rows({space - 1}), rows({space})"
        return (f"same(space({n}), {space})", f"same(({fits}), ({n - 1}, {n}))")[part]

    def round_trip(self, n: int) -> str:
        return f"same((rows(space({100 * n}) - 1), rows(space({100 * n}))), ({100 * n - 1}, {100 * n}))"
