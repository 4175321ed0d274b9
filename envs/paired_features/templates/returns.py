"""Returns: each feature changes what a function returns on which the other feature builds.

Semantic. Uncoordinated, each branch works by itself and they merge without a conflict, but each then takes a pair from
a function that returns a dict. Coordinated, each takes the value by the key that only the partner was told of. Tests
see what a function returns and not whom it calls, so a seat that does all the work itself needs no key.
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

_KEYS = "name label field title".split(), "value amount content data".split()
_ENDS = "low least first bottom".split(), "high most last top".split()


class Returns(RepoFamily):
    name = "returns"
    conflict = "semantic"

    def draw(self, functions: tuple[str, str], signatures: tuple[str, str], rng: np.random.Generator) -> Draft:
        package = pick(PACKAGES, 1, rng)[0]
        first, second = sorted(pick(MODULES, 2, rng))
        places = (first, second)
        (key, value), (low, high) = ([pick(words, 1, rng)[0] for words in pair] for pair in (_KEYS, _ENDS))
        _, files = two_modules(package, places, rng, ("core", 'upper("a")', '"A"'))
        for place in places:
            path = f"{package}/{place}.py"
            files[path] = files[path].replace('"""\n', f'"""\n\nfrom {package} import core\n', 1)
        path = f"{package}/core.py"
        parsed, span = "    return left.strip(), right.strip()", "    return min(numbers), max(numbers)"
        files[path] = module(
            "The core",
            f'def parse(line):\n    left, _, right = line.partition("=")\n{parsed}',
            "def upper(text):\n    return text.upper()",
            f"def span(numbers):\n{span}",
        )

        def spread(code: str, coordinated: bool) -> str:
            take = f'found["{high}"] - found["{low}"]' if coordinated else "found[1] - found[0]"
            extra = f"def spread(numbers):\n    found = core.span(numbers)\n    return {take}"
            change = replace(path, parsed, f'    return {{"{key}": left.strip(), "{value}": right.strip()}}')
            return "\n".join([change, add_function(files, package, places[0], f"{code}\n\n\n{extra}")])

        def right_side(code: str, coordinated: bool) -> str:
            take = f'["{value}"]' if coordinated else "[1]"
            extra = f"def right_side(line):\n    return core.parse(line){take}"
            change = replace(path, span, f'    return {{"{low}": min(numbers), "{high}": max(numbers)}}')
            return "\n".join([change, add_function(files, package, places[1], f"{code}\n\n\n{extra}")])

        first = FeatureDraft(
            brief=(
                f"Add {signatures[0]} to {package}/{places[0]}.py and spread(numbers): greatest minus least, by "
                f'core.span. parse in {path} now returns a dict with the keys "{key}" and "{value}"'
            ),
            binding=f'tree("{package}.{places[0]}").{functions[0]}',
            tests=(
                f'same(tree("{package}.core").parse("a = b"), {{"{key}": "a", "{value}": "b"}})',
                f'same(tree("{package}.{places[0]}").spread([3, 9, 4]), 6)',
            ),
            work=spread,
        )
        second = FeatureDraft(
            brief=(
                f"Add {signatures[1]} to {package}/{places[1]}.py and right_side(line): what is right of the =, by "
                f'core.parse. span in {path} now returns a dict with the keys "{low}" and "{high}"'
            ),
            binding=f'tree("{package}.{places[1]}").{functions[1]}',
            tests=(
                f'same(tree("{package}.core").span([3, 9]), {{"{low}": 3, "{high}": 9}})',
                f'same(tree("{package}.{places[1]}").right_side("a = b"), "b")',
            ),
            work=right_side,
        )
        return Draft(package=package, files=files, features=(first, second))
