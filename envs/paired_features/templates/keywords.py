"""Keywords: both features extend the signature of one function.

Semantic, and textual too. Uncoordinated, each seat writes a signature with its own keyword only: git reports the line,
and neither version of it serves both. Coordinated, both write the same line with both keywords, for which each must
know the other's name and default, and change the body in different places.
"""

import numpy as np

from envs.paired_features.templates.base import (
    MODULES,
    PACKAGES,
    Draft,
    FeatureDraft,
    RepoFamily,
    insert,
    pick,
    replace,
)
from envs.paired_features.templates.pair import add_function, two_modules

_WORDS = "packed sealed mapped tagged routed staged signed folded linked wired boxed keyed".split()


class Keywords(RepoFamily):
    name = "keywords"
    conflict = "semantic"

    def draw(self, functions: tuple[str, str], signatures: tuple[str, str], rng: np.random.Generator) -> Draft:
        package = pick(PACKAGES, 1, rng)[0]
        first, second = sorted(pick(MODULES, 2, rng))
        places = (first, second)
        words = pick(_WORDS, 2, rng)
        defaults = [bool(rng.integers(2)) for _ in words]  # the value that leaves the function out
        _, files = two_modules(package, places, rng, ("core", "handle(4, 5)", "(4, 5)"))
        path, title = f"{package}/core.py", '    """Check values and hand them on."""'
        head = "def handle(*values, checked=True{}):"
        check = '    if checked and None in values:\n        raise ValueError("no value")'
        files[path] = "\n".join(
            ['"""The core."""', "", f"from {package} import {', '.join(places)}", "", "", head.format("")]
        )
        files[path] += "\n" + "\n".join([title, check, "    return values"]) + "\n"
        own = [f", {word}={default}" for word, default in zip(words, defaults, strict=True)]

        def feature(number: int, place: str, function: str) -> FeatureDraft:
            word, default = words[number], defaults[number]

            def work(code: str, coordinated: bool) -> str:
                signature = replace(path, head.format(""), head.format("".join(own) if coordinated else own[number]))
                test = f"not {word}" if default else word
                body = f"    if {test}:\n        return {place}.{function}(*values)"
                where, anchor = ("after", title) if coordinated and number else ("before", "return values")
                change = insert(path, where, anchor.strip(), body)
                return f"{add_function(files, package, place, code)}\n{signature}\n{change}"

            return FeatureDraft(
                brief=(
                    f"Add {signatures[number]} to {package}/{place}.py. handle in {path} gets the keyword {word}, by "
                    f"default {default}; with {word}={not default} it returns {function} of its values"
                ),
                binding=f'(lambda *values: tree("{package}.core").handle(*values, {word}={not default}))',
                work=work,
            )

        features = feature(0, places[0], functions[0]), feature(1, places[1], functions[1])
        return Draft(package=package, files=files, features=features)
