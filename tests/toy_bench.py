"""A small dataset in CooperBench's layout, with its upstream repository, written by us and made by code."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from envs.cooperbench.dataset import BenchTask, Dataset
from envs.cooperbench.evaluation import Evaluator
from envs.cooperbench.grading import Workbench
from envs.cooperbench.recipes import Recipe
from envs.cooperbench.runner import Isolation, Place
from envs.cooperbench.venvs import Cache
from envs.repository.git import Repository
from envs.sandbox import tree

ISOLATION = Isolation.BUBBLEWRAP if "bubblewrap" in tree.tier().layers else Isolation.NONE  # no image of docker has it

BASE = {
    "shapes/__init__.py": '"""Shapes."""\nfrom shapes.core import area\n\n__all__ = ["area"]\n',
    "shapes/core.py": '''"""Areas of rectangles."""


def area(width, height):
    return width * height


def label(width, height):
    return f"{width}x{height}"
''',
    "tests/test_shapes.py": """import pytest

from shapes import core


def test_area():
    assert core.area(2, 3) == 6
""",
    "pyproject.toml": """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
""",
    "backend.py": '''"""Builds the wheel with the standard library, so that an install needs no registry."""

import zipfile

META = "Metadata-Version: 2.1\\nName: shapes\\nVersion: 1.0\\n"
WHEEL = "Wheel-Version: 1.0\\nGenerator: toy\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"


def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "shapes-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        for path in ("shapes/__init__.py", "shapes/core.py"):
            wheel.write(path)
        wheel.writestr("shapes/built.txt", "made by the build")
        for path, text in (("METADATA", META), ("WHEEL", WHEEL), ("RECORD", "")):
            wheel.writestr(f"shapes-1.0.dist-info/{path}", text)
    return name
''',
    "README.md": "Shapes.\n",
}

AREA = BASE["shapes/core.py"].split("\n\n\n")[1]
LABEL = BASE["shapes/core.py"].split("\n\n\n")[2]

SQUARE = """def square(side):
    if side < 0:
        raise ValueError("negative side")
    return side * side
"""

# Feature 1 and 3 are far apart and merge; 1 and 2 extend one signature and conflict; 4's tests pass on the base.
GOLD = {
    1: {AREA: "def area(width, height, *, unit=1):\n    return width * height * unit"},
    2: {AREA: "def area(width, height=None):\n    return width * (width if height is None else height)"},
    3: {
        LABEL: LABEL
        + '\n\ndef square(side):\n    if side < 0:\n        raise ValueError("negative side")\n    return side * side\n'
    },
    4: {LABEL: LABEL + "\n\nNAME = 'shapes'\n"},
}
TESTS = {
    1: """

@pytest.mark.parametrize("unit", [2, 5])
def test_area_in_units(unit):
    assert core.area(2, 3, unit=unit) == 6 * unit


def test_unit_is_one_by_default():
    assert core.area(4, 5, unit=1) == 20
""",
    2: """

def test_area_of_a_square():
    assert core.area(7) == 49
""",
    3: """

def test_square():
    assert core.square(3) == 9


def test_negative_side():
    with pytest.raises(ValueError, match="negative side"):
        core.square(-1)


def test_square_runs():
    core.square(1)
""",
    4: """

def test_label():
    assert core.label(1, 2) == "1x2"
""",
}

FORCE_REPORTS = """
import pytest

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
"""
RUNNER = """#!/bin/bash
set -e
cd /workspace/repo
git reset --hard HEAD
if [[ -n "$2" ]]; then
    git apply --ignore-whitespace "/patches/$2" || git apply --3way "/patches/$2"
fi
git apply --ignore-whitespace "/patches/$1" || git apply --3way "/patches/$1"
pip install -e .
python -m pytest tests/test_shapes.py -v
"""


def write_toy(folder: Path) -> tuple[Path, Path]:
    """Write the dataset and the upstream repository into a folder: (dataset, repository)."""
    upstream = Repository.create(folder / "upstream.git")
    base = upstream.write({path: text.encode() for path, text in BASE.items()})
    commit = upstream.commit(base)
    subprocess.run(["git", f"--git-dir={upstream.git_dir}", "update-ref", "refs/heads/main", commit], check=True)
    subprocess.run(["git", f"--git-dir={upstream.git_dir}", "symbolic-ref", "HEAD", "refs/heads/main"], check=True)
    task = folder / "dataset/shapes_task/task7"
    for id, change in GOLD.items():
        feature = task / f"feature{id}"
        feature.mkdir(parents=True)
        (feature / "feature.md").write_text(f"**Title**: feature {id} of shapes\n")
        (feature / "feature.patch").write_text(patch(upstream, base, change))
        tests = {"tests/test_shapes.py": BASE["tests/test_shapes.py"] + TESTS[id]}
        (feature / "tests.patch").write_text(upstream.diff(base, _with(upstream, base, tests)))
    (task / "Dockerfile").write_text(f"RUN git clone {upstream.git_dir} repo && cd repo && git checkout {commit}\n")
    (task / "runner.sh").write_text(RUNNER)
    subsets = folder / "dataset/subsets"
    subsets.mkdir()
    (subsets / "few.json").write_text('{"tasks": [{"repo": "shapes_task", "task_id": 7, "pairs": [[1, 3]]}]}')
    return folder / "dataset", upstream.git_dir


def patch(upstream: Repository, base: str, change: Mapping[str, str]) -> str:
    """The diff of replacing pieces of `shapes/core.py`."""
    text = BASE["shapes/core.py"]
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    return upstream.diff(base, _with(upstream, base, {"shapes/core.py": text}))


def submission(bench: Workbench, files: Mapping[str, str]) -> str:
    """A patch that writes files; of `shapes/core.py` it is what follows the original."""
    core = "shapes/core.py"
    return bench.repository.diff(
        bench.base,
        _with(bench.repository, bench.base, {p: BASE[core] + text if p == core else text for p, text in files.items()}),
    )


class Here(Cache):
    """The interpreter that runs these tests, in the place of an environment of the task's own."""

    def environment(self, task, recipe):
        environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return Place(python=Path(sys.executable), readable=(Path(sys.prefix),), environ=environ)


def make_toy(folder: Path) -> tuple[BenchTask, Evaluator]:
    """The toy task and an evaluator for it, isolated as well as this machine can."""
    dataset, upstream = write_toy(folder)
    task = Dataset(dataset).task("shapes_task", 7)
    cache = Here(folder / "cache", sources={"shapes_task": upstream})
    return task, Evaluator(cache, isolation=ISOLATION, timeout_s=30, recipes={task.key: Recipe(tier=1)})


def _with(upstream: Repository, base: str, files: Mapping[str, str]) -> str:
    return upstream.with_files(base, {path: text.encode() for path, text in files.items()})
