"""What importing costs, and that the README's commands are the Makefile's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("module", ["envs", "rewards", "rewards.metrics", "marl_coop.config.schema", "marl_coop.cli"])
def test_torch_stays_unloaded(module):
    code = f"import sys, {module}; sys.exit(' '.join({{'torch', 'transformers', 'trl'}} & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"import {module} loads {result.stderr}"


@pytest.mark.parametrize("package", ["envs", "rewards"])
def test_imports_point_one_way(package):
    above = {"envs": "rewards|marl_coop", "rewards": "marl_coop"}[package]
    pattern = re.compile(rf"^\s*(?:from|import) ({above})\b", re.MULTILINE)
    offenders = [str(file) for file in (ROOT / package).rglob("*.py") if pattern.search(file.read_text())]
    assert offenders == []


@pytest.mark.parametrize("command", ["make train", "make test", "make install"])
def test_commands_of_the_readme_are_targets(command):
    assert command in (ROOT / "README.md").read_text()
    assert re.search(rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test" in (ROOT / ".ci/run").read_text()
