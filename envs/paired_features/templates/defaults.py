"""Defaults: each feature changes the default of a function on which the other feature relies.

Semantic. Uncoordinated, each branch works by itself and they merge without a conflict, but each then calls a function
whose default the other has changed. Coordinated, each passes the argument. A seat that passes it in any case needs no
word from its partner: the task then measures care and not talk.
"""

import numpy as np

from envs.paired_features.templates.base import (
    MODULES,
    PACKAGES,
    Draft,
    FeatureDraft,
    RepoFamily,
    module,
    pick,
    replace,
)
from envs.paired_features.templates.pair import add_function, two_modules

_MARKS = ",;|/:+"


class Defaults(RepoFamily):
    name = "defaults"
    conflict = "semantic"

    def draw(self, functions: tuple[str, str], signatures: tuple[str, str], rng: np.random.Generator) -> Draft:
        package = pick(PACKAGES, 1, rng)[0]
        first, second = sorted(pick(MODULES, 2, rng))
        places = (first, second)
        old, new = pick(_MARKS, 2, rng)
        few, many = sorted(int(n) for n in 2 + rng.permutation(4)[:2])
        if rng.integers(2):
            few, many = many, few
        letters = list("abcdefg")
        checks = ("core", 'words("a b", " ")', '["a", "b"]'), ("core", "tail([1, 2, 3], 1)", "[3]")
        _, files = two_modules(package, places, rng, *checks)
        for place in places:
            path = f"{package}/{place}.py"
            files[path] = files[path].replace('"""\n', f'"""\n\nfrom {package} import core\n', 1)
        path = f"{package}/core.py"
        words, tail = f'def words(text, mark="{old}"):', f"def tail(items, size={few}):"
        files[path] = module(
            "The core",
            f"{words}\n    return text.split(mark)",
            'def line(items):\n    return " ".join(items)',
            f"{tail}\n    return items[-size:]",
        )

        def latest(code: str, coordinated: bool) -> str:
            size = f", {few}" if coordinated else ""
            extra = f"def latest(items):\n    return core.tail(items{size})"
            change = replace(path, words, words.replace(f'"{old}"', f'"{new}"'))
            return "\n".join([change, add_function(files, package, places[0], f"{code}\n\n\n{extra}")])

        def count(code: str, coordinated: bool) -> str:
            mark = f', "{old}"' if coordinated else ""
            extra = f"def word_count(text):\n    return len(core.words(text{mark}))"
            change = replace(path, tail, tail.replace(str(few), str(many)))
            return "\n".join([change, add_function(files, package, places[1], f"{code}\n\n\n{extra}")])

        first = FeatureDraft(
            brief=(
                f"Add {signatures[0]} to {package}/{places[0]}.py and latest(items): the last {few} items, by "
                f'core.tail. The default mark of words in {path} becomes "{new}"'
            ),
            binding=f'tree("{package}.{places[0]}").{functions[0]}',
            tests=(
                f'same(tree("{package}.core").words("a{new}b"), ["a", "b"])',
                f'same(tree("{package}.{places[0]}").latest({letters}), {letters[-few:]})',
            ),
            work=latest,
        )
        second = FeatureDraft(
            brief=(
                f'Add {signatures[1]} to {package}/{places[1]}.py and word_count(text): how many words "{old}" '
                f"divides a text into, by core.words. The default size of tail in {path} becomes {many}"
            ),
            binding=f'tree("{package}.{places[1]}").{functions[1]}',
            tests=(
                f'same(tree("{package}.core").tail({letters}), {letters[-many:]})',
                f'same(tree("{package}.{places[1]}").word_count("a{old}b{old}c"), 3)',
            ),
            work=count,
        )
        return Draft(package=package, files=files, features=(first, second))
