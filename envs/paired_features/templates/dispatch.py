"""Dispatch: each feature has a module of its own, and one function must learn to call both.

Spatial. Uncoordinated, both add their branch before the last line of `run`. Coordinated, one adds it at the top.
"""

import numpy as np

from envs.paired_features.templates.base import MODULES, PACKAGES, Draft, FeatureDraft, RepoFamily, insert, pick
from envs.paired_features.templates.pair import add_function, two_modules


class Dispatch(RepoFamily):
    name = "dispatch"
    conflict = "spatial"

    def draw(self, functions: tuple[str, str], signatures: tuple[str, str], rng: np.random.Generator) -> Draft:
        package, (one, two) = pick(PACKAGES, 1, rng)[0], sorted(pick(MODULES, 2, rng))
        modules, files = two_modules(package, (one, two), rng)
        path = f"{package}/cli.py"
        known = [_branch(name, place) for place, names in modules.items() for name in names]
        head, last = "def run(command, *values):", '    raise ValueError(f"no command {command}")'
        files[path] = "\n".join(['"""Runs commands."""', "", f"from {package} import {one}, {two}", "", "", head])
        files[path] += "\n" + "\n".join([*known, last]) + "\n"

        def feature(number: int, place: str, function: str) -> FeatureDraft:
            def work(code: str, coordinated: bool) -> str:
                where, anchor = ("after", head) if coordinated and number else ("before", last.strip())
                branch = insert(path, where, anchor, _branch(function, place))
                return f"{add_function(files, package, place, code)}\n{branch}"

            return FeatureDraft(
                brief=f'Add {signatures[number]} to {package}/{place}.py; run("{function}", ...) in {path} calls it',
                binding=f'(lambda *values: tree("{package}.cli").run("{function}", *values))',
                work=work,
            )

        features = feature(0, one, functions[0]), feature(1, two, functions[1])
        return Draft(package=package, files=files, features=features)


def _branch(function: str, place: str) -> str:
    return f'    if command == "{function}":\n        return {place}.{function}(*values)'
