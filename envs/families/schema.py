"""Schema: one function writes a message, the other accepts messages of one version only.

Claims: two versions. Blend: a message of one version within a message of the other, which no plain reader accepts.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily

_IN = " in "


class Schema(FunctionFamily):
    name = "schema"
    kind = "categorical"
    contract = "schema version"
    signatures = ("dump(n)", "load(m)")
    glosses = ("message with version 'v' and number 'n'", "n of message m, None for other versions")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return ContractOptions.of([f"v{1 + i}" for i in rng.permutation(9)[:3]], f"{{}}{_IN}{{}}".format)

    def source(self, part: int, option: str) -> str:
        if part == 0:
            return f"def dump(n): return {_message(option, 'n')}"
        inner, _, outer = option.partition(_IN)
        if not outer:
            return f"def load(m): return m['n'] if m['v'] == '{inner}' else None"
        return f"def load(m): return m['n']['n'] if m['v'] == '{outer}' and m['n']['v'] == '{inner}' else None"

    def check(self, part: int, option: str, n: int) -> str:
        message = _message(option, str(n))
        if part == 0:
            return f"same(dump({n}), {message})"
        others = [f"v{k}" for k in range(1, 10) if f"v{k}" not in option.split(_IN)]
        return f"same([load({message}), *(load({{'v': v, 'n': {n}}}) for v in {others})], {[n, *[None] * len(others)]})"

    def round_trip(self, n: int) -> str:
        return f"same(load(dump({n})), {n})"


def _message(option: str, number: str) -> str:
    inner, _, outer = option.partition(_IN)
    message = f"{{'v': '{inner}', 'n': {number}}}"
    return f"{{'v': '{outer}', 'n': {message}}}" if outer else message
