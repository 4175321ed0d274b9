"""Attribute: one class keeps a number, the other part, a function, takes it off an object.

Claims: two names of the attribute. Blend: both names joined, which is neither's attribute.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, shuffled

_NAMES = ("retries", "attempts", "tries", "limit", "rounds", "runs", "repeats", "chances")


class Attribute(FunctionFamily):
    name = "attribute"
    kind = "structural"
    contract = "attribute"
    signatures = ("Job(v)", "look(job)")
    glosses = ("a class that keeps v in the attribute", "the attribute of job")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return ContractOptions.of(shuffled(_NAMES, rng)[:3], "{}_{}".format)

    def source(self, part: int, option: str) -> str:
        return (
            f"class Job:\n    def __init__(self, v): self.{option} = v",
            f"def look(job): return job.{option}",
        )[part]

    def check(self, part: int, option: str, n: int) -> str:
        job = f"type('Job', (), {{'{option}': {n}}})()"
        return (f"same(vars(Job({n})), {{'{option}': {n}}})", f"same(look({job}), {n})")[part]

    def round_trip(self, n: int) -> str:
        return f"same((lambda d: look(type('Job', (), d)()))(vars(Job({n}))), {n})"
