"""Say which locked releases have known vulnerabilities, by pip-audit's report: make audit-dependencies.

    python .ci/audit_dependencies.py REPORT.json

Exit code 1: one has. A service that could not be asked, or that does not know a release, is said and is no failure: it
is no finding either. What is known and harmless here stands in `EXPLAINED`.
"""

import json
import sys
from pathlib import Path

EXPLAINED: dict[str, str] = {}  # id of a vulnerability -> why it does no harm here


def judge(report: str) -> tuple[str, int]:
    """What a report comes to, in words, and the exit code.

    >>> judge("")
    ('not audited: the vulnerability service did not answer', 0)
    >>> judge('{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "unknown"}]}')
    ('audited: 1 release without a known vulnerability; not audited: 1 that the service does not know', 0)
    """
    if not report.strip():
        return "not audited: the vulnerability service did not answer", 0
    releases = json.loads(report)["dependencies"]
    found = [
        f"{release['name']} {release['version']}: {vulnerability['id']}, mended in "
        f"{', '.join(vulnerability['fix_versions']) or 'no release'}"
        for release in releases
        for vulnerability in release.get("vulns", ())
        if vulnerability["id"] not in EXPLAINED
    ]
    if found:
        return "\n".join(found), 1
    skipped = sum("skip_reason" in release for release in releases)
    clean = len(releases) - skipped
    said = f"audited: {clean} release{'s' * (clean != 1)} without a known vulnerability" if clean else ""
    unknown = f"not audited: {skipped} that the service does not know" if skipped else ""
    return "; ".join(filter(None, (said, unknown))), 0


if __name__ == "__main__":
    file = Path(sys.argv[1])
    text, code = judge(file.read_text(encoding="utf-8") if file.exists() else "")
    print(text)
    sys.exit(code)
