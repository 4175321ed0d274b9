"""Key: one function puts a value into a record, the other takes it out.

Claims: two key names. Blend: both names joined, which is neither's key.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily

_OWNERS = ("user", "order", "item", "host", "job", "page", "node", "team", "file", "room")
_FIELDS = ("id", "key", "ref", "name", "code", "tag", "uid", "no")


class Key(FunctionFamily):
    name = "key"
    kind = "structural"
    contract = "key"
    signatures = ("save(v)", "load(d)")
    glosses = ("put v into a dict", "take it out of dict d")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        owner = _OWNERS[rng.integers(len(_OWNERS))]
        return ContractOptions.of([f"{owner}_{_FIELDS[i]}" for i in rng.permutation(len(_FIELDS))[:3]], "{}_{}".format)

    def source(self, part: int, option: str) -> str:
        return (f"def save(v): return {{'{option}': v}}", f"def load(d): return d['{option}']")[part]

    def check(self, part: int, option: str, n: int) -> str:
        return (f"same(save({n}), {{'{option}': {n}}})", f"same(load({{'{option}': {n}}}), {n})")[part]

    def round_trip(self, n: int) -> str:
        return f"same(load(save({n})), {n})"
