"""What importing costs, who may import whom, and that the README's commands are the Makefile's.

Rules 1 to 4 are contracts in pyproject.toml, which import-linter checks; imports inside functions and for type checkers
alone count as well. Rules 5 to 7 are read off the syntax here.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("envs", "rewards", "marl_coop")
COMPAT = "marl_coop/policy/compat.py"
INTERNALS = ("transformers.cache_utils", "transformers.masking_utils", "transformers.trainer_callback", "peft.tuners")
INTERNALS += ("trl.trainer.base_config", "trl.trainer.base_trainer", "trl.trainer.utils")
INIT_NAMES = {"__all__", "__version__", "__getattr__", "__dir__"}


def test_torch_stays_unloaded():
    modules = "envs rewards rewards.metrics marl_coop marl_coop.config.schema marl_coop.cli "
    modules += "marl_coop.experiment.executors"  # which the job of a cluster loads
    code = (
        "import importlib, sys\n"
        f"for name in '{modules}'.split():\n"
        "    importlib.import_module(name)\n"
        "    if loaded := {'torch', 'transformers', 'trl'} & set(sys.modules):\n"
        "        sys.exit(f'import {name} loads {loaded}')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_public_name_is_found_and_loads_torch_only_if_it_needs_it():
    code = (
        "import sys, marl_coop;"
        "light = {'BASE', 'Config', 'ConfigError', 'Mix', 'audit', 'load_config'} & set(marl_coop.__all__);"
        "assert len(light) == 6, marl_coop.__all__;"
        "[getattr(marl_coop, name) for name in light]; assert 'torch' not in sys.modules;"
        "[getattr(marl_coop, name) for name in marl_coop.__all__]; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# ---------------------------------------------------------------------------------------------- who may import whom


def lint(root: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"]
    return subprocess.run([*command, *words], cwd=root, capture_output=True, text=True)


def copy_of_the_tree(folder: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_rooms_import_as_the_contracts_say():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


TYPES_ALONE = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
SLIPS = [  # file, what it says, what is said of it
    ("envs/core/upward.py", "from rewards.base import RewardTerm", "envs.core.upward -> rewards.base"),
    (
        "rewards/terms/upward.py",
        "def late():\n    import marl_coop.players",
        "rewards.terms.upward -> marl_coop.players",
    ),
    ("marl_coop/runs/heavy.py", "import torch", "marl_coop.runs.heavy -> torch"),
    ("rewards/metrics/heavy.py", "def late():\n    import trl", "rewards.metrics.heavy -> trl"),
    ("envs/handover/knows.py", "import envs.scripted.base", "envs.handover.knows -> envs.scripted.base"),
    ("envs/core/typed.py", TYPES_ALONE + "import envs.sandbox", "envs.core.typed -> envs.sandbox"),
    ("envs/new_game.py", "import envs.scripted.base", "envs.new_game -> envs.scripted.base"),
    ("envs/core/new.py", "import envs.newer_game", ".newer_game -> .core"),
    ("rewards/metrics/term.py", "import rewards.terms.consensus", "rewards.metrics.term -> rewards.terms.consensus"),
    ("rewards/baselines/metric.py", "import rewards.metrics.rate", "rewards.baselines.metric -> rewards.metrics.rate"),
    ("marl_coop/rollout/learns.py", "import marl_coop.ppo.losses", "marl_coop.rollout.learns -> marl_coop.ppo.losses"),
    ("marl_coop/ppo/judges.py", "import marl_coop.evaluation", "marl_coop.ppo.judges -> marl_coop.evaluation"),
    ("marl_coop/cellar/__init__.py", "", "- marl_coop.cellar"),
    ("marl_coop/engines/reads.py", "import marl_coop.config", "marl_coop.engines.reads -> marl_coop.config"),
    ("envs/source/one.py", "import envs.source.two", "are allowed in envs.source"),
]


@pytest.fixture(scope="module")
def said_of_slips(tmp_path_factory) -> str:
    """What the check says of a copy of the tree in which each rule is broken."""
    root = copy_of_the_tree(tmp_path_factory.mktemp("slips"))
    for file, text, _ in SLIPS:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text(text + "\n")
    (root / "envs/source/two.py").write_text("import envs.source.one\n")
    (root / "envs/newer_game.py").write_text("import envs.core.env\n")
    section = (ROOT / "README.md").read_text().partition("## Add an environment")[2]
    (root / "envs/colours.py").write_text(section.partition("```python\n")[2].partition("```")[0])
    result = lint(root)
    assert result.returncode == 1
    return result.stdout


@pytest.mark.parametrize(("file", "text", "said"), SLIPS)
def test_an_import_that_breaks_a_contract_is_found(said_of_slips, file, text, said):
    assert said in said_of_slips


def test_the_readmes_environment_needs_no_line_in_the_contracts(said_of_slips):
    assert "colours" not in said_of_slips


# ------------------------------------------------------------------------------------------------ what syntax shows


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every module of the packages: its path from the root, and its syntax tree."""
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            yield str(file.relative_to(root)), ast.parse(file.read_text(encoding="utf-8"))


def foreign(module: str) -> bool:
    """Whether a module is of another library, and not of the standard one."""
    return module.partition(".")[0] not in (*PACKAGES, *sys.stdlib_module_names)


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def leanings(tree: ast.Module) -> Iterator[str]:
    """What a module takes of the internals of other libraries."""
    held = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = {alias.name: alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported = {f"{node.module}.{alias.name}": alias.asname or alias.name for alias in node.names}
        else:
            continue
        held |= {name for module, name in imported.items() if foreign(module)}
        for module in filter(foreign, imported):
            if any(map(private, module.split("."))) or module.startswith(INTERNALS):
                yield module
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            owner = node.value
            while isinstance(owner, ast.Attribute):
                owner = owner.value
            if isinstance(owner, ast.Name) and owner.id in held:
                yield ast.unparse(node)


def broken_rules(root: Path) -> list[str]:
    """What breaks rule 5 (internals of other libraries stand in compat alone), 6 (an `__init__.py` exports and defines
    nothing) or 7 (one class name has one meaning).
    """
    found, homes = [], defaultdict(list)
    for path, tree in modules(root):
        found += [f"5: {path}: {what}" for what in leanings(tree) if path != COMPAT]
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not private(node.name):
                homes[node.name].append(path)
        for node in tree.body if path.endswith("__init__.py") else ():
            names = {n.id for t in getattr(node, "targets", ()) for n in ast.walk(t) if isinstance(n, ast.Name)}
            exports = isinstance(node, ast.Import | ast.ImportFrom) or (names and names <= INIT_NAMES)
            if not exports and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                found.append(f"6: {path}: line {node.lineno}")
    return found + [f"7: {name}: {', '.join(paths)}" for name, paths in homes.items() if len(paths) > 1]


def test_internals_of_libraries_empty_inits_and_one_meaning_for_a_class():
    assert broken_rules(ROOT) == []


BROKEN = [  # file, what it says, the rule that it breaks
    ("marl_coop/ppo/slip.py", "from trl.trainer.base_trainer import _BaseTrainer", "5: "),
    ("marl_coop/engines/slip.py", "from transformers.cache_utils import DynamicLayer", "5: "),
    ("envs/core/slip.py", "import numpy as np\nx = np.core._methods", "5: "),
    ("rewards/terms/slip/__init__.py", "LIMIT = 3", "6: "),
    ("envs/slip/__init__.py", "def make(): ...", "6: "),
    ("rewards/slip.py", "class Episode: ...", "7: Episode: "),
]


def test_each_rule_that_is_broken_is_found_where_it_is(tmp_path):
    root = copy_of_the_tree(tmp_path)
    for file, text, _ in BROKEN:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text(text)
    broken = broken_rules(root)
    for file, _, rule in BROKEN:
        (found,) = [one for one in broken if file in one]
        broken.remove(found)
        assert found.startswith(rule)
    assert broken == []


# ------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("command", ["make train", "make test", "make install"])
def test_commands_of_the_readme_are_targets(command):
    assert command in (ROOT / "README.md").read_text()
    assert re.search(rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test" in (ROOT / ".ci/run").read_text()
