"""Append: both features are functions of one module, and the natural place for both is its end.

Spatial. Uncoordinated, both insert after the last line. Coordinated, one goes to the end and the other to the top.
"""

import numpy as np

from envs.paired_features.templates.base import (
    HELPERS,
    MODULES,
    PACKAGES,
    Draft,
    FeatureDraft,
    RepoFamily,
    append,
    helper_checks,
    insert,
    module,
    pick,
    visible,
)


class Append(RepoFamily):
    name = "append"
    conflict = "spatial"

    def draw(self, functions: tuple[str, str], signatures: tuple[str, str], rng: np.random.Generator) -> Draft:
        package, place = pick(PACKAGES, 1, rng)[0], pick(MODULES, 1, rng)[0]
        helpers = pick(tuple(HELPERS), 3, rng)
        path, title = f"{package}/{place}.py", f"Small helpers of the {package}"
        source = module(title, *(HELPERS[name][0] for name in helpers))

        def feature(number: int) -> FeatureDraft:
            def work(code: str, coordinated: bool) -> str:
                if coordinated and number:
                    return insert(path, "after", f'"""{title}."""', f"\n\n{code}")
                return append(path, source, code)

            return FeatureDraft(
                brief=f"Add {signatures[number]} to {path}",
                binding=f'tree("{package}.{place}").{functions[number]}',
                work=work,
            )

        return Draft(
            package=package,
            files={path: source, "tests/test_helpers.py": visible(package, helper_checks(place, helpers))},
            features=(feature(0), feature(1)),
        )
