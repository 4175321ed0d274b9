"""What is installed with the library: its licences are told, and its vulnerabilities are looked for."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LICENCES = runpy.run_path(str(ROOT / ".ci/licences.py"))
AUDIT = runpy.run_path(str(ROOT / ".ci/audit_dependencies.py"))


def test_every_package_that_the_library_needs_has_a_line_with_its_licence():
    page = (ROOT / "docs/dependencies.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([a-z0-9, -]+) \|$", page, re.MULTILINE)
    told = {name: licence for licence, names in rows for name in names.split(", ")}
    needed = LICENCES["needed"]()
    assert {"torch", "peft", "numpy", "safetensors"} <= needed.keys()  # the last is asked for by others alone
    assert sorted(needed.keys() - told.keys()) == []
    assert [name for name, licence in told.items() if licence == "not said"] == ["agent-client-protocol"]


def test_what_is_asked_for_has_the_extras_of_users_and_none_of_tests():
    names = {wanted.name for wanted in LICENCES["asked_for"]()}
    assert {"torch", "bitsandbytes", "openai", "submitit", "inspect-ai"} <= names
    assert not {"pytest", "ruff"} & names


def report(**vulnerability):
    return json.dumps({"dependencies": [{"name": "a", "version": "1.0", "vulns": [vulnerability]}]})


@pytest.mark.parametrize(
    ("found", "says", "code"),
    [
        ("", "not audited: the vulnerability service did not answer", 0),
        (report(id="CVE-1", fix_versions=["1.1"]), "a 1.0: CVE-1, mended in 1.1", 1),
        (report(id="CVE-1", fix_versions=[]), "a 1.0: CVE-1, mended in no release", 1),
        ('{"dependencies": [{"name": "a", "skip_reason": "?"}]}', "not audited: 1 that the service does not know", 0),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}',
            "audited: 1 release without a known vulnerability",
            0,
        ),
    ],
)
def test_an_audit_says_what_is_known_and_what_is_not(found, says, code):
    assert AUDIT["judge"](found) == (says, code)


def test_a_vulnerability_that_is_explained_fails_nothing(monkeypatch):
    monkeypatch.setitem(AUDIT["EXPLAINED"], "CVE-1", "not reached")
    said, code = AUDIT["judge"](report(id="CVE-1", fix_versions=[]))
    assert (said, code) == ("audited: 1 release without a known vulnerability", 0)
