"""Unit: one function sends a duration, the other reads it; both know milliseconds.

Claims: two units of time. Blend: both at once, so many of the longer one and the rest in the shorter one.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, shuffled

_MILLISECONDS = {
    "fortnights": 1_209_600_000,
    "weeks": 604_800_000,
    "days": 86_400_000,
    "hours": 3_600_000,
    "minutes": 60_000,
    "seconds": 1_000,
}
_AND = " and "


class Unit(FunctionFamily):
    name = "unit"
    kind = "categorical"
    contract = "unit"
    signatures = ("send(ms)", "recv(w)")
    glosses = ("milliseconds ms in the unit", "value w in the unit as milliseconds")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return ContractOptions.of(shuffled(list(_MILLISECONDS), rng)[:3], _both)

    def source(self, part: int, option: str) -> str:
        longer, _, shorter = option.partition(_AND)
        one, two = (_MILLISECONDS.get(unit, unit) for unit in (longer, shorter))  # a gap stays a gap
        if not shorter:
            return (f"def send(ms): return ms // {one}", f"def recv(w): return w * {one}")[part]
        return (
            f"def send(ms): return {{'{longer}': ms // {one}, '{shorter}': ms % {one} // {two}}}",
            f"def recv(w): return w['{longer}'] * {one} + w['{shorter}'] * {two}",
        )[part]

    def check(self, part: int, option: str, n: int) -> str:
        longer, _, shorter = option.partition(_AND)
        ms = n * _MILLISECONDS["fortnights"]
        value = {longer: ms // _MILLISECONDS[longer], shorter: 0} if shorter else ms // _MILLISECONDS[option]
        return (f"same(send({ms}), {value})", f"same(recv({value}), {ms})")[part]

    def round_trip(self, n: int) -> str:
        ms = n * _MILLISECONDS["fortnights"]
        return f"same(recv(send({ms})), {ms})"


def _both(one: str, other: str) -> str:
    return _AND.join(sorted((one, other), key=list(_MILLISECONDS).index))
