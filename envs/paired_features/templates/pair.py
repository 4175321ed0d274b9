"""Packages in which each feature has a module of its own, so that only what they share can conflict."""

from collections.abc import Mapping

import numpy as np

from envs.paired_features.templates.base import HELPERS, append, helper_checks, module, pick, visible


def two_modules(
    package: str, places: tuple[str, ...], rng: np.random.Generator, *more: tuple[str, str, str]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """(module -> names of its two helpers, files of a package with these modules and their visible tests).

    `more` are further visible tests, each (module, call, value).
    """
    names = pick(tuple(HELPERS), 4, rng)
    modules = {places[0]: names[:2], places[1]: names[2:]}
    files = {
        f"{package}/{place}.py": module(f"The {place} part of the {package}", *(HELPERS[name][0] for name in held))
        for place, held in modules.items()
    }
    checks = [check for place, held in modules.items() for check in helper_checks(place, held)]
    return modules, files | {"tests/test_parts.py": visible(package, [*checks, *more])}


def add_function(files: Mapping[str, str], package: str, place: str, code: str) -> str:
    """The action that adds a definition to a seat's own module."""
    path = f"{package}/{place}.py"
    return append(path, files[path], code)
