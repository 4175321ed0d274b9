"""Return type: one function returns the least and the greatest number of a list, the other takes what it returned.

Claims: two types. Blend: one of each in a tuple, which no reader of either takes.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, shuffled

_FORMS = {  # type: (how to make it of {lo} and {hi}, its class, how to read lo and hi from {r})
    "tuple": ("({lo}, {hi})", "tuple", "{r}[0]", "{r}[1]"),
    "list": ("[{lo}, {hi}]", "list", "{r}[0]", "{r}[1]"),
    "list of lists": ("[[{lo}], [{hi}]]", "list", "{r}[0][0]", "{r}[1][0]"),
    "dict": ("{{'lo': {lo}, 'hi': {hi}}}", "dict", "{r}['lo']", "{r}['hi']"),
    "string": ("f'{{{lo}}}:{{{hi}}}'", "str", "int({r}.split(':')[0])", "int({r}.split(':')[1])"),
    "number": ("{lo} * 1000 + {hi}", "int", "{r} // 1000", "{r} % 1000"),
}
_AND = " and "


class ReturnType(FunctionFamily):
    name = "return_type"
    kind = "structural"
    contract = "type of what bounds returns"
    signatures = ("bounds(xs)", "width(r)")
    glosses = ("least and greatest number of xs", "greatest minus least of what bounds returned")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return ContractOptions.of(shuffled(list(_FORMS), rng)[:3], f"{{}}{_AND}{{}}".format)

    def source(self, part: int, option: str) -> str:
        if part == 0:
            return f"def bounds(xs): return {_make(option, 'min(xs)', 'max(xs)')}"
        first, _, second = option.partition(_AND)
        if first not in _FORMS:  # a gap
            return f"def width(r): return {first}"
        _, kind, lo, hi = _FORMS[first]
        low, high = lo.format(r="r"), hi.format(r="r")
        if second:
            kind, low, high = "tuple", _FORMS[second][2].format(r="r[1]"), hi.format(r="r[0]")
        return f"def width(r): return {high} - {low} if type(r) is {kind} else None"

    def check(self, part: int, option: str, n: int) -> str:
        made = _make(option, str(n), str(n + 9))
        return (f"same(bounds([{n + 3}, {n}, {n + 9}]), {made})", f"same(width({made}), 9)")[part]

    def round_trip(self, n: int) -> str:
        return f"same(width(bounds([{n + 3}, {n}, {n + 9}])), 9)"


def _make(option: str, lo: str, hi: str) -> str:
    """Python that makes the type of two expressions; a gap stays a gap."""
    first, _, second = option.partition(_AND)
    if second:
        return f"({_make(first, lo, hi)}, {_make(second, lo, hi)})"
    return _FORMS[first][0].format(lo=lo, hi=hi) if first in _FORMS else first
