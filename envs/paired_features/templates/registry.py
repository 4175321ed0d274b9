"""Registry: each feature has a module of its own, and both must be listed in one table.

Spatial. Uncoordinated, both add their line at the end of the table. Coordinated, one adds it at the top.
"""

import numpy as np

from envs.paired_features.templates.base import MODULES, PACKAGES, Draft, FeatureDraft, RepoFamily, insert, pick
from envs.paired_features.templates.pair import add_function, two_modules


class Registry(RepoFamily):
    name = "registry"
    conflict = "spatial"

    def draw(self, functions: tuple[str, str], signatures: tuple[str, str], rng: np.random.Generator) -> Draft:
        package, (one, two) = pick(PACKAGES, 1, rng)[0], sorted(pick(MODULES, 2, rng))
        modules, files = two_modules(package, (one, two), rng)
        path = f"{package}/registry.py"
        entries = [f'    "{name}": {place}.{name},' for place, names in modules.items() for name in names]
        table = f'"""Commands by name."""\n\nfrom {package} import {one}, {two}\n\nCOMMANDS = {{\n'
        files[path] = table + "\n".join(entries) + "\n}\n"

        def feature(number: int, place: str, function: str) -> FeatureDraft:
            def work(code: str, coordinated: bool) -> str:
                line = f'    "{function}": {place}.{function},'
                where, anchor = ("after", "COMMANDS = {") if coordinated and number else ("before", "}")
                return f"{add_function(files, package, place, code)}\n{insert(path, where, anchor, line)}"

            return FeatureDraft(
                brief=f'Add {signatures[number]} to {package}/{place}.py and to COMMANDS in {path}, as "{function}"',
                binding=f'tree("{package}.registry").COMMANDS["{function}"]',
                work=work,
            )

        features = feature(0, one, functions[0]), feature(1, two, functions[1])
        return Draft(package=package, files=files, features=features)
