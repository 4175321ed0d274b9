"""Print the licence of every package that the library needs, as its metadata says: make licences.

What pyproject.toml asks for is followed to its ends, with the extras that are installed.
"""

import re
import tomllib
from collections import defaultdict
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
NOT_SAID = "not said"
SAME = {  # how older metadata calls them
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "3-Clause BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def asked_for() -> list[Requirement]:
    """What pyproject.toml asks for, with the extras of users, but for vLLM's, which has an environment of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(line for name in extras.keys() - {"test", "lint", "vllm"} for line in extras[name]),
    ]
    return [Requirement(line) for line in lines]


def needed() -> dict[str, Distribution]:
    """The installed packages that the library needs, by their names."""
    found: dict[str, Distribution] = {}
    known = [(plain(wanted.name), extra) for wanted in asked_for() for extra in ("", *wanted.extras)]
    seen = set(known)
    while known:
        package, extra = known.pop()
        try:
            found[package] = distribution(package)
        except PackageNotFoundError:  # of an extra that is not installed, or of another system
            continue
        for line in found[package].requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                more = {(plain(wanted.name), part) for part in ("", *wanted.extras)} - seen
                seen |= more
                known += more
    return found


def plain(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(package: Distribution) -> str:
    """What the metadata says, the newest kind of field first."""
    said = package.metadata
    if expression := said.get("License-Expression"):
        return expression
    classifiers = said.get_all("Classifier") or ()
    marks = [mark.split(" :: ")[-1] for mark in classifiers if mark.startswith("License :: OSI Approved ::")]
    texts = marks or (said.get("License") or NOT_SAID).splitlines()[:1]
    return " OR ".join(SAME.get(text, text) for text in texts)


def main() -> None:
    by_licence = defaultdict(list)
    for name, package in sorted(needed().items()):
        by_licence[licence(package)].append(name)
    print("| licence | packages |\n|---|---|")
    for said, names in sorted(by_licence.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"| {said} | {', '.join(names)} |")


if __name__ == "__main__":
    main()
