"""What every kind of repository gives: a package, and for each of two features where it goes and how it is told.

A feature is a function of a contract family (`envs.families`: an offset, a separator ...) and a place for it in the
package. Its contract is what the seats must agree on; its place is what makes their branches conflict.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

PACKAGES = "shop depot garage clinic studio harbor orchard library bakery foundry kiosk museum".split()
MODULES = "north south east west upper lower inner outer early late front back".split()
HELPERS = {  # name: (source, a call, its value)
    "doubled": ("def doubled(n):\n    return 2 * n", "doubled(4)", "8"),
    "clamped": ("def clamped(n, low, high):\n    return max(low, min(n, high))", "clamped(9, 0, 5)", "5"),
    "initials": (
        'def initials(name):\n    return "".join(word[0] for word in name.split())',
        'initials("ann lee")',
        '"al"',
    ),
    "evens": ("def evens(numbers):\n    return [n for n in numbers if n % 2 == 0]", "evens([1, 2, 4])", "[2, 4]"),
    "squares": ("def squares(numbers):\n    return [n * n for n in numbers]", "squares([2, 3])", "[4, 9]"),
    "backwards": ("def backwards(text):\n    return text[::-1]", 'backwards("abc")', '"cba"'),
    "longest": ("def longest(words):\n    return max(words, key=len)", 'longest(["a", "abc"])', '"abc"'),
    "average": ("def average(numbers):\n    return sum(numbers) / len(numbers)", "average([2, 4])", "3.0"),
    "uniques": ("def uniques(items):\n    return list(dict.fromkeys(items))", "uniques([1, 2, 1])", "[1, 2]"),
    "titled": ("def titled(words):\n    return [word.title() for word in words]", 'titled(["ann"])', '["Ann"]'),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDraft:
    """One seat's half of a task.

    brief: what to build besides the contract's function, and where, without a full stop; private to the seat.
    binding: an expression on `tree` (envs.repository.tree_tests) that gives the contract's function.
    tests: expressions that are true iff the rest of the feature works, under any reading of the contract.
    work: (source of the contract's function, coordinated?) -> the actions that build the feature. Coordinated work
        knows what the partner does; the other is what a seat does that has read its own brief only.
    """

    brief: str
    binding: str
    tests: tuple[str, ...] = ()
    work: Callable[[str, bool], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A package and the two features that are to be added to it."""

    package: str
    files: Mapping[str, str]
    features: tuple[FeatureDraft, FeatureDraft]


class RepoFamily(ABC):
    """A kind of package whose two features get in each other's way.

    `conflict` is why: "spatial", both insert at one place, or "semantic", both change or rely on what one thing means.
    """

    name: str
    conflict: Literal["spatial", "semantic"]

    @abstractmethod
    def draw(self, functions: tuple[str, str], signatures: tuple[str, str], rng: np.random.Generator) -> Draft:
        """A package for two functions, given by name and by signature."""


def pick(options: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` different options."""
    return [str(options[i]) for i in rng.permutation(len(options))[:count]]


def module(title: str, *blocks: str) -> str:
    """The text of a module: a docstring and blocks of code with two empty lines between them."""
    return "\n\n\n".join([f'"""{title}."""', *blocks]) + "\n"


def visible(package: str, checks: Sequence[tuple[str, str, str]]) -> str:
    """The text of the visible tests: one for each (module, call, value)."""
    modules = sorted({name for name, _, _ in checks})
    tests = [
        f"def test_{call.partition('(')[0]}():\n    assert {name}.{call} == {value}" for name, call, value in checks
    ]
    return "\n\n\n".join([f"from {package} import {', '.join(modules)}", *tests]) + "\n"


def helper_checks(module: str, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """The visible tests of helpers that a module holds."""
    return [(module, HELPERS[name][1], HELPERS[name][2]) for name in names]


def insert(path: str, where: str, anchor: str, text: str) -> str:
    """The action that puts text after or before a line."""
    return f"Insert {path} {where}: {anchor}\n{text}\nEnd"


def append(path: str, source: str, code: str) -> str:
    """The action that puts a definition at the end of a file."""
    return insert(path, "after", source.rstrip("\n").split("\n")[-1].strip(), f"\n\n{code}")


def replace(path: str, old: str, new: str) -> str:
    """The action that puts text in the place of other text."""
    return f"Replace {path}:\n{old}\nWith:\n{new}\nEnd"
